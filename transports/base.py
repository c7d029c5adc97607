"""The contract between the scripts and a wire.

Two roles, two classes: a `DispatcherEnd` pushes tasks and gathers reports, a `WorkerEnd` pulls tasks and
replies. A wire with a broker of its own implements the two; a wire without one implements only a
`transports.link.Link`, and gets both ends from `transports.direct`.

An end belongs to the thread that made it.
"""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

from executor.batching import LINGER_SECONDS
from executor.bounds import LARGEST
from executor.closing import Closing
from executor.errors import ConfigError
from executor.messages import Buffer, Hello, Holding, Item, Report, Running
from executor.packed import Packed
from executor.session import Order
from transports.settings import Keep, Settings

#: Says one line to the user.
Say: TypeAlias = Callable[[str], None]


class Jobs(Protocol):
    """The tasks of a run, encoded on demand."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def widths(self) -> Sequence[int]:
        """Cores of each task, in the order in which they are to be handed out."""

    def is_recorded(self, place: int) -> bool:
        """Whether the task at a place has its result, so that nobody need run it any more."""

    def recorded(self) -> Iterator[int]:
        """Yield the places of all those, in order."""

    def attempt(self, place: int) -> int:
        """Return the number of the present attempt at a task, from 1."""

    def tried(self, place: int, attempt: int) -> None:
        """That attempt has been made: workers try again by themselves on this wire, or an earlier run did."""

    @property
    def earlier(self) -> Sequence[str]:
        """The ids of the runs that this one continues, the oldest first."""

    def place_of(self, run: str, place: int) -> int | None:
        """Return the place here of a task of this or an earlier run; None: it is none of this run's."""

    def left(self, run: str) -> Iterator[int]:
        """Yield the places here of tasks without result that an earlier run had given its broker."""

    def item(self, place: int) -> tuple[Item, Sequence[Buffer]]:
        """Return the task at a place, with its large buffers.

        Raises:
            CannotTravel: it has no form on the wire.
        """

    def frame(self, places: Sequence[int]) -> bytes | None:
        """Return the `Tasks` message of these tasks, which has no buffers; None: ask for each `item`."""


class WorkerView(NamedTuple):
    """What a dispatcher knows of a worker.

    `longest` are the places of calls that it runs longest, each with the seconds that it has run.
    """

    name: str
    host: str
    cores: int
    pid: int
    held: int
    running: int
    instance: str = ""
    longest: Sequence[tuple[int, float]] = ()


class Standing(Protocol):
    """Where the tasks of a run stand; `Jobs` is one."""

    def is_recorded(self, place: int) -> bool:
        """As in `Jobs`."""

    def place_of(self, run: str, place: int) -> int | None:
        """As in `Jobs`."""


def still_running(
    jobs: Standing | None, told: Iterable[Running], since: float
) -> Sequence[tuple[int, float]]:
    """Return `WorkerView.longest` from what a worker told `since` seconds ago."""
    if jobs is None or not told:
        return ()
    return [
        (place, each.seconds + since)
        for each in told
        if (place := jobs.place_of(each.run, each.place)) is not None and not jobs.is_recorded(place)
    ]


class Delivery(NamedTuple):
    """Reports that came together, and who sent them; the `buffers` of those that have some, by index."""

    worker: str | None
    host: str | None
    reports: Sequence[Report]
    buffers: Mapping[int, Sequence[Buffer]] = MappingProxyType({})

    def each(self) -> Iterator[tuple[Report, Sequence[Buffer]]]:
        """Yield each report with its buffers."""
        for index, report in enumerate(self.reports):
            yield report, self.buffers.get(index, ())


class DispatcherEnd(Closing):
    """The dispatcher's end of a wire."""

    #: Where workers find it, as the waiting lines name it.
    address: str
    #: While it is set nothing is handed out; what workers have goes on.
    paused: bool = False
    #: Whether `close` leaves the run as if this process had died: nothing is acknowledged, ended or removed,
    #: and workers and broker keep what they have for the run that continues this one.
    resumable: bool = False

    @property
    def pushed(self) -> int:
        """How many tasks, from the first on, are safe with a broker that keeps them; 0 without one."""
        return 0

    @abstractmethod
    def push(self, jobs: Jobs) -> None:
        """Put the tasks of a run into line. Once for each end."""

    @abstractmethod
    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        """Hand a task out again, first in line.

        `suspect`: its worker vanished, so it travels in a frame of its own. `alone`: nothing else is given
        to the worker that runs it, so that if that one vanishes too, it is known at whose door that lies.
        """

    @abstractmethod
    def results(self, timeout: float | None) -> list[Delivery]:
        """Return the reports that came, at least one, or [] after `timeout` seconds (None: no limit).

        They come as they travelled: the unit is a frame, and none is without reports.

        A worker that vanished is one report of status ``lost`` for each task that it may have begun.

        Raises:
            TransportError: the run is gone, as a broker keeps it and somebody removed it.
        """

    @abstractmethod
    def acknowledge(self) -> None:
        """All that `results` returned so far is recorded: the workers may forget it."""

    @abstractmethod
    def workers(self) -> list[WorkerView]:
        """Return the workers that can be given tasks."""

    @abstractmethod
    def waiting(self) -> dict[int, int]:
        """Return how many tasks no worker has yet, by width."""

    @abstractmethod
    def withdraw(self, width: int | None = None) -> list[int]:
        """Take the waiting tasks of a width, or of all, out of line for good; return their places."""

    @abstractmethod
    def halt(self) -> None:
        """Hand out nothing more and take back what has not begun; what runs finishes."""

    @property
    def knows_all(self) -> bool:
        """Whether, once the run was stopped, `workers` tells of all that may have tasks of it."""
        return True

    @abstractmethod
    def worker_died(self, pid: int) -> None:
        """A worker that this machine started has died: don't wait for its silence."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop all tasks of the run: what runs is killed and reported as ``cancelled``."""

    @abstractmethod
    def close(self) -> None:
        """Say goodbye and let go of everything. Closing twice is harmless."""


class KeepingEnd(DispatcherEnd):
    """The dispatcher's end of a wire whose broker keeps runs while no dispatcher is there.

    Where it says `wait`, that bounds the seconds without an answer of the broker (None: no limit), and beyond
    it `NobodyThere` is raised.
    """

    @abstractmethod
    def check_name(self, wait: float | None) -> None:
        """See that the run's name is free, and keep others from taking it.

        Raises:
            ConfigError: there is a run of that name, or another dispatcher is pushing one.
        """

    @abstractmethod
    def keep(self, records: Sequence[bytes], wait: float | None, stopped: Callable[[], bool]) -> bool:
        """Leave the run that was pushed in the broker, and with it `records` that tell what it is.

        The last record is written last. Return whether all is safe there; False once `stopped` says so.
        """

    @abstractmethod
    def kept(self, wait: float | None) -> list[bytes]:
        """Return the records of a run that was left in the broker, and keep others from collecting it.

        They are in no particular order, and one may be among them twice.

        Raises:
            ConfigError: there is none of that name, or another dispatcher collects it.
        """

    @abstractmethod
    def gather(self, jobs: Jobs) -> None:
        """Have the reports of such a run delivered, instead of `push`."""

    @abstractmethod
    def forget(self) -> None:
        """All is gathered: `close` removes the run from the broker. Without it the rest stays there."""

    @abstractmethod
    def note(self, record: bytes) -> None:
        """Add a record to those of the run, for who collects the rest.

        The broker forgets what was acknowledged before once this is safe there, and `close` waits for that.
        """

    @abstractmethod
    def drop(self, wait: float | None) -> None:
        """Cancel such a run and remove it.

        Raises:
            ConfigError: there is none of that name.
        """


class WorkerEnd(Closing):
    """The worker's end of a wire."""

    #: Where it looks for, or awaits, dispatchers.
    address: str
    #: Bytes of the largest result that it sends.
    largest: int = LARGEST
    #: Asked for what is unfinished when a dispatcher is greeted.
    holding: Callable[[], Holding] = dict
    #: For how long, and how much, it keeps of runs whose dispatcher is gone, where it does that itself.
    keep: Keep = Keep()
    #: Seconds that reports may wait in a worker's processes for others, while there is more to run: less than
    #: the work that the wire gives ahead lasts.
    linger: float = LINGER_SECONDS
    #: Asked for what runs, with each sign of life.
    running: Callable[[], Iterable[Running]] = tuple

    @abstractmethod
    def pull(self, timeout: float | None) -> list[Order]:
        """Return what dispatchers ask for, at least one order, or [] after `timeout` seconds."""

    @abstractmethod
    def reply(self, run: str, reports: Packed) -> None:
        """Send results of a run. They are kept and sent again until the dispatcher has recorded them."""

    @abstractmethod
    def give_back(self, run: str, places: Sequence[int]) -> None:
        """Return tasks that were not started."""

    @abstractmethod
    def drain(self) -> list[Order]:
        """Say to all dispatchers that no more tasks are taken; return what is to be done for that."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether a dispatcher is there."""

    @property
    @abstractmethod
    def settled(self) -> bool:
        """Whether all results are recorded by their dispatchers, but for those of runs that were left."""

    @property
    def unclaimed(self) -> dict[str, int]:
        """How many results are kept here of each run that was left and that another may continue.

        It names a run as long as some of its calls still run, too. Empty where a broker keeps the results.
        """
        return {}

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that is readable when `pull` may have something."""

    @abstractmethod
    def patience(self) -> float | None:
        """Return after how many seconds `pull` must be called even if nothing came."""


class Transport(ABC):
    """A wire: its settings, and how to make its two ends."""

    #: The keys of its YAML.
    Settings: ClassVar[type[Settings]] = Settings
    #: The keys that options of the command line stand for, by the option's name.
    OVERRIDES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> DispatcherEnd:
        """Open the dispatcher's end; `wait` bounds the seconds to wait for one's turn on the address.

        Raises:
            ConfigError: the address can't be used.
            NobodyThere: it was not free within `wait`.
        """

    @classmethod
    def kept_run(cls, settings: Any, name: str, *, collects: bool, say: Say) -> KeepingEnd:
        """Open the dispatcher's end for a run of that name that the broker keeps, or with `collects` kept.

        Raises:
            ConfigError: there is no broker on this wire, or the name can't be used.
        """
        raise ConfigError(
            f"a run can't be left on transport {settings.transport}, which has no broker; "
            "choose one that has: --yaml rabbitmq.yml"
        )

    @classmethod
    @abstractmethod
    def worker_end(cls, settings: Any, hello: Hello, *, say: Say) -> WorkerEnd:
        """Open the worker's end for the worker that `hello` introduces.

        Raises:
            ConfigError: the address can't be used.
        """

    @classmethod
    @abstractmethod
    def private(cls, settings: Any, folder: str, workers: int) -> tuple[Any, list[Any]]:
        """Return settings on addresses of their own for one dispatcher and for each of its workers.

        `folder` is empty, lies on this machine, and is entered by this user alone.
        """


def wait_readable(descriptor: int, seconds: float | None) -> None:
    """Wait until a descriptor is readable, at most `seconds` (None: no limit)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(None if seconds is None else max(0, seconds) * 1000)
