"""The dispatcher's loop, between an end in memory and a journal that is a list."""

from __future__ import annotations

import io
import signal
from collections import deque
from collections.abc import Sequence
from typing import cast

import pytest

from executor import gather
from executor.gather import Gatherer, Wishes
from executor.journal import Journal
from executor.launch import LocalWorkers
from executor.messages import NIL, Report
from executor.screen import Screen, Summary
from executor.task import Result
from tests.unit.world import FakeDispatcher, World
from transports.base import Delivery
from transports.direct import DirectDispatcherEnd
from transports.settings import Settings


class Records:
    """A journal, and the workers of ``--workers N``."""

    unwritten = 0
    resumable = False
    widths = (1,)

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.died: list[int] = []

    def write(self, results: Sequence[Result]) -> None:
        self.results.extend(results)

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


@pytest.mark.parametrize("why", ["signal", "failures"])
def test_what_a_broker_still_has_is_recorded_before_a_run_that_is_stopped_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """As where workers finished it while no dispatcher was there: nobody holds anything any more."""
    monkeypatch.setattr(gather, "_SIGNALS", ())
    monkeypatch.setattr(gather, "_TURN", 0.0)
    dispatcher = world.dispatcher(30, push=False, retries=0)
    fails = [Report(0, 1, "error", NIL, error=("ValueError", "", ""))]
    backlog = deque([fails, *([Report(place, 1, "ok", NIL)] for place in range(1, 20))])

    class Broker(DirectDispatcherEnd):
        def results(self, timeout: float | None) -> list[Delivery]:
            if why == "signal" and len(backlog) == 15:
                stopped._on_signal(signal.SIGTERM, None)
            return [Delivery("w", "h", backlog.popleft())] if backlog else []

    dispatcher.end = Broker(dispatcher.link, Settings(), say=dispatcher.said.append)
    records = Records()
    wishes = Wishes(max_failures=1 if why == "failures" else None)
    stopped = gatherer(dispatcher, records, wishes)
    assert stopped.gather() == (143 if why == "signal" else 1)
    assert len(records.results) == 20


def test_a_run_that_is_stopped_ends_when_all_that_have_its_tasks_are_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a broker gave a worker tasks, and its word of that is still on the way."""
    monkeypatch.setattr(gather, "_SIGNALS", ())
    monkeypatch.setattr(gather, "_TURN", 0.0)
    dispatcher = world.dispatcher(2, push=False, retries=0)
    cancelled = [Report(place, 1, "cancelled", NIL) for place in range(2)]
    comes = deque([[], [], [Delivery("w", "h", cancelled)]])

    class Broker(DirectDispatcherEnd):
        def results(self, timeout: float | None) -> list[Delivery]:
            if len(comes) == 3:
                stopped._on_signal(signal.SIGTERM, None)
            return comes.popleft() if comes else []

        @property
        def knows_all(self) -> bool:
            return not comes

    dispatcher.end = Broker(dispatcher.link, Settings(), say=dispatcher.said.append)
    records = Records()
    stopped = gatherer(dispatcher, records, Wishes())
    assert stopped.gather() == 143
    assert [result.status for result in records.results] == ["cancelled"] * 2
