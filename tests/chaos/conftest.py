"""What the chaos tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.conftest import start_rabbitmq
from tests.contract.rabbit import RabbitMQ


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    """A broker that may be killed, and starts again."""
    server = start_rabbitmq()
    yield server
    server.close()
