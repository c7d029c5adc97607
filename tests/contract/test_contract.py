"""The contract suite on every wire."""

from __future__ import annotations

import pytest

from tests.contract.suite import Contract
from tests.contract.wires import WIRES, RabbitMQ, Wire


class TestWires(Contract):
    @pytest.fixture(params=WIRES, ids=repr)
    def wire(self, request: pytest.FixtureRequest) -> Wire:
        wire: Wire = request.param
        return wire


class TestRabbitMQ(Contract):
    @pytest.fixture
    def wire(self, rabbitmq_url: str) -> Wire:
        return RabbitMQ(rabbitmq_url)
