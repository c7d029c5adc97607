"""From a seed to a schedule of faults: pure, so that a seed is the same run's faults for ever.

A fault strikes when so many results are recorded, and some moments later; so it hits in the midst of the run,
on a machine of any speed. What it broke is mended after its `span`. Most faults are drawn one by one; some
come as a *moment*, several that only together hit what is worth hitting.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

#: The YAML's, in seconds: short, so that a death is noticed soon.
HEARTBEAT, PATIENCE = 0.25, 1.2


class Kind(StrEnum):
    """What a fault does, and what mends it after its span."""

    CHILD = "kill -9 a child that runs a task"
    GUARDIAN = "kill -9 a worker's guardian"
    WORKER = "kill -9 a worker"  # another takes its place
    FREEZE = "stop a worker"  # SIGSTOP, then SIGCONT
    DRAIN = "drain a worker"  # SIGTERM; when it has ended another takes its place
    BREAK = "break a link's connections"  # new ones are let through at once
    CUT = "cut a link"  # ... and no new ones until it is healed
    STALL = "stall a link"  # both directions: nobody is told
    STALL_THERE = "stall a link from who connected"
    STALL_BACK = "stall a link to who connected"
    DELAY = "slow a link"
    DISPATCHER = "kill -9 the dispatcher"  # resumed
    FREEZE_DISPATCHER = "stop the dispatcher"
    INTERRUPT = "interrupt the dispatcher"  # Ctrl-C, SIGTERM, or both: what ran is cancelled; resumed
    STRANGER = "kill -9 the dispatcher; another's run comes first"  # then resumed
    GUEST = "another's run at the same time"  # where dispatchers may share workers
    RIVAL = "resume a run that is not over"  # another dispatcher, which must be refused
    FULL = "fill the disk"  # of the dispatcher alone
    BROKER = "kill -9 the broker"  # started again
    BROKER_STOP = "stop the broker"
    PURGE = "purge a queue of the broker"
    DELETE = "delete a queue of the broker"
    WIPE = "wipe the broker's data"


#: Faults of a link, which is there when workers are started by themselves or a broker lies between.
LINK = (Kind.BREAK, Kind.CUT, Kind.STALL, Kind.STALL_THERE, Kind.STALL_BACK, Kind.DELAY)
#: Of the dispatcher, after which it is resumed.
RESUMED = (Kind.DISPATCHER, Kind.INTERRUPT, Kind.STRANGER)
_MENDED_AT_ONCE = (
    Kind.CHILD, Kind.GUARDIAN, Kind.BREAK, Kind.GUEST, Kind.RIVAL, Kind.PURGE, Kind.DELETE, Kind.WIPE,
)  # fmt: skip
#: That only a broker can suffer.
BROKERS = (Kind.BROKER, Kind.BROKER_STOP, Kind.PURGE, Kind.DELETE, Kind.WIPE)


@dataclass(frozen=True)
class Fault:
    """`kind` strikes the worker or link `target`, modulo how many there are.

    It does so `pause` seconds after `results` are recorded and the fault before has struck; what it does is
    mended `span` seconds later.
    """

    kind: Kind
    results: int
    pause: float
    span: float
    target: int

    def __str__(self) -> str:
        return f"{self.results:4} +{self.pause:.2f} s  {self.kind} ({self.target}), for {self.span:.2f} s"


@dataclass(frozen=True)
class Plan:
    """One seed's run: `cores` are those of each worker; `tasks` is how many there are.

    With `local` the dispatcher starts the workers itself (``--workers``). Where it is `impatient` it gives no
    retries until it is resumed, so that failures are recorded, and run again by ``--retry-failed``. When it
    `shuffles`, the task file's order is another each time that it is resumed. It ends by itself after so many
    seconds of `wait` without a worker, or with a full disk, and is resumed. `keep` stands in the YAML.
    """

    seed: int
    cores: tuple[int, ...]
    tasks: int
    local: bool
    impatient: bool
    shuffles: bool
    wait: float | None
    keep: tuple[str, float] | None
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        how = "of --workers" if self.local else "of their own"
        words = [word for word in ("impatient", "shuffles") if getattr(self, word)]
        words += [f"--wait {self.wait}"] if self.wait is not None else []
        words += [f"keep {self.keep}"] if self.keep is not None else []
        return "\n".join(
            [
                f"{self.tasks} tasks, workers {how} with {self.cores} cores {' '.join(words)}".rstrip(),
                *map(str, self.faults),
            ]
        )


def plan(seed: int, *, broker: bool = False) -> Plan:
    """Return the plan of a seed; `broker` tells whether the wire has one, which is there to be killed."""
    draw = random.Random(f"{seed} {broker}")
    cores = tuple(draw.sample([1, 2, 2], draw.choice([2, 2, 3])))
    local = draw.random() < 0.15
    if local:
        cores = (2,) * len(cores)
    tasks = draw.randrange(200, 401)
    resumed = draw.random() < 0.6
    wanted = draw.randrange(3, 9)
    faults: list[Fault] = []
    chosen = list(_moments(draw, wanted, local=local, broker=broker, resumed=resumed))
    # Each moment has a stretch of the run to itself, so that there is progress between them.
    for number, moment in enumerate(chosen):
        results = round(tasks * (0.03 + 0.82 * (number + draw.random() * 0.7) / len(chosen)))
        if number == 0 and draw.random() < 0.1:  # as it begins
            results = 0
        elif number == len(chosen) - 1 and draw.random() < 0.2:  # when next to nothing is left, or nothing
            results = tasks - draw.randrange(4)
        faults += [
            Fault(kind, results, round(pause, 3), round(span, 3), target)
            for kind, pause, span, target in moment
        ]
    impatient = any(fault.kind in RESUMED for fault in faults) and draw.random() < 0.3
    shuffles = draw.random() < 0.3
    wait = 1.5 if not local and draw.random() < 0.15 else None
    keep = draw.choice([("seconds", 0.3), ("bytes", 0), ("bytes", 3000)]) if draw.random() < 0.15 else None
    return Plan(seed, cores, tasks, local, impatient, shuffles, wait, keep, tuple(faults))


#: A kind, pause, span and target, as in Fault.
_Strike = tuple[Kind, float, float, int]


def _moments(
    draw: random.Random, wanted: int, *, local: bool, broker: bool, resumed: bool
) -> Sequence[Sequence[_Strike]]:
    """Return moments with `wanted` faults altogether, or a few more, in an order of chance."""
    chosen: list[list[_Strike]] = []
    single = _kinds(local=local, broker=broker, resumed=resumed)
    if resumed:
        chosen.append([_strike(draw, Kind.DISPATCHER)])
    while sum(map(len, chosen)) < wanted:
        if draw.random() < 0.25:
            moment = draw.choice(_MOMENTS)(draw)
            if not single.keys() >= {kind for kind, *_ in moment}:
                continue
        else:
            (kind,) = draw.choices(list(single), list(single.values()))
            moment = [_strike(draw, kind)]
        chosen.append(moment)
    draw.shuffle(chosen)
    return chosen


def _kinds(*, local: bool, broker: bool, resumed: bool) -> dict[Kind, int]:
    """Return the kinds that may be, with their weights."""
    kinds = {Kind.CHILD: 6, Kind.GUARDIAN: 3, Kind.WORKER: 6, Kind.FREEZE: 5, Kind.FREEZE_DISPATCHER: 2}
    if resumed:
        kinds |= {Kind.DISPATCHER: 4, Kind.INTERRUPT: 2, Kind.STRANGER: 2}
    if not local:
        kinds |= {Kind.DRAIN: 4, Kind.FULL: 3, Kind.RIVAL: 1, Kind.GUEST: 1}
    if not local or broker:
        kinds |= {Kind.BREAK: 4, Kind.CUT: 5, Kind.STALL: 4, Kind.STALL_THERE: 2, Kind.STALL_BACK: 2}
        kinds |= {Kind.DELAY: 3}
    if broker:
        kinds |= {Kind.BROKER: 3, Kind.BROKER_STOP: 2}
    if broker and not local:
        kinds |= {Kind.PURGE: 2, Kind.DELETE: 2, Kind.WIPE: 1}
    return kinds


def _span(draw: random.Random, kind: Kind) -> float:
    """Return for how long: shorter than the patience, or longer, or for a resumption hardly at all."""
    short, long = draw.uniform(0.1, 0.6) * PATIENCE, draw.uniform(1.3, 2.5) * PATIENCE
    if kind in RESUMED:
        return draw.choice([draw.uniform(0.0, 0.1), short, short, long])
    if kind in _MENDED_AT_ONCE:
        return 0.0
    if kind is Kind.DELAY:
        return draw.uniform(0.5, 3.0)
    return draw.choice([short, long])


def _strike(
    draw: random.Random, kind: Kind, pause: float | None = None, span: float | None = None,
    target: int | None = None,
) -> _Strike:  # fmt: skip
    """Return a strike whose particulars are left to chance, but for those that are given."""
    return (
        kind,
        draw.uniform(0.0, 0.2) if pause is None else pause,
        _span(draw, kind) if span is None else span,
        draw.randrange(6) if target is None else target,
    )


def _killed_while_it_resumes(draw: random.Random) -> list[_Strike]:
    span = draw.uniform(0.0, 0.4)
    again = [_strike(draw, Kind.DISPATCHER, span + draw.uniform(0.0, 1.2))]
    return [_strike(draw, Kind.DISPATCHER, span=span), *again * draw.choice([1, 1, 2])]


def _killed_while_it_takes_lines_out(draw: random.Random) -> list[_Strike]:
    """Ctrl-C leaves lines of what was cancelled, which the resumed run takes out."""
    span = draw.uniform(0.0, 0.4)
    return [
        _strike(draw, Kind.INTERRUPT, span=span),
        _strike(draw, Kind.DISPATCHER, span + draw.uniform(0.3, 1.0)),
    ]


def _worker_dies_with_what_it_keeps(draw: random.Random) -> list[_Strike]:
    return [
        _strike(draw, Kind.DISPATCHER, span=draw.uniform(0.8, 2.0)),
        _strike(draw, draw.choice([Kind.WORKER, Kind.WORKER, Kind.GUARDIAN]), draw.uniform(0.1, 0.6)),
    ]


def _worker_drains_with_what_it_keeps(draw: random.Random) -> list[_Strike]:
    return [
        _strike(draw, Kind.DISPATCHER, span=draw.uniform(0.8, 2.0)),
        _strike(draw, Kind.DRAIN, draw.uniform(0.1, 0.6)),
    ]


def _all_workers_die(draw: random.Random) -> list[_Strike]:
    return [_strike(draw, Kind.WORKER, draw.uniform(0.0, 0.1), target=target) for target in range(3)]


def _worker_dies_twice(draw: random.Random) -> list[_Strike]:
    target, span = draw.randrange(6), draw.uniform(0.0, 0.3)
    return [
        _strike(draw, Kind.WORKER, span=span, target=target),
        _strike(draw, Kind.WORKER, span + draw.uniform(0.1, 0.8), target=target),
    ]


def _link_cut_while_the_dispatcher_is_away(draw: random.Random) -> list[_Strike]:
    kind = draw.choice([Kind.CUT, Kind.STALL, Kind.FREEZE, Kind.STALL_BACK])
    return [
        _strike(draw, kind, span=draw.uniform(0.5, 3.0)),
        _strike(draw, Kind.DISPATCHER, draw.uniform(0.0, 0.5)),
    ]


def _all_die(draw: random.Random) -> list[_Strike]:
    """As when the power is cut, but for the broker, if there is one."""
    workers = [_strike(draw, Kind.WORKER, draw.uniform(0.0, 0.03), target=target) for target in range(3)]
    workers.insert(draw.randrange(4), _strike(draw, Kind.DISPATCHER, draw.uniform(0.0, 0.03)))
    return workers


def _dies_behind_a_stalled_link(draw: random.Random) -> list[_Strike]:
    """So that nobody is told of its end."""
    target = draw.randrange(2)
    return [
        _strike(draw, Kind.STALL, span=draw.uniform(1.0, 3.0), target=target),
        _strike(draw, Kind.WORKER, draw.uniform(0.0, 0.3), target=target),
    ]


def _is_lost_while_the_dispatcher_is_away(draw: random.Random) -> list[_Strike]:
    return [
        _strike(draw, Kind.DISPATCHER, span=draw.uniform(0.5, 2.0)),
        _strike(draw, draw.choice([Kind.PURGE, Kind.DELETE, Kind.BROKER]), draw.uniform(0.0, 0.3)),
    ]


def _drains_behind_a_cut_link(draw: random.Random) -> list[_Strike]:
    target = draw.randrange(2)
    return [
        _strike(draw, draw.choice([Kind.CUT, Kind.STALL, Kind.BREAK]), target=target),
        _strike(draw, Kind.DRAIN, draw.uniform(0.0, 0.3), target=target),
    ]


def _dies_on_a_full_disk(draw: random.Random) -> list[_Strike]:
    return [
        _strike(draw, Kind.FULL, span=draw.uniform(0.5, 2.0)),
        _strike(draw, Kind.DISPATCHER, draw.uniform(0.1, 0.5)),
    ]


def _broker_and_dispatcher_at_once(draw: random.Random) -> list[_Strike]:
    both = [_strike(draw, draw.choice([Kind.BROKER, Kind.BROKER_STOP])), _strike(draw, Kind.DISPATCHER)]
    draw.shuffle(both)
    return both


def _broker_and_worker_at_once(draw: random.Random) -> list[_Strike]:
    both = [_strike(draw, Kind.BROKER), _strike(draw, draw.choice([Kind.WORKER, Kind.DRAIN, Kind.FREEZE]))]
    draw.shuffle(both)
    return both


def _all_links_break(draw: random.Random) -> list[_Strike]:
    kind = draw.choice([Kind.BREAK, Kind.CUT, Kind.STALL])
    return [_strike(draw, kind, draw.uniform(0.0, 0.05), target=target) for target in range(4)]


_MOMENTS = (
    _killed_while_it_resumes,
    _killed_while_it_resumes,
    _killed_while_it_takes_lines_out,
    _worker_dies_with_what_it_keeps,
    _worker_drains_with_what_it_keeps,
    _all_workers_die,
    _worker_dies_twice,
    _link_cut_while_the_dispatcher_is_away,
    _drains_behind_a_cut_link,
    _dies_behind_a_stalled_link,
    _all_die,
    _is_lost_while_the_dispatcher_is_away,
    _dies_on_a_full_disk,
    _broker_and_dispatcher_at_once,
    _broker_and_worker_at_once,
    _all_links_break,
)
