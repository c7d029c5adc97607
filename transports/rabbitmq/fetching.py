"""What a worker fetches: from which queue, how many messages at once, and which of their calls it keeps.

Where it wants one message, it gets that one; of tiny calls, or with many cores, it wants many, and fetches
them together (`Bulk`). What came together is moved together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from executor.errors import BadFrame
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Delivered, Found, Tag
from transports.rabbitmq.frames import Call, calls
from transports.rabbitmq.held import Held
from transports.rabbitmq.lookout import Lookout
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.moving import Moving
from transports.rabbitmq.runs import Runs
from transports.rabbitmq.topology import Topology

#: Seconds in which nothing is fetched after calls came that another version pushed.
FOREIGN = 5.0

#: Messages that are fetched at once, at most, and bytes in them, as the last ones were.
FETCH_MOST = 256
FETCH_BYTES = 4 << 20

#: Seconds that a fetch waits for more, where calls in hand keep the cores busy meanwhile.
LINGER = 0.01

#: Calls in one copy, at most: what is begun again together if the worker dies.
COPY_MOST = 256


class _Message(NamedTuple):
    """A message of a common queue, with its calls."""

    tag: Tag
    queue: str
    run: str
    anew: bool
    calls: list[Call]
    size: int


class Fetching:
    """Fetches over a `connection` as much as `held` has an appetite for, and has it moved.

    `back` is told the width and queue of calls that are in line again, `refuse` why some are not for us, and
    `stranger` the queue and the flaw of a message that is none of ours.
    """

    def __init__(
        self, connection: Connection, names: Topology, protocol: int, held: Held, moving: Moving,
        mending: Mending, runs: Runs, lookout: Lookout, *, back: Callable[[int, str], None],
        refuse: Callable[[str], None], stranger: Callable[[str, BadFrame], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._names = names
        self._protocol = protocol
        self._held = held
        self._moving = moving
        self._mending = mending
        self._runs = runs
        self._lookout = lookout
        self._back = back
        self._refuse = refuse
        self._stranger = stranger
        self._getting = ""  # the queue that was asked
        self._came = deque[_Message]()  # until their run is known
        self._room = 0  # for so many of their calls
        self._checking = ""  # the run that is looked for
        self._last: dict[str, tuple[int, int]] = {}  # calls and bytes of the last message of each queue
        self._pause_until = 0.0
        #: Whether the worker takes nothing more.
        self.draining = False

    def __bool__(self) -> bool:
        """Whether something is on its way to us, or waits for what is known of its run."""
        return bool(self._getting or self._came)

    def pause(self, now: float) -> None:
        """Fetch nothing for a while: what is there is not for us."""
        self._pause_until = now + FOREIGN

    def lost(self) -> None:
        """The connection broke: what was being fetched is void."""
        self._getting = self._checking = ""
        self._came.clear()

    def go_on(self, now: float) -> None:
        """Ask for the next messages, if there is room for what they may hold."""
        if self._getting or self._came or self.draining or self._held.lone:
            return
        if now < self._pause_until or self._moving.unconfirmed:
            return
        queue = self._lookout.next(
            now, idle=not self._held.load and not self._moving, mends=not self._mending,
            wants=lambda width: self._held.appetite(width, now),
        )  # fmt: skip
        if not queue:
            return
        self._getting = queue
        most = self._how_many(queue, now)
        if most > 1:
            self._connection.fetch(queue, most, LINGER)
        else:
            self._connection.get(queue)

    def _how_many(self, queue: str, now: float) -> int:
        """Return how many messages of a queue to ask for, as the last one from there was."""
        width = self._lookout.width(queue)
        if not width or not self._held.load or queue not in self._last:
            return 1  # one that has nothing to do waits for no more than what is there
        count, size = self._last[queue]
        wanted = self._held.appetite(width, now) // count  # whole ones: the rest of one would be put back
        return min(wanted, FETCH_MOST, FETCH_BYTES // max(1, size))

    def nothing(self, queue: str, now: float) -> None:
        """There was nothing in a queue."""
        if self._getting == queue:
            self._getting = ""
        self._last.pop(queue, None)  # the next ones may be of another kind
        self._lookout.empty(queue, now)

    def came(self, queue: str, messages: Sequence[Delivered], now: float) -> None:
        """Messages came that were asked for."""
        if self._getting != queue:
            return
        self._getting = ""
        for event in messages:
            tag = event.tag
            assert tag is not None
            try:
                run, some = calls(event.body)
            except BadFrame as bad:
                self._stranger(queue, bad)
                self._connection.ack(tag)
                continue
            if queue == self._names.returned:
                self._mending.mend(event, run, some)
                self._lookout.filled()
                continue
            protocol = event.headers.get("protocol")
            if protocol != self._protocol:
                self._connection.reject(tag)
                self.pause(now)
                self._refuse(
                    f"it speaks protocol {protocol}, this worker {self._protocol}: use the same version"
                )
                continue
            self._last[queue] = max(1, len(some)), len(event.body)
            self._came.append(_Message(tag, queue, run, "anew" in event.headers, some, len(event.body)))
        for message in self._came:
            if message.calls:
                self._room = max(1, self._held.appetite(message.calls[0].item.width, now))
                break
        self._take(now)

    def found(self, event: Found, now: float, gone: Callable[[str], None]) -> bool:
        """Take the answer whether a queue exists, if it is that of a run that we asked for; `gone` if not."""
        run = self._checking
        if not run or event.queue != self._names.results(run):
            return False
        self._checking = ""
        if event.messages is None:
            gone(run)
        else:
            self._runs.seen(run, now)
        self._take(now)
        return True

    def _take(self, now: float) -> None:
        """Take what came of runs that are known; ask for the first that is not."""
        while self._came:
            run = self._came[0].run
            if self._runs.unknown(run, now):
                self._checking = run
                self._connection.look_for(self._names.results(run))
                return
            self._take_together(now)

    def _take_together(self, now: float) -> None:
        """Move the next messages that make one copy, as far as there is room; let go of the rest."""
        first = self._came[0]
        ours: list[Call] = []
        rest: list[Call] = []
        tags: list[Tag] = []
        size = 0
        while self._came and not rest:
            tag, queue, run, anew, some, more = self._came[0]
            size += more
            other = (run, anew) != (first.run, first.anew)
            if other or (ours and (len(ours) + len(some) > COPY_MOST or size > self._moving.most)):
                break  # of another copy
            self._came.popleft()
            if self._held.doubtful and not anew:  # else its dispatcher knows that what became of it is lost
                some = [call for call in some if not self._held.done_before(run, call)]
            if self.draining:
                self._connection.reject(tag)
            elif self._runs.stopped(run) or not some:
                self._connection.ack(tag)
            elif not self._room:  # calls became long meanwhile
                self._connection.reject(tag)
                self._back(some[0].item.width, queue)
            else:
                count = 1 if some[0].item.lone else self._room
                ours += some[:count]
                rest = some[count:]
                tags.append(tag)
                self._room = max(0, self._room - len(some))
        if ours:
            self._runs.touch(first.run, now)
            self._moving.move(tags, first.run, ours, rest, anew=first.anew)
        if rest:
            width = rest[0].item.width
            self._back(width, self._names.first(width))
