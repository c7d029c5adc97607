"""What workers say that they have, against what they are leased. Pure.

A worker tells it twice: in its greeting, and by what it reports of earlier runs, whose tasks are this run's.
"""

from __future__ import annotations

from executor.broker import Broker
from executor.messages import Holding, Report
from transports.base import Jobs


def take_stock(jobs: Jobs, broker: Broker, worker: str, holding: Holding) -> None:
    """Compare what a worker says that it has with what it is leased.

    What it has not got is handed out anew; what it has, and nobody else, of this run or of those that it
    continues, is its own from now on.
    """
    has: dict[int, int] = {}
    for run, places in holding.items():
        for there, attempt in places.items():
            place = jobs.place_of(run, there)
            if place is None:
                continue
            if run != jobs.id:
                _count_attempt(jobs, broker, place, attempt)
            has[place] = max(attempt, has.get(place, 0))
    held = broker.held(worker)
    missing = [place for place in held if not is_present(jobs, place, has.get(place, -1))]
    broker.give_back(worker, missing)
    broker.adopt(
        worker, [p for p, attempt in has.items() if is_present(jobs, p, attempt) and not jobs.is_recorded(p)]
    )


def translate(jobs: Jobs, broker: Broker, worker: str, run: str, report: Report) -> bool:
    """Make a report of an earlier run one of this; return False if its task is none of this run's."""
    place = jobs.place_of(run, report.place)
    if place is None:
        return False
    report.place = place
    if _count_attempt(jobs, broker, place, report.attempt):
        broker.adopt(worker, [place])  # it was, though nobody here knew
    return True


def is_present(jobs: Jobs, place: int, attempt: int) -> bool:
    """Whether that is the present attempt at a task of this run; what never began is reported as 0."""
    return 0 <= place < len(jobs.widths) and attempt in (0, jobs.attempt(place))


def _count_attempt(jobs: Jobs, broker: Broker, place: int, attempt: int) -> bool:
    """Take note of an attempt that was begun in an earlier run; return whether we had not got so far.

    Then what is leased of it to some other worker is an attempt before that, which counts no more.
    """
    if attempt <= jobs.attempt(place):
        return False
    jobs.tried(place, attempt)
    broker.take_away(place)
    return True
