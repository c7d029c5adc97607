"""What workers say that they have or have ended, against what they are leased. Pure.

A worker says what it has in its greeting, and by what it reports of earlier runs, whose tasks are this run's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from executor.broker import Broker
from executor.messages import Buffer, Holding, Report
from executor.pace import mean_seconds
from transports.base import Jobs

#: The buffers of reports that have some, by index.
Shares: TypeAlias = Mapping[int, Sequence[Buffer]]


def take_stock(jobs: Jobs, broker: Broker, worker: str, holding: Holding) -> None:
    """Compare what a worker says that it has with what it is leased.

    What it has not got is handed out anew; what it has, and nobody else, of this run or of those that it
    continues, is its own from now on. Of this run that is only what was leased to somebody before.
    """
    has: dict[int, int] = {}
    strangers: set[int] = set()
    for run, places in holding.items():
        for there, attempt in places.items():
            place = jobs.place_of(run, there)
            if place is None:
                continue
            if run != jobs.id:
                _count_attempt(jobs, broker, place, attempt)
            elif not broker.can_have(place):
                strangers.add(place)
            has[place] = max(attempt, has.get(place, 0))
    held = broker.held(worker)
    missing = [place for place in held if not _is_present(jobs, place, has.get(place, -1))]
    broker.give_back(worker, missing, strays=True)
    adopted = [p for p, attempt in has.items() if _is_present(jobs, p, attempt) and not jobs.is_recorded(p)]
    broker.adopt(worker, [place for place in adopted if place not in strangers])


def settle(jobs: Jobs, broker: Broker, worker: str, reports: Sequence[Report]) -> int:
    """Tell the broker what a worker ended; return how many of these it held.

    But for attempts given up meanwhile: if it holds such a place, then for a later attempt.
    """
    places = [report.place for report in reports]
    attempts = [report.attempt for report in reports]
    if max(places) < len(jobs.widths) and attempts == list(map(jobs.attempt, places)):  # nearly always
        present = reports
    else:
        present = [report for report in reports if _is_present(jobs, report.place, report.attempt)]
        places = [report.place for report in present]
    widths = [jobs.widths[place] for place in places]
    if len(kinds := set(widths)) == 1:
        return broker.settle(worker, places, mean_seconds(present))
    held = 0
    for width in kinds:
        group = [report for report, own in zip(present, widths, strict=True) if own == width]
        held += broker.settle(worker, [report.place for report in group], mean_seconds(group))
    return held


def translated(
    jobs: Jobs, broker: Broker, worker: str, run: str, reports: Sequence[Report], shares: Shares
) -> tuple[Sequence[Report], Shares]:
    """Make a worker's reports of an earlier run some of this; return those whose tasks this one has."""
    ours: list[int] = []
    for index, report in enumerate(reports):
        place = jobs.place_of(run, report.place)
        if place is None:
            continue
        report.place = place
        ours.append(index)
        if _count_attempt(jobs, broker, place, report.attempt):
            broker.adopt(worker, [place])  # it was, though nobody here knew
    return _only(ours, reports, shares)


def possible(
    jobs: Jobs, broker: Broker, reports: Sequence[Report], shares: Shares
) -> tuple[Sequence[Report], Shares]:
    """Return of reports of this run, once their worker's leases are settled, those that can be its.

    So can be what comes late or twice: of a task that was taken from its worker, or that has ended. Not one
    that waits or is with another, and was never with anybody else.
    """

    def can_be(report: Report) -> bool:
        if report.place >= len(jobs.widths) or report.attempt > jobs.attempt(report.place):
            return True  # of which there is no such thing: `Run.accept` tells
        # Or a failure of an attempt that is over, sent again before our acknowledgement came.
        is_over = 0 < report.attempt < jobs.attempt(report.place) and report.status != "ok"
        return is_over or broker.can_have(report.place)

    return _only([index for index, report in enumerate(reports) if can_be(report)], reports, shares)


def _is_present(jobs: Jobs, place: int, attempt: int) -> bool:
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


def _only(these: Sequence[int], reports: Sequence[Report], shares: Shares) -> tuple[Sequence[Report], Shares]:
    """Return some of the reports, by index, with their buffers."""
    if len(these) == len(reports):
        return reports, shares
    return [reports[n] for n in these], {index: shares[n] for index, n in enumerate(these) if n in shares}
