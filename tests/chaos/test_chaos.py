"""Kill anything, at any moment, on any wire: a few seeds of each. ``make chaos SEEDS=200`` runs more."""

from __future__ import annotations

import pytest

from tests.chaos.plan import Kind, plan
from tests.chaos.seeds import run
from tests.contract.rabbit import RabbitMQ

#: Chosen so that together they have every kind of fault.
DIRECT = [
    *(("zmq", seed) for seed in (1023, 1040, 1078, 1057)),
    *(("grpc", seed) for seed in (1083, 1070, 1010, 1012)),
    *(("rpyc", seed) for seed in (1036, 1013, 1032, 1061)),
]
BROKER = (1085, 1018, 1060, 1033)

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("wire", "seed"), DIRECT)
def test_nothing_is_lost_nor_recorded_twice(wire: str, seed: int) -> None:
    _passes(wire, seed)


@pytest.mark.parametrize("seed", BROKER)
def test_nor_with_a_broker_that_dies_or_forgets(seed: int, broker: RabbitMQ) -> None:
    _passes("rabbitmq", seed, broker)


def test_these_few_have_every_kind_of_fault() -> None:
    plans = [*(plan(seed) for _, seed in DIRECT), *(plan(seed, broker=True) for seed in BROKER)]
    assert {fault.kind for each in plans for fault in each.faults} == set(Kind)


def _passes(wire: str, seed: int, broker: RabbitMQ | None = None) -> None:
    outcome = run(seed, wire, broker)
    print(outcome.story)
    assert not outcome.wrong, f"{len(outcome.wrong)} things are wrong: {outcome.wrong[0]}\n{outcome.again}"
