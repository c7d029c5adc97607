"""What the contract tests share: the wires, and a real RabbitMQ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.rabbit import HOW, RabbitMQ, server_script
from tests.contract.runs import Runs
from tests.contract.suite import scripts_in
from tests.contract.wires import WIRES, Wire
from tests.contract.wires import RabbitMQ as RabbitMQWire
from tests.e2e.scripts import Scripts


@pytest.fixture(params=[*WIRES, None], ids=lambda wire: repr(wire or "rabbitmq").strip("'"))
def every_wire(request: pytest.FixtureRequest) -> Wire:
    """Each wire of this project in turn."""
    wire: Wire | None = request.param
    return wire or RabbitMQWire(request.getfixturevalue("rabbitmq_url"))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A real RabbitMQ, which tests share: so none of them ends it."""
    server = start_rabbitmq(tls=True)
    yield server
    server.close()


@pytest.fixture(scope="session")
def rabbitmq_url(request: pytest.FixtureRequest) -> str:
    """The URL of a real RabbitMQ: that of ``RABBITMQ_URL``, else that of a private one."""
    given = os.environ.get("RABBITMQ_URL")
    return given if given else str(request.getfixturevalue("rabbitmq").url)


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    """The real scripts, in a folder that gets a module ``jobs``; no process may be left at the end."""
    with scripts_in(tmp_path) as scripts:
        yield scripts


@pytest.fixture
def runs(scripts: Scripts, rabbitmq_url: str) -> Runs:
    """The real scripts around a real RabbitMQ."""
    return Runs(scripts, RabbitMQWire(rabbitmq_url))


def start_rabbitmq(*settings: str, **options: Any) -> RabbitMQ:
    """Start a private broker; skip the test where there is no RabbitMQ to start, and in CI fail."""
    script = server_script()
    if script is None:
        if os.environ.get("CI"):
            pytest.fail(HOW)
        pytest.skip(HOW)
    return RabbitMQ(script, *settings, **options)
