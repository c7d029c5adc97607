"""Kill anything, at any moment, on any wire: a few seeds of each. ``make chaos SEEDS=200`` runs more."""

from __future__ import annotations

import pytest

from tests.chaos.seeds import run
from tests.contract.rabbit import RabbitMQ

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("seed", range(1000, 1004))
@pytest.mark.parametrize("wire", ["zmq", "grpc", "rpyc"])
def test_nothing_is_lost_nor_recorded_twice(wire: str, seed: int) -> None:
    _passes(wire, seed)


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_nor_with_a_broker_that_dies(seed: int, broker: RabbitMQ) -> None:
    _passes("rabbitmq", seed, broker)


def _passes(wire: str, seed: int, broker: RabbitMQ | None = None) -> None:
    outcome = run(seed, wire, broker)
    print(outcome.story)
    assert not outcome.wrong, f"{len(outcome.wrong)} things are wrong: {outcome.wrong[0]}\n{outcome.again}"
