"""A private RabbitMQ: a real one, on free ports, in a folder of its own, gone with the tests.

Run as a script it is the lifeline of the server's processes: it starts a command in a session of its own and
kills all of it when its own standard input ends, as it does with the tests' process however that dies.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

#: Seconds that a broker gets to start. Erlang alone takes some; the machine may be busy.
STARTING = 120.0

#: Where packages put the server's own script, which runs as any user; Debian's wrapper doesn't.
_PLACES = (
    "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
)

#: Ports to listen on: below those that Linux (from 32768) and macOS (from 49152) give to who connects.
_PORTS = range(20_000, 32_000)

#: Ports that a process of tests keeps for itself; beyond so many, those that it asked for first are free.
_KEPT = 3_000

#: Held while Debian's package is installed: two test runs at once must not.
_INSTALLING = Path(tempfile.gettempdir()) / f"function-executor-rabbitmq-{os.getuid()}.lock"

#: Each process of tests locks the bytes of it whose places are the ports that it uses.
_USING = Path(tempfile.gettempdir()) / f"function-executor-ports-{os.getuid()}.lock"

HOW = (
    "needs a RabbitMQ: install rabbitmq-server (Debian: apt install rabbitmq-server, macOS: brew install "
    "rabbitmq), or set RABBITMQ_URL to one that the tests may use"
)


def server_script() -> Path | None:
    """Return the script that starts a RabbitMQ, installing Debian's package first when run as root."""
    found = _find()
    if found is None and os.getuid() == 0 and shutil.which("apt-get"):
        with _INSTALLING.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (found := _find()) is None:
                _install()
                found = _find()
    return found


def _find() -> Path | None:
    for pattern in _PLACES:
        for path in sorted(Path("/").glob(pattern[1:]), reverse=True):
            return path
    return None


def _install() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", "rabbitmq-server"]
    for command in (["apt-get", "update"], install):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode and command is install:
            print(done.stdout, done.stderr, file=sys.stderr)


class RabbitMQ:
    """A broker of one's own at `host`; `settings` are lines of its rabbitmq.conf, `under` what it runs under.

    With `tls` it speaks that, too (`tls_url`), with a certificate for its host of an authority in `ca_file`.

    Raises:
        AssertionError: it does not start.
    """

    def __init__(
        self,
        script: Path,
        *settings: str,
        host: str = "127.0.0.1",
        under: Sequence[str] = (),
        tls: bool = False,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fe-rabbit-"))
        self.host = host
        self._under = under
        self.port, tls_port, dist, epmd = free_ports(4)
        self.url = f"amqp://guest:guest@{host}:{self.port}/"
        self.tls_url = f"amqps://guest:guest@{host}:{tls_port}/"
        self.ca_file = self._folder / "ca.pem"
        self._log = self._folder / "log"
        config = self._folder / "rabbitmq.conf"
        lines = [
            f"listeners.tcp.1 = {host}:{self.port}",
            "loopback_users = none",  # who tests is the only one to reach it
            "log.console = true",
            "log.console.level = info",
            "disk_free_limit.absolute = 10MB",
            "vm_memory_high_watermark.absolute = 1GB",
            *settings,
        ]
        if tls:
            shown = self._folder / "shown.pem"
            _certify(host, self.ca_file, shown)
            lines.append(f"listeners.ssl.1 = {host}:{tls_port}")
            lines += [f"ssl_options.{what}file = {shown}" for what in ("cert", "key")]
        config.write_text("".join(f"{line}\n" for line in lines))
        (self._folder / "plugins").write_text("[].\n")
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(self._folder),  # the Erlang cookie's place
            "RABBITMQ_NODENAME": f"fe{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_ALLOW_INPUT": "1",  # one process instead of a shell with handlers around it
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": host,  # besides the loopback address
            # The last two: nobody else reaches it, and how often it sees whether acknowledgements are
            # overdue, which is a minute else.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-noinput +sbwt none +sbwtdcpu none +sbwtdio none"
                " -kernel inet_dist_use_interface {127,0,0,1} -rabbit channel_tick_interval 500"
            ),
        }
        self._script = script
        self._lifelines: list[subprocess.Popen[bytes]] = []
        try:
            epmd_program = shutil.which("epmd")
            if epmd_program is not None:  # else, and before it listens, Erlang starts one that would stay
                lifeline = self._start([epmd_program, "-port", str(epmd)])
                self._wait(lifeline, lambda: _listens(host, epmd), "epmd")
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start the server (again), and wait until it answers."""
        self._server = self._start([str(self._script)])
        self._wait(self._server, self._answers, "RabbitMQ")

    def kill(self) -> None:
        """Let the server die at once; `start` starts it again with what it had on disk.

        RabbitMQ (3.10) may leave the names of quorum queues in memory for minutes after they were made (in
        `dets`, which saves by itself every three), and of one that it does not find after such a death none
        ever gets a leader again. That is no matter of ours: so the server saves the names first, and ends
        itself at once, before somebody makes another queue.
        """
        self._control("eval", '[dets:sync(Table) || Table <- dets:all()], os:cmd("kill -9 " ++ os:getpid()).')
        self._server.wait(30)
        self._lifelines.remove(self._server)
        _end(self._server)

    def stop(self) -> None:
        """Have the server end as its users end it."""
        self.control("stop", self._environment["RABBITMQ_PID_FILE"])
        self._lifelines.remove(self._server)
        _end(self._server)

    def control(self, *arguments: str) -> str:
        """Have `rabbitmqctl` do something; return what it says."""
        done = self._control(*arguments)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._under, self._script.with_name("rabbitmqctl"), *arguments], env=self._environment,
            capture_output=True, text=True, timeout=STARTING, check=False,
        )  # fmt: skip

    def close(self) -> None:
        """End it and remove its folder."""
        for lifeline in self._lifelines:
            _end(lifeline)
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        """Return what the server said."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            lifeline = subprocess.Popen(
                [sys.executable, "-P", "-S", __file__, *self._under, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
        self._lifelines.append(lifeline)
        return lifeline

    def _wait(self, lifeline: subprocess.Popen[bytes], condition: Callable[[], bool], what: str) -> None:
        """Wait until a program that was started does what is expected of it."""
        deadline = time.monotonic() + STARTING
        while not condition():
            assert lifeline.poll() is None, f"{what} ended:\n{self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"{what} does not start:\n{self.log()[-3000:]}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as sock:
                sock.sendall(b"AMQP\0\0\x09\x01")
                return bool(sock.recv(1))
        except OSError:
            return False


def _certify(host: str, ca_file: Path, shown: Path) -> None:
    """Write an authority, and a private key with its certificate for a host."""
    import trustme  # here, as neither the lifeline nor benchmarks have it

    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(shown)


def _end(lifeline: subprocess.Popen[bytes]) -> None:
    assert lifeline.stdin is not None
    lifeline.stdin.close()
    lifeline.wait(30)


def _listens(host: str, port: int) -> bool:
    """Whether somebody takes connections at a port."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Return so many ports that nobody listens on, and that no other test gets, in whatever process.

    They are none of those that the system gives to who connects: else somebody could have one by chance while
    whose it is has been killed, or who looks for that one be connected to itself.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().choice(_PORTS)
        if port not in _ours and _lock(port):
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:  # somebody has it
                fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
            else:
                ports.append(port)
                _ours.append(port)
    while len(_ours) > _KEPT:
        fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, _ours.popleft())
    return ports


#: The ports that this process has, in the order in which they were asked for.
_ours: deque[int] = deque()


def _lock(port: int) -> bool:
    """Keep a port from other processes of tests for as long as this one lives."""
    try:
        fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _locks() -> int:
    """Return this process's only descriptor of the file of locks: closing one would drop all of them."""
    return os.open(_USING, os.O_RDWR | os.O_CREAT, 0o600)


def _lifeline(command: list[str]) -> None:
    """Run a command; kill it and its descendants at the end of standard input."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # interrupts nothing: the reading goes on
    import select

    while process.poll() is None:
        if select.select([0], [], [], 0.2)[0]:
            break
    _kill_sessions(process.pid)
    process.wait()


def _kill_sessions(session: int) -> None:
    """Kill all processes of a session; Erlang's helpers have groups of their own in it."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                os.kill(int(stat.parent.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):  # it ended meanwhile
            continue
    try:
        os.killpg(session, signal.SIGKILL)
    except OSError:  # all are gone
        pass


if __name__ == "__main__":
    _lifeline(sys.argv[1:])
