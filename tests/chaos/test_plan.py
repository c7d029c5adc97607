"""The plans themselves: the same for a seed for ever, within bounds, and altogether of every kind."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos import records
from tests.chaos.plan import BROKERS, RESUMED, Kind, plan

SEEDS = range(400)


@pytest.mark.parametrize("broker", [False, True])
def test_every_seed_has_its_plan_and_all_together_have_everything(broker: bool) -> None:
    plans = [plan(seed, broker=broker) for seed in SEEDS]
    assert plans == [plan(seed, broker=broker) for seed in SEEDS]
    kinds: Counter[Kind] = Counter()
    for each in plans:
        assert 3 <= len(each.faults) <= 12
        assert 2 in each.cores
        moments = [fault.results for fault in each.faults]
        assert moments == sorted(moments)
        assert 0 <= moments[0] <= moments[-1] <= each.tasks
        kinds.update({fault.kind for fault in each.faults})
    assert kinds.keys() == set(Kind) - set(() if broker else BROKERS)
    resumed = sum(any(fault.kind in RESUMED for fault in each.faults) for each in plans)
    assert 0.5 <= resumed / len(plans) <= 0.7


def test_tasks_are_the_seeds_own_and_of_all_sorts() -> None:
    found = records.records(7, 300)
    assert found == records.records(7, 300)
    assert len(found) == 300
    assert {record["function"] for record in found} == {f"chores.{name}" for name in records.FUNCTIONS}
    assert any(found.count(record) > 1 for record in found)
    assert any(record.get("resources") == 2 for record in found)
    assert any("id" in record for record in found)
    assert not all("id" in record for record in found)
