"""What the contract tests share: the wires, and a real RabbitMQ."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contract.rabbit import HOW, RabbitMQ, server_script


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """The URL of a real RabbitMQ: that of ``RABBITMQ_URL``, else a private one, started for these tests."""
    if given := os.environ.get("RABBITMQ_URL"):
        yield given
        return
    server = start_rabbitmq()
    yield server.url
    server.close()


def start_rabbitmq(*settings: str) -> RabbitMQ:
    """Start a private broker; skip the test where there is no RabbitMQ to start, and in CI fail."""
    script = server_script()
    if script is None:
        if os.environ.get("CI"):
            pytest.fail(HOW)
        pytest.skip(HOW)
    return RabbitMQ(script, *settings)
