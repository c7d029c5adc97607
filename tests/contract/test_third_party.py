"""A wire of somebody else: one file beside their tasks, one line of YAML, and the suite."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.ends import Place
from tests.contract.suite import scripts_in
from tests.contract.wires import ZeroMQ
from tests.e2e.scripts import Scripts
from tests.e2e.scripts import task as record

MINE = """
from transports.zeromq import ZeroMQ

class Mine(ZeroMQ):
    pass

class NoWire:
    pass

"""


class Mine(ZeroMQ):
    transport = "mywire:Mine"


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    with scripts_in(tmp_path) as scripts:
        (tmp_path / "mywire.py").write_text(MINE)
        (tmp_path / "dislikes.py").write_text("raise RuntimeError('needs a newer one')")
        yield scripts


def test_a_wire_in_the_folder_one_stands_in(scripts: Scripts) -> None:
    own = scripts.folder / "wire.yml"
    place = Place(Mine())
    own.write_text(json.dumps(place.dispatcher()))
    worker = scripts.worker("--yaml", own, "--cores", "1")
    scripts.run("--yaml", own, "--tasks", scripts.tasks(record("jobs.echo", 1)))
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mywire:Other", "mywire has no Other"),
        ("mywire:NoWire", "NoWire is not a subclass of transports.base.Transport"),
        ("nowhere:Mine", "needs the module 'nowhere': install it with pip"),
        ("dislikes:Mine", "can't be loaded: needs a newer one"),
        ("gprc", "known are grpc, rabbitmq, rpyc, zmq, or a class of yours as package.module:Class"),
    ],
)  # fmt: skip
def test_a_wire_that_is_none(scripts: Scripts, name: str, words: str) -> None:
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps({"transport": name}))
    refused = scripts.run("--yaml", own, status=2)
    assert refused.stderr.startswith(f"dispatcher.py: error: {own}: transport: ")
    assert refused.stderr.endswith(f"{words}\n")
    assert refused.stderr.count("\n") == 1
