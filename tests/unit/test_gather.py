"""The dispatcher's loop, between an end in memory and a journal that is a list."""

from __future__ import annotations

import io
from typing import cast

import pytest

from executor import gather
from executor.gather import Gatherer, Wishes
from executor.journal import Journal
from executor.launch import LocalWorkers
from executor.screen import Screen, Summary
from executor.task import Result
from tests.unit.world import FakeDispatcher, World


class Records:
    """A journal, and the workers of ``--workers N``."""

    unwritten = 0
    resumable = False
    widths = (1,)

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.died: list[int] = []

    def write(self, result: Result) -> None:
        self.results.append(result)

    def flush(self) -> None: ...

    def sync(self) -> None: ...

    def tick(self) -> None: ...

    def check(self) -> list[int]:
        return self.died


def gatherer(dispatcher: FakeDispatcher, records: Records, wishes: Wishes) -> Gatherer:
    summary = Summary(dispatcher.run.unrecorded)
    screen = Screen(summary, io.StringIO(), quiet=True)
    journal, workers = cast(Journal, records), cast(LocalWorkers, records)
    return Gatherer(dispatcher.run, dispatcher.end, screen, summary, journal, workers, wishes)


def test_what_is_heard_as_a_worker_dies_is_recorded_though_the_run_is_halted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_SIGNALS", ())
    dispatcher = world.dispatcher(3, push=False, retries=0)
    world.fails = {(0, 1)}
    fails, works, dies = [world.worker(name, 1, at=dispatcher) for name in "abc"]
    works.lazy = dies.lazy = True

    class Dying(Records):
        def check(self) -> list[int]:
            if len(self.results) != 1:
                return []
            works.work(1)
            dies.die()
            return [dies.pid]

    records = Dying()
    assert gatherer(dispatcher, records, Wishes(max_failures=1)).gather() == 1
    assert fails.ran
    assert sorted(result.status for result in records.results) == ["error", "lost", "ok"]
