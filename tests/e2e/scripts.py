"""The real scripts as processes: each test in folders of its own, and nothing left alive behind it.

Every process that a test starts, and every one that those start in turn, carries `TAG` in its environment:
so they can be found however they hide, and at the end of a test there must be none. If the tests' own process
is killed, they end after it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.e2e.afterlife import TAG, see_to, tagged

ROOT = Path(__file__).parents[2]

#: Seconds that anything may take. Ample: these tests ask whether, not how fast.
LIMIT = 60.0

#: Seconds after which nothing may live of what was killed. The promise is a few; the machine may be busy.
GONE = 15.0

#: What may be set where the tests run and would change what the scripts do.
_FOREIGN = ("SLURM_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "COLUMNS", "XDG_RUNTIME_DIR")

#: Starts a command as a shell's script does in the background: with Ctrl-C ignored.
IN_THE_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str = "", timeout: float = LIMIT) -> T:
    """Return the first true value of `condition`; fail when there is none within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what or condition}"
        time.sleep(0.01)
    return value


class Script:
    """A script that was started; its output goes to files, and can be read while it runs."""

    def __init__(
        self, name: str, command: list[str], folder: Path, environment: dict[str, str], logs: Path,
        stdin: bytes | int, **options: Any,
    ) -> None:  # fmt: skip
        self.name = name
        self._out, self._err = logs / f"{name}.out", logs / f"{name}.err"
        stdin_file = logs / f"{name}.in"
        if isinstance(stdin, bytes):
            stdin_file.write_bytes(stdin)
        else:
            stdin_file.touch()
            options["stdin"] = stdin
        with stdin_file.open("rb") as input_, self._out.open("wb") as out, self._err.open("wb") as err:
            chosen = {"stdin": input_, "stdout": out, "stderr": err} | options
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, start_new_session=True, **chosen
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def ends(self, timeout: float = LIMIT) -> int:
        """Wait for its end; return its exit status as a shell shows it."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {timeout:g} s\n{self.stderr}") from None
        return status if status >= 0 else 128 - status

    def says(self, text: str, timeout: float = LIMIT) -> str:
        """Wait until stderr holds `text`; return the line that does."""

        def line() -> str:
            found = next((line for line in self.stderr.splitlines() if text in line), "")
            assert found or not self.ended or text in self.stderr, (
                f"{self.name} ended and never said {text!r}"
            )
            return found

        return wait_until(line, f"{self.name} says {text!r}", timeout)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill this process alone, so that it can do nothing about it any more."""
        self.process.kill()
        self.process.wait(LIMIT)

    def log(self) -> str:
        return f"--- {self.name}: {self.process.args}\n{self.stdout}--- its stderr\n{self.stderr}"


class Scripts:
    """Starts the scripts in `folder`, on a private address of this test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Not below tmp_path: a unix socket's path has a hundred bytes at most.
        self.runtime = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
        self._logs = Path(tempfile.mkdtemp(prefix="fe-logs-"))
        self._tag = f"{os.getpid()}.{uuid.uuid4().hex}"
        see_to(os.getpid())
        self._started: list[Script] = []
        self.show: Callable[[str], None] = print  # what takes the logs at the end
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        own = {"XDG_RUNTIME_DIR": str(self.runtime), "TERM": "xterm", TAG: self._tag}
        self.environment = {**kept, **own}

    @property
    def address(self) -> str:
        """Where the scripts meet without any option."""
        return f"unix:{self.runtime}/function-executor/zmq"

    def worker(self, *arguments: str | Path, **options: Any) -> Script:
        return self.start("worker.py", *arguments, **options)

    def dispatcher(self, *arguments: str | Path, **options: Any) -> Script:
        return self.start("dispatcher.py", *arguments, **options)

    def run(self, *arguments: str | Path, status: int = 0, **options: Any) -> Script:
        """Start a dispatcher and wait for its end with that exit status."""
        script = self.dispatcher(*arguments, **options)
        assert script.ends() == status, script.log()
        return script

    def start(
        self, script: str, *arguments: str | Path, folder: Path | None = None, stdin: bytes | int = b"",
        environment: Mapping[str, str | None] | None = None, under: Sequence[str] = (), **options: Any,
    ) -> Script:  # fmt: skip
        """Start a script; `environment` adds to its environment, or takes away what is None there.

        `stdin` is what it reads, or a descriptor; `under` is a command that starts the one that follows it.
        """
        merged = {**self.environment, **(environment or {})}
        started = Script(
            f"{len(self._started)}-{script.removesuffix('.py')}",
            [*under, sys.executable, str(ROOT / script), *map(str, arguments)],
            folder or self.folder,
            {key: value for key, value in merged.items() if value is not None},
            self._logs,
            stdin,
            **options,
        )
        self._started.append(started)
        return started

    def signalled_at(self, event: str, text: str, number: int = signal.SIGINT) -> dict[str, str]:
        """Return an environment in which a script, but not what it starts, gets a signal at an audit event.

        At the first `event` whose first argument holds `text`: of "import" a module, of "os.mkdir" a path.
        """
        site = self.folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import os, sys\n"
            "os.unlink(__file__)  # so that processes further down do not find it\n"
            "def hook(event, arguments):\n"
            f"    if event == {event!r} and {text!r} in str(arguments[0]):\n"
            f"        os.kill(os.getpid(), {int(number)})\n"
            "sys.addaudithook(hook)\n"
        )
        return {"PYTHONPATH": str(site)}

    @property
    def started(self) -> list[Script]:
        """All that were started, in that order."""
        return self._started

    @property
    def logs(self) -> Path:
        """Where the output of what is started goes."""
        return self._logs

    def adopt(self, script: Script) -> Script:
        """See to the end of a script that was started otherwise."""
        self._started.append(script)
        return script

    def tasks(self, *records: Mapping[str, Any], name: str = "tasks.jsonl") -> Path:
        """Write a task file of JSON Lines."""
        path = self.folder / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def results(self, name: str = "results.jsonl") -> list[dict[str, Any]]:
        """Read a file of results; of one that still grows, the lines that are complete."""
        text = (self.folder / name).read_text(encoding="utf-8")
        return read_lines(text[: text.rfind("\n") + 1])

    def by_id(self, name: str = "results.jsonl") -> dict[str, dict[str, Any]]:
        """Read a file of results, of which no two may have the same id."""
        results = self.results(name)
        found = {result["id"]: result for result in results}
        assert len(found) == len(results)
        return found

    def alive(self, *but: Script) -> list[psutil.Process]:
        """Return the living processes of this test, however they came to be, `but` for some."""
        spared = {script.pid for script in but}
        return [process for process in tagged(self._tag) if process.pid not in spared]

    def nothing_lives(self, *but: Script) -> None:
        """Wait until no process of this test is alive, `but` for some."""
        wait_until(lambda: not self.alive(*but), f"only {[s.name for s in but]} alive", GONE)

    def close(self) -> None:
        """Kill the scripts, as rudely as it gets; what they started must then end by itself."""
        for script in self._started:
            if not script.ended:
                os.killpg(script.pid, signal.SIGKILL)
                script.process.wait(LIMIT)
            self.show(script.log())  # which pytest shows with a test that failed
        try:
            left = _left(self.alive)
        finally:
            shutil.rmtree(self.runtime)
            shutil.rmtree(self._logs)
        assert not left, f"processes were left: {left}"


def _left(alive: Callable[[], Iterable[psutil.Process]]) -> list[str]:
    """Give processes some seconds to end; kill those that have not, and tell what they were."""
    deadline = time.monotonic() + GONE
    while list(alive()) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = []
    for process in alive():
        try:
            left.append(f"{process.pid} {process.cmdline()}")
            process.kill()
        except psutil.Error:
            continue
    return left


def read_lines(text: str) -> list[dict[str, Any]]:
    """Read JSON Lines, each of which must be complete and strictly JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def local(workers: int, cores: int) -> list[str]:
    """Return the options of a run on workers of its own."""
    return ["--workers", str(workers), "--cores", str(cores)]


def task(function: str, *params: Any, **fields: Any) -> dict[str, Any]:
    """Return a task's record; `kwargs`, `resources`, `id` and so on are `fields`."""
    return {"function": function, "params": list(params), **fields}
