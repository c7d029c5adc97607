"""The contract suite on every wire that needs no broker of its own."""

from __future__ import annotations

import pytest

from tests.contract.suite import Contract
from tests.contract.wires import WIRES, Wire


class TestWires(Contract):
    @pytest.fixture(params=WIRES, ids=repr)
    def wire(self, request: pytest.FixtureRequest) -> Wire:
        wire: Wire = request.param
        return wire
