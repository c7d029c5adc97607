"""A dispatcher's end of RabbitMQ: it pushes a run's calls, and gathers its reports.

Who gets which call is the broker's and the workers' business. From the workers' presence the dispatcher knows
who is there and what they have; further attempts are the workers', too, so that a run goes on without it.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections import Counter
from typing import Any

from executor.errors import BadFrame, CannotTravel, TransportError
from executor.messages import (
    NIL,
    PROTOCOL,
    Alive,
    Cancel,
    Halt,
    Hello,
    Message,
    Over,
    Pushed,
    Refused,
    Report,
    Reports,
    Who,
    decode,
    encode,
    share_out,
    too_large,
)
from transports.base import Delivery, DispatcherEnd, Jobs, Say, WorkerView, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.frames import BODY_BYTES, Call, beyond, body_of, calls, headers, pack, unpack
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.presence import Open, Presence
from transports.rabbitmq.topology import Topology

#: Messages, and bytes, that are published and not confirmed, at most.
WINDOW = 200
WINDOW_BYTES = 16 << 20

#: Messages into which the calls of a width are put, where a message of one call each would be more; and the
#: most calls in one. A worker takes of a message what it wants, and puts the rest back.
MESSAGES = 256
CALLS_MOST = 256

#: Messages of reports that are delivered and not acknowledged, at most.
PREFETCH = 200

#: Seconds between two looks for calls that came back.
LOOK_AGAIN = 1.0

#: Seconds in which the queues of a worker that died are looked into again and again.
REAPING = 10.0

#: Seconds between two lines to all that calls wait.
TELL = 0.1

#: Seconds between two looks at the time while there is no connection.
_TICK = 0.2


class RabbitDispatcherEnd(DispatcherEnd):
    """The dispatcher's end of RabbitMQ. With `temporary`, all queues are removed at the end.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(
        self, url: str, names: Topology, *, say: Say, heartbeat: float, largest: int, temporary: bool = False
    ) -> None:  # fmt: skip
        me = secrets.token_hex(4)
        self._connection = Connection(url, name=f"dispatcher {me}", heartbeat=names.patience)
        self.address = f"{self._connection.address}, queue {names.queue}"
        self._me = me
        self._names = names
        self._say = say
        self._heartbeat = heartbeat
        self._largest = largest
        self._run = ""
        self._stays = False  # the run goes on without its dispatcher
        self._stands = False  # its results queue was seen to be there
        self._temporary = temporary
        self._post = Post(self._connection)
        self._mending = Mending(self._connection, self._post, names)
        self._jobs: Jobs | None = None
        self._next = 0  # place that is pushed next
        self._together: dict[int, int] = {}  # calls in one message, by width
        self._open = Open(())
        self._stopped = False
        self._presence = Presence()
        self._refused: set[str] = set()
        self._strangers: set[str] = set()
        self._arrived: list[Delivery] = []
        self._tags: list[Tag] = []
        self._found: dict[str, int | None] = {}
        self._getting = ""
        self._returned_at = 0.0
        self._reaping: dict[
            str, float
        ] = {}  # queues of workers that died, and until when they are looked into
        self._fresh: set[int] = set()  # widths of calls that were confirmed and not told yet
        self._told_at = 0.0
        self._beat_at = 0.0
        self._outage = Outage(self._connection.address, say)
        self._listening = ""
        self._closed = False

    # -- the contract

    def push(self, jobs: Jobs) -> None:
        self._run = jobs.id
        self._adopt(jobs)
        for width, count in self._open.counts.items():
            self._together[width] = max(1, min(CALLS_MOST, -(-count // MESSAGES)))
        if self._outage.opened:
            self._open_run()

    def _adopt(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._open = Open(jobs.widths)

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        assert self._jobs is not None
        if self._stopped:
            return
        call = Call(*self._jobs.item(place))
        width = call.item.width
        call.item.lone = alone
        self._open.reopen(place)
        queue = self._names.alone(width) if alone else self._names.first(width)
        self._send(queue, [call])

    def results(self, timeout: float | None) -> list[Delivery]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            now = self._turn()
            if self._arrived:
                arrived, self._arrived = self._arrived, []
                return arrived
            if deadline is not None and now >= deadline:
                return []
            wait = self._patience(now)
            wait_readable(self._connection.fileno(), wait if deadline is None else min(wait, deadline - now))

    def acknowledge(self) -> None:
        tags, self._tags = self._tags, []
        for tag in tags:
            self._connection.ack(tag)

    def workers(self) -> list[WorkerView]:
        return self._presence.views(self._run, self._open, self._jobs, time.monotonic())

    def waiting(self) -> dict[int, int]:
        held = Counter(self._open.widths[p] for p in self._presence.held(self._run) if p in self._open)
        left = {width: count - held[width] for width, count in sorted(self._open.counts.items())}
        return {width: count for width, count in left.items() if count > 0}

    def withdraw(self, width: int | None = None) -> list[int]:
        held = self._presence.held(self._run)
        found = [
            place
            for place, each in enumerate(self._open.widths)
            if (width is None or each == width) and place in self._open and place not in held
        ]
        for place in found:  # a worker that finds one later finds that its run is over
            self._open.close(place)
        return found

    def halt(self) -> None:
        self._stop(Halt(self._run))

    def cancel(self) -> None:
        self._stop(Cancel(self._run))

    def _stop(self, message: Message) -> None:
        self._stopped = True
        self._presence.stop()
        self._tell(message)

    def worker_died(self, pid: int) -> None:
        for hello in self._presence.died(socket.gethostname(), pid):
            self._miss(hello, "its process died")
            until = time.monotonic() + REAPING
            for queue in (self._names.held(hello.instance), self._names.orphaned(hello.instance)):
                self._reaping[queue] = until

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._outage.opened and self._jobs is not None and not self._stays:
            self.acknowledge()
            self._end_run()
        self._connection.close()

    # -- hearing

    def _turn(self) -> float:
        """Hear what came, push, and look at the time, which is returned."""
        now = time.monotonic()
        for event in self._connection.take():
            self._hear(event, now)
        self._push_on()
        self._tick(now)
        return now

    def _patience(self, now: float) -> float:
        if self._connection.ready():
            return 0.0
        if not self._outage.opened:
            return _TICK
        ats = [self._beat_at, self._returned_at]
        if self._fresh:
            ats.append(self._told_at + TELL)
        return max(0.0, min(ats) - now)

    def _hear(self, event: events.AMQPEvent, now: float) -> None:
        if isinstance(event, events.Opened):
            self._open_all(event, now)
        elif isinstance(event, events.Lost):
            self._lose(event, now)
        elif isinstance(event, events.Ended):
            self._connection.break_off(f"the broker ended the subscription to {event.queue}")
        elif isinstance(event, events.Blocked):
            self._outage.blocks(event)
        elif isinstance(event, events.Confirmed):
            self._post.confirmed(event)
        elif isinstance(event, events.Found):
            self._found[event.queue] = event.messages
            if event.queue == self._names.results(self._run):
                self._look_at_results(event.messages is not None)
        elif isinstance(event, events.Empty):
            self._getting = ""
        elif event.queue == self._listening:
            self._meet(event, now)
        elif event.queue == self._names.results(self._run):
            self._take(event)
        else:
            self._mend(event)

    def _open_all(self, event: events.Opened, now: float) -> None:
        self._outage.opens()
        names = self._names
        for exchange in (names.control, names.presence):
            self._connection.declare_fanout(exchange)
        for queue, arguments in names.common().items():
            self._connection.declare(queue, arguments)
        self._listening = f"{names.queue}.dispatcher.{self._me}.{event.generation}"
        self._connection.listen(names.presence, self._listening)
        self._presence.forgive(now)
        if self._stands:
            self._connection.look_for(names.results(self._run))
        elif self._jobs is not None:
            self._open_run()
        self._post.opened()
        self._tell(Who())
        self._beat_at = 0.0

    def _look_at_results(self, there: bool) -> None:
        """The results queue is there, or not: with it, somebody removed the run."""
        if self._stands and not there:
            raise TransportError(
                f"the run is gone from {self.address}: it was cancelled, or its results queue deleted"
            )
        if self._stands and self._jobs is not None:
            self._open_run()

    def _open_run(self) -> None:
        """Declare what the run needs, and have its reports delivered."""
        self._declare_run()
        self._consume()

    def _declare_run(self) -> None:
        for width in sorted(self._open.counts):
            for queue, arguments in self._names.of_width(width).items():
                self._connection.declare(queue, arguments)
        for queue, arguments in self._queues_of_run().items():
            self._connection.declare(queue, arguments)

    def _queues_of_run(self) -> dict[str, dict[str, Any]]:
        return self._names.of_run(self._run)

    def _consume(self) -> None:
        self._connection.consume(self._names.results(self._run), prefetch=PREFETCH)

    def _lose(self, event: events.Lost, now: float) -> None:
        self._outage.loses(event, now)
        self._getting = ""
        self._tags.clear()  # they come again, and are known by their places
        self._mending.lost()
        self._post.lost(event.most)

    def _meet(self, event: Delivered, now: float) -> None:
        """Take a worker's presence."""
        try:
            hello, _ = decode(unpack(event.body))
            if not isinstance(hello, Hello):
                raise BadFrame(f"a greeting was expected, not {type(hello).__name__}")
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            return
        if hello.protocol != PROTOCOL:
            if hello.instance not in self._refused:
                self._refused.add(hello.instance)
                self._say(f"refused worker {hello.name} on {hello.host}: it speaks protocol {hello.protocol}")
            reason = f"it speaks protocol {PROTOCOL}, this worker {hello.protocol}: use the same version"
            self._tell(Refused(reason, hello.instance))
        else:
            self._presence.meet(hello, now)

    def _take(self, event: Delivered) -> None:
        """Take reports of this run."""
        assert event.tag is not None
        try:
            message, buffers = decode(unpack(event.body))
            if not isinstance(message, Reports) or message.run != self._run:
                raise BadFrame(f"reports of run {self._run} were expected")
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            self._connection.ack(event.tag)
            return
        self._tags.append(event.tag)
        shares = share_out(message.items, buffers)
        worker, host = event.headers.get("worker"), event.headers.get("host")
        for index, report in enumerate(message.items):
            if self._jobs is not None:
                self._jobs.tried(report.place, report.attempt)
            self._arrived.append(Delivery(worker, host, report, shares.get(index, ())))
            self._open.close(report.place)

    def _mend(self, event: Delivered) -> None:
        """Calls came back whose worker vanished; of which run does not matter."""
        self._getting = ""
        try:
            run, some = calls(event.body)
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            if event.tag is not None:
                self._connection.ack(event.tag)
            return
        self._mending.mend(event, run, some)

    def _stranger(self, queue: str, bad: BadFrame) -> None:
        if queue not in self._strangers:
            self._strangers.add(queue)
            self._say(f"ignored a stranger's message in {queue}: {bad}")

    # -- pushing

    def _pushed(self) -> bool:
        return self._jobs is not None and self._next >= len(self._jobs.widths)

    def _push_on(self) -> None:
        """Publish calls for as long as the broker keeps up with its confirmations."""
        if self._jobs is None or not self._outage.opened or self._stopped:
            return
        while not self._pushed() and len(self._post) < WINDOW and self._post.size < WINDOW_BYTES:
            width = self._jobs.widths[self._next]
            some: list[Call] = []
            size = 0
            while len(some) < self._together[width] and size < BODY_BYTES and not self._pushed():
                if self._jobs.widths[self._next] != width:
                    break
                call = self._encoded(self._next)
                if call is not None and some and size + call.size > BODY_BYTES:
                    break  # it begins the next message
                self._next += 1
                if call is not None:
                    some.append(call)
                    size += call.size
            if some:
                self._send(self._names.line(width), some)

    def _encoded(self, place: int) -> Call | None:
        """Return a call, or report that it can't travel."""
        assert self._jobs is not None
        try:
            call = Call(*self._jobs.item(place))
            if call.size > self._largest:
                raise CannotTravel(too_large("the call", call.size, self._largest))
            return call
        except CannotTravel as cannot:
            self._report(Report(place, 0, "error", NIL, error=("CannotTravel", str(cannot), "")))
            return None

    def _report(self, report: Report) -> None:
        """Report of a call that goes nowhere."""
        self._arrived.append(Delivery(None, None, report))
        self._open.close(report.place)

    def _send(self, queue: str, some: list[Call]) -> None:
        width = some[0].item.width
        body = body_of(self._run, some)

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.SAFE:
                self._stands = True  # as it was declared before
                self._fresh.add(width)
                return
            if outcome is Outcome.TOO_LARGE:
                for call in some if len(some) > 1 else ():
                    self._send(queue, [call])
                if len(some) == 1:
                    self._report(beyond("the call", some[0].item.place, len(body), self._post.most))
                return
            for name, arguments in self._names.of_width(width).items():  # somebody deleted it
                self._connection.declare(name, arguments)
            self._post.send(queue, body, done, headers=headers())

        self._post.send(queue, body, done, headers=headers())

    def _tell(self, message: Message) -> None:
        self._connection.publish(self._names.control, "", pack(encode(message)))

    # -- time

    def _tick(self, now: float) -> None:
        if not self._outage.opened:
            self._outage.tick(now)
            return
        if now >= self._beat_at:
            self._beat_at = now + self._heartbeat
            self._post.again()
            if self._jobs is not None and not self._stays:
                self._tell(Alive(self._run))
            for hello, seconds in self._presence.silent(now, self._names.patience):
                self._miss(hello, f"silent for {seconds:.0f} s")
        if self._fresh and now - self._told_at > TELL:
            self._told_at = now
            self._tell(Pushed(sorted(self._fresh)))
            self._fresh.clear()
        if not self._getting and not self._mending and now >= self._returned_at:
            self._look_for_returned(now)

    def _look_for_returned(self, now: float) -> None:
        self._reaping = {queue: until for queue, until in self._reaping.items() if now < until}
        if self._reaping:  # in turn, and quickly: nothing else will bring these back soon
            queue, until = self._reaping.popitem()
            self._reaping = {queue: until, **self._reaping}
            self._returned_at = now + TELL
        else:
            queue = self._names.returned
            self._returned_at = now + LOOK_AGAIN
        self._getting = queue
        self._connection.get(queue)

    def _miss(self, hello: Hello, why: str) -> None:
        held = sum(place in self._open for place in hello.holding.get(self._run, ()))
        self._say(f"worker {hello.name} on {hello.host} is gone ({why}); it held {held} unfinished")

    def _end_run(self) -> None:
        """Tell all that the run is over, and remove what it has in the broker."""
        self._tell(Over(self._run))
        for queue in self._queues_of_run():
            self._connection.delete(queue)
        if self._temporary:
            names = self._names
            queues = [name for width in self._open.counts for name in names.of_width(width)]
            for queue in [*queues, *names.common()]:
                self._connection.delete(queue)
            for exchange in (names.control, names.presence):
                self._connection.delete_exchange(exchange)
