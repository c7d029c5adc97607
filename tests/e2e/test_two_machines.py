"""Two machines of one user talk over each wire, and a third that lacks the keys gets nothing.

Each machine is a network namespace with a home of its own; what the user does to join them is to copy one
folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from scripts import Script, Scripts, task, wait_until

from executor import keys
from tests.contract.conftest import start_rabbitmq
from tests.contract.rabbit import RabbitMQ

pytestmark = pytest.mark.timeout(180)

#: Seconds for which the third machine tries.
TRYING = 3.0

PORT = 20_000


class Machine(NamedTuple):
    """A network namespace and its address; `home` is the user's there."""

    name: str
    address: str
    home: Path

    @property
    def under(self) -> list[str]:
        """What a command on this machine begins with."""
        return ["ip", "netns", "exec", self.name]

    def start(self, scripts: Scripts, script: str, *arguments: str | Path) -> Script:
        runtime = self.home / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        environment = {"HOME": str(self.home), keys.VARIABLE: None, "XDG_RUNTIME_DIR": str(runtime)}
        return scripts.start(script, *arguments, environment=environment, under=self.under)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr}")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Three machines on one network, none of which has keys yet."""
    tag = secrets.token_hex(3)
    bridge, subnet = f"fe{tag}", f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
    made: list[Machine] = []
    with ExitStack() as stack:
        try:
            ip("link", "add", bridge, "type", "bridge")
            stack.callback(ip, "link", "del", bridge)
            ip("link", "set", bridge, "up")
            ip("addr", "add", f"{subnet}.254/24", "dev", bridge)  # so that these tests see who listens
            for number in (1, 2, 3):
                machine = Machine(f"fe-{tag}-{number}", f"{subnet}.{number}", tmp_path / f"home{number}")
                ip("netns", "add", machine.name)
                stack.callback(ip, "netns", "del", machine.name)
                here, there = f"fe{tag}{number}", f"ve{tag}{number}"
                ip("link", "add", here, "type", "veth", "peer", "name", there)
                ip("link", "set", here, "master", bridge, "up")
                ip("link", "set", there, "netns", machine.name)
                ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", there)
                ip("-n", machine.name, "link", "set", there, "up")
                ip("-n", machine.name, "link", "set", "lo", "up")
                machine.home.mkdir()
                made.append(machine)
        except OSError as error:  # no root, no iproute2, or a sandbox without network namespaces
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs network namespaces: {error}")
        yield made


def settings(folder: Path, wire: str, where: str) -> Path:
    """Write the YAML that both scripts read; `where` is who listens."""
    address = f"address: tcp://{where}" if wire == "zmq" else f"workers: ['{where}']\nlisten: {where}"
    path = folder / f"{wire}.yml"
    path.write_text(f"transport: {wire}\n{address}\nheartbeat: 0.2\npatience: 5\n")
    return path


@pytest.mark.parametrize("wire", ["zmq", "grpc", "rpyc"])
def test_one_copied_folder_joins_two_machines(wire: str, scripts: Scripts, machines: list[Machine]) -> None:
    ours, theirs, stranger = machines
    listens = ours if wire == "zmq" else theirs
    yaml = settings(scripts.folder, wire, f"{listens.address}:{PORT}")
    # The first start makes the keys; copying the folder is all that the user does.
    assert ours.start(scripts, "keys.py").ends() == 0
    shutil.copytree(ours.home / ".config", theirs.home / ".config")
    run = [
        "--yaml",
        yaml,
        "--tasks",
        scripts.tasks(*(task("operator.add", number, 1) for number in range(200))),
    ]
    output, stolen = scripts.folder / "results.jsonl", scripts.folder / "stolen.jsonl"
    if wire == "zmq":  # who lacks the keys comes first, and stays
        third = stranger.start(scripts, "worker.py", "--yaml", yaml, "--cores", "1", "--name", "stranger")
        dispatcher = ours.start(scripts, "dispatcher.py", *run, "--output", output)
        third.says("same keys")
        dispatcher.says("stranger")
        worker = theirs.start(scripts, "worker.py", "--yaml", yaml, "--cores", "1", "--name", "theirs")
    else:
        worker = theirs.start(scripts, "worker.py", "--yaml", yaml, "--cores", "1", "--name", "theirs")
        worker.says("ready")
        third = stranger.start(scripts, "dispatcher.py", *run, "--output", stolen)
        third.says("same keys")
        dispatcher = ours.start(scripts, "dispatcher.py", *run, "--output", output)
    assert dispatcher.ends() == 0
    results = scripts.results()
    assert len(results) == 200
    assert {(result["status"], result["worker"]) for result in results} == {("ok", "theirs")}
    until = time.monotonic() + TRYING
    wait_until(lambda: time.monotonic() > until or third.ended, "that it has tried")
    assert not third.ended
    assert "serving run" not in third.stderr
    assert not stolen.exists() or not stolen.read_text()
    assert worker.stderr.count("serving run") == 1


@pytest.fixture
def broker(machines: list[Machine]) -> Iterator[RabbitMQ]:
    """A RabbitMQ on the first machine, which all three reach."""
    server = start_rabbitmq(host=machines[0].address, under=machines[0].under, tls=True)
    yield server
    server.close()


def test_one_copied_folder_joins_two_machines_at_a_broker(
    broker: RabbitMQ, scripts: Scripts, machines: list[Machine]
) -> None:
    """The third is the same user of the broker, and has the same file; but it has other keys."""
    ours, theirs, stranger = machines
    yaml = scripts.folder / "rabbitmq.yml"
    yaml.write_text(
        f"transport: rabbitmq\nurl: {broker.tls_url}\nca_file: {broker.ca_file}\nheartbeat: 0.2\n"
    )
    assert ours.start(scripts, "keys.py").ends() == 0
    shutil.copytree(ours.home / ".config", theirs.home / ".config")
    tasks = scripts.tasks(*(task("operator.add", number, 1) for number in range(200)))
    run = ["--yaml", yaml, "--tasks", tasks, "--output"]
    output, strange = scripts.folder / "results.jsonl", scripts.folder / "strange.jsonl"
    in_the_clear = ours.start(
        scripts, "dispatcher.py", *run, scripts.folder / "clear.jsonl", "--address", broker.url
    )
    dispatcher = ours.start(scripts, "dispatcher.py", *run, output)
    third = stranger.start(scripts, "worker.py", "--yaml", yaml, "--cores", "1", "--name", "stranger")
    another = stranger.start(scripts, "dispatcher.py", *run, strange)
    assert another.ends() == 0  # the calls of its own keys are all that it sees
    assert not dispatcher.ended
    worker = theirs.start(scripts, "worker.py", "--yaml", yaml, "--cores", "1", "--name", "theirs")
    assert dispatcher.ends() == 0
    for name, who in ((output, "theirs"), (strange, "stranger")):
        results = scripts.results(name.name)
        assert len(results) == 200
        assert {(result["status"], result["worker"]) for result in results} == {("ok", who)}
    for script in (worker, third):
        assert script.stderr.count("serving run") == 1
    assert in_the_clear.ends() == 2
