"""A dispatcher's calls on their way into line: in order, and no more than the broker keeps up with."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from executor.errors import CannotTravel
from executor.messages import NIL, Report, too_large
from transports.base import Jobs
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.frames import BODY_BYTES, Call, beyond, body_of, headers, pack
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.presence import Open
from transports.rabbitmq.topology import Topology

#: Messages, and bytes, that are published and not confirmed, at most.
WINDOW = 200
WINDOW_BYTES = 16 << 20

#: Messages into which the calls of a width are put, where a message of one call each would be more; and the
#: most calls in one. A worker takes of a message what it wants, and puts the rest back.
MESSAGES = 256
CALLS_MOST = 256


#: What is known of a call: nothing, or that it need not be pushed when its turn comes, as it is in line or in
#: hands as one of an earlier run's, or of our own.
_TO_PUSH, _EARLIER, _OWN = range(3)


class _Repeat(NamedTuple):
    place: int
    alone: bool


class Pushing:
    """Pushes the calls of `jobs` that are `open`, as those of run `run`.

    `report` is told of calls that go nowhere, `safe` of what width calls are in line now. Calls beyond
    `largest` bytes go nowhere.
    """

    def __init__(
        self, connection: Connection, post: Post, names: Topology, run: str, jobs: Jobs, open_: Open, *,
        largest: int, report: Callable[[Report], None], safe: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._post = post
        self._names = names
        self._run = run
        self._jobs = jobs
        self._open = open_
        self._largest = largest
        self._report = report
        self._safe = safe
        #: Whether it is known what need not be pushed.
        self.settled = False
        self._next = 0  # the place that is pushed next
        self._known = bytearray(len(jobs.widths))
        self._anew = deque[int]()  # places that are pushed once more
        self._repeats = deque[_Repeat]()  # calls that are tried again
        self._numbers = itertools.count()
        self._unsafe: dict[int, list[int]] = {}  # places, by message, of what is not confirmed
        #: Calls in one message, by width.
        self._together = {
            width: max(1, min(CALLS_MOST, -(-count // MESSAGES))) for width, count in open_.counts.items()
        }

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be pushed; what was need not be confirmed."""
        return not self._repeats and self._following() is None

    @property
    def safe(self) -> int:
        """How many calls, from the first on, the broker has for certain, or need not have.

        It goes back when some are found to be lost.
        """
        waiting = [place for places in self._unsafe.values() for place in places]
        waiting += [*self._anew, *(repeat.place for repeat in self._repeats)]
        return min([self._next, *(place for place in waiting if place in self._open)])

    def has(self, place: int) -> bool:
        """Whether a call was pushed as one of this run."""
        known = self._known[place]
        return known == _OWN or (known == _TO_PUSH and place < self._next)

    def skip(self, places: Iterable[int]) -> None:
        """These need not be pushed: they are in line, or in hands, as calls of an earlier run."""
        for place in places:
            if 0 <= place < len(self._known):
                self._known[place] = _EARLIER

    def settle(self, places: Iterable[int]) -> None:
        """It is known that these need not be pushed, and of earlier runs' no others."""
        self.settled = True
        self.skip(places)

    def all(self) -> None:
        """Nothing need be pushed: all is in line."""
        self._next = len(self._jobs.widths)

    def again(self, place: int, *, alone: bool) -> None:
        """A call is tried again, first in line."""
        self._open.reopen(place)
        self._known[place] = _OWN  # should its turn be still to come
        self._repeats.append(_Repeat(place, alone))

    def lost(self) -> list[int]:
        """The run's own calls are gone from the broker: push them again; return their places."""
        return self.anew(place for place in range(len(self._known)) if self.has(place))

    def strayed(self, left: Iterable[int]) -> list[int]:
        """An earlier run's calls are gone from the broker, and only these are `left` there of others."""
        still = bytearray(len(self._known))
        for place in left:
            still[place] = 1
        gone = [place for place, known in enumerate(self._known) if known == _EARLIER and not still[place]]
        for place in gone:
            self._known[place] = _TO_PUSH
        return self.anew(place for place in gone if place < self._next)

    def anew(self, places: Iterable[int]) -> list[int]:
        """Push calls once more, unless they are on their way just now; return their places."""
        under_way = {place for some in self._unsafe.values() for place in some}
        under_way.update(self._anew, (repeat.place for repeat in self._repeats))
        found = [place for place in sorted(places) if place in self._open and place not in under_way]
        for place in found:
            self._known[place] = _OWN
        self._anew.extend(found)
        return found

    def go_on(self) -> None:
        """Publish calls for as long as the broker keeps up with its confirmations."""
        while self._repeats and self._has_room():
            self._repeat(*self._repeats.popleft())
        while self._has_room() and (first := self._following()) is not None:
            anew = bool(self._anew)
            width = self._open.widths[first]
            places = list(self._alike(first, width))
            body = self._frame(places)
            last = places[-1]
            if body is None:
                some, last = self._one_by_one(places)
                body, places = body_of(self._run, some), [call.item.place for call in some]
            self._pass(last)
            if places:
                # What is pushed anew was before what waits: it goes first. A worker that has had it takes it.
                queue = self._names.first(width) if anew else self._names.line(width)
                self._send(queue, width, places, body, anew=anew)

    def _frame(self, places: Sequence[int]) -> bytes | None:
        """Return the body of a message with the calls at these places, if it can be had in one go."""
        if self._jobs.id != self._run:  # of a run that another dispatcher left: the frame would name ours
            return None
        frame = self._jobs.frame(places)
        return None if frame is None or len(frame) > min(BODY_BYTES, self._largest) else pack([frame])

    def _one_by_one(self, places: Iterable[int]) -> tuple[list[Call], int]:
        """Return the calls at these places that make a message, and the last place that was looked at."""
        some: list[Call] = []
        size = 0
        last = -1
        for place in places:
            call = self._encoded(place)
            if call is not None:
                own = call.size
                if some and size + own > BODY_BYTES:
                    break  # it begins the next message
                some.append(call)
                size += own
            last = place
        return some, last

    def _has_room(self) -> bool:
        return len(self._post) < WINDOW and self._post.size < WINDOW_BYTES

    def _following(self) -> int | None:
        """Return the place that comes next."""
        while self._anew:
            if self._anew[0] in self._open:
                return self._anew[0]
            self._anew.popleft()
        while self._next < len(self._known):
            if self._next in self._open and self._known[self._next] == _TO_PUSH:
                return self._next
            self._next += 1
        return None

    def _alike(self, first: int, width: int) -> Iterable[int]:
        """Return the places that come next and are of a width, as many as go into one message."""
        most, widths = self._together[width], self._open.widths
        if not self._anew:
            end = min(first + most, len(self._known))
            to_push = not any(self._known[first:end]) and self._open.has_all(first, end)
            if to_push and widths[first:end].count(width) == end - first:
                return range(first, end)  # as nearly always: nothing need be looked at one by one
        coming = self._anew or range(first, len(self._known))
        due = (place for place in coming if place in self._open and (self._anew or not self._known[place]))
        return itertools.islice(itertools.takewhile(lambda place: widths[place] == width, due), most)

    def _pass(self, place: int) -> None:
        """What came next is dealt with, up to this place."""
        if self._anew:
            while self._anew.popleft() != place:
                pass
        else:
            self._next = place + 1

    def _repeat(self, place: int, alone: bool) -> None:
        call = self._encoded(place) if place in self._open else None
        if call is not None:
            call.item.lone = alone
            width = call.item.width
            queue = self._names.alone(width) if alone else self._names.first(width)
            self._send_one(queue, call, anew=True)

    def _encoded(self, place: int) -> Call | None:
        """Return a call, or report that it can't travel."""
        try:
            call = Call(*self._jobs.item(place))
            if call.size > self._largest:
                raise CannotTravel(too_large("the call", call.size, self._largest))
            return call
        except CannotTravel as cannot:
            self._report(Report(place, 0, "error", NIL, error=("CannotTravel", str(cannot), "")))
            return None

    def _send_one(self, queue: str, call: Call, *, anew: bool) -> None:
        self._send(queue, call.item.width, [call.item.place], body_of(self._run, [call]), anew=anew)

    def _send(self, queue: str, width: int, places: list[int], body: bytes, *, anew: bool) -> None:
        own = headers(anew="yes") if anew else headers()
        number = next(self._numbers)
        self._unsafe[number] = places

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.NO_QUEUE:  # somebody deleted it
                for name, arguments in self._names.of_width(width).items():
                    self._connection.declare(name, arguments)
                self._post.send(queue, body, done, headers=own)
                return
            if outcome is Outcome.SAFE:
                self._safe(width)
            elif len(places) == 1:
                self._report(beyond("the call", places[0], len(body), self._post.most))
            else:
                for call in map(self._encoded, places):
                    if call is not None:
                        self._send_one(queue, call, anew=anew)
            del self._unsafe[number]

        self._post.send(queue, body, done, headers=own)
