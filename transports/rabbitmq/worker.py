"""A worker's end of RabbitMQ.

It fetches rather than subscribes for good: only so can it take the narrowest first and no more than can
start soon. What it fetched, it moves: a copy into a queue of its own, confirmed, then it acknowledges the
originals. A call is handed to the pool when the copy was delivered; from then on, and only then, it may
have begun. So the broker itself knows who has what, and whether a worker that vanished may have begun it: no
delivery count says that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from executor.errors import BadFrame
from executor.messages import (
    Alive,
    Cancel,
    Halt,
    Hello,
    Over,
    Pushed,
    Refused,
    Report,
    Who,
    decode,
    encode,
)
from executor.packed import Packed
from executor.sealing import Seal
from executor.session import Begin, Ended, GiveBack, Order, Stop, Take
from transports.base import Say, WorkerEnd, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.announcing import Announcing
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Delivered
from transports.rabbitmq.fetching import Fetching
from transports.rabbitmq.frames import NOT_OURS, calls, pack, unpack
from transports.rabbitmq.held import Held
from transports.rabbitmq.lookout import Lookout
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.moving import Moving
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.post import Post
from transports.rabbitmq.renewing import Renewing
from transports.rabbitmq.replies import LINGER, Replies
from transports.rabbitmq.runs import Runs
from transports.rabbitmq.strangers import Strangers
from transports.rabbitmq.telling import Telling
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker

#: Seconds between two looks at the time while there is no connection.
_TICK = 0.2

#: Seconds between two looks for calls that wait behind others for too long.
RECALL = 0.25

#: Seconds until what the broker did not take is published again.
POST_AGAIN = 1.0


class RabbitWorkerEnd(WorkerEnd):
    """The worker's end of RabbitMQ."""

    linger = LINGER

    def __init__(
        self, broker: Broker, names: Topology, seal: Seal, hello: Hello, *, say: Say, heartbeat: float,
        largest: int,
    ) -> None:  # fmt: skip
        self.largest = largest
        self._connection = Connection(
            broker, Envelopes(seal, names), name=f"worker {hello.name}", heartbeat=names.heartbeat
        )
        self.address = f"{self._connection.address}, queue {names.queue}"
        self._names = names
        self._hello = hello
        self._say = say
        self._post = Post(self._connection)
        self._mending = Mending(self._connection, self._post, names)
        self._held = Held(hello.cores, backfill=hello.backfill)
        self._replies = Replies(
            self._connection, self._post, self._held, names, hello, back=self._in_line, gone=self._gone
        )
        self._moving = Moving(self._connection, self._post, self._held, self._replies, names, hello)
        self._lookout = Lookout(names, hello.cores)
        self._renewing = Renewing(self._post, self._held, names, hello)
        self._runs = Runs(names.patience)
        self._announcing = Announcing(
            self._connection, names, hello, self._held, self._runs, lambda: self.running(), heartbeat
        )
        self._telling = Telling(self._tell)
        self._strangers = Strangers(say)
        self._fetching = Fetching(
            self._connection, names, hello.protocol, self._held, self._moving, self._mending, self._runs,
            self._lookout, back=self._in_line, refuse=self._refuse, stranger=self._strangers.ignore,
        )  # fmt: skip
        self._own: dict[str, dict[str, Any]] = {}  # its own queues, with their arguments
        self._listening = ""  # the queue in which it hears what is told to all
        self._orders: list[Order] = []
        self._outage = Outage(self._connection.address, say)
        self._given_up = True  # what had not begun when the connection broke
        self._again_at = 0.0
        self._recall_at = 0.0
        self._refusals: set[str] = set()
        self._draining = False
        self._closed = False

    # -- the contract

    def pull(self, timeout: float | None) -> list[Order]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            now = time.monotonic()
            for event in self._connection.take():
                self._hear(event, now)
            self._replies.tick(now)
            self._tick(now)
            if self._outage.opened:
                self._fetching.go_on(now)
            if self._orders or (deadline is not None and now >= deadline):
                orders, self._orders = self._orders, []
                return orders
            wait = self.patience()
            wait_readable(self._connection.fileno(), wait if deadline is None else min(wait, deadline - now))

    def reply(self, run: str, reports: Packed) -> None:
        now = time.monotonic()
        self._runs.touch(run, now)
        read = reports.reports()
        places = [report.place for report in read]
        held = self._held.present(run, places)
        by_width: dict[int, list[Report]] = {}
        for report, call in zip(read, held, strict=True):
            if call is not None:
                by_width.setdefault(call.item.width, []).append(report)
        for width, some in by_width.items():
            self._held.learn(some, width, now)
        if None in held or any(report.status != "ok" for report in read):
            reports, places = self._replies.final(run, reports, stopped=self._runs.stopped(run))
        if places:  # as they came, in the usual case
            self._replies.report(run, reports, places, now)

    def give_back(self, run: str, places: Sequence[int]) -> None:
        if self._runs.stopped(run):
            self._replies.release(self._held.finish(run, places))
        else:
            self._held.never_begun(run, places)
            found = [call for place in places if (call := self._held.call(run, place)) is not None]
            self._replies.put_back(run, found)

    def drain(self) -> list[Order]:
        self._draining = self._fetching.draining = True
        self._announcing.leave()
        return [GiveBack(run, None) for run in self._runs.begun()]

    @property
    def connected(self) -> bool:
        return bool(self._runs.begun())

    @property
    def settled(self) -> bool:
        return not (self._post or self._moving or self._held or self._fetching or self._replies)

    def fileno(self) -> int:
        return self._connection.fileno()

    def patience(self) -> float:
        if self._connection.ready():
            return 0.0
        now = time.monotonic()
        if not self._outage.opened:
            return _TICK
        ats = [
            self._announcing.beat_at, self._again_at, self._replies.due, self._telling.due,
            *self._lookout.times(now),
        ]  # fmt: skip
        if self._held.excess:
            ats.append(self._recall_at)
        return max(0.0, min(ats) - now)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._outage.opened:
            self._announcing.leave()
            self._announcing.announce(time.monotonic())
            if self.settled and not self._moving.misses:
                for queue in (
                    self._names.held(self._hello.instance),
                    self._names.orphaned(self._hello.instance),
                ):
                    self._connection.delete(queue)
        self._connection.close()

    # -- hearing

    def _hear(self, event: events.AMQPEvent, now: float) -> None:
        if isinstance(event, events.Opened):
            self._open(event, now)
        elif isinstance(event, events.Lost):
            self._lose(event, now)
        elif isinstance(event, events.Ended):
            self._connection.break_off(f"the broker ended the subscription to {event.queue}")
        elif isinstance(event, events.Blocked):
            self._outage.blocks(event)
        elif isinstance(event, events.Confirmed):
            self._post.confirmed(event)
        elif isinstance(event, events.Empty):
            self._fetching.nothing(event.queue, now)
        elif isinstance(event, events.Fetched):
            self._fetching.came(event.queue, event.messages, now)
        elif isinstance(event, events.Found):
            self._found(event, now)
        elif event.queue == self._listening:
            self._obey(event, now)
        elif event.queue in self._own:
            self._copy_came(event, now)
        else:
            self._fetching.came(event.queue, [event], now)

    def _open(self, event: events.Opened, now: float) -> None:
        """Declare everything, and go on where we were."""
        self._outage.opens()
        self._given_up = True
        names, instance = self._names, self._hello.instance
        self._own = names.of_worker(instance, event.version)
        self._listening = f"{names.queue}.worker.{instance}.{event.generation}"
        for exchange in (names.control, names.presence):
            self._connection.declare_fanout(exchange)
        for queue, arguments in {**names.common(), **self._own}.items():
            self._connection.declare(queue, arguments)
        self._connection.listen(names.control, self._listening)
        for queue in self._own:
            self._connection.consume(queue)
        self._post.opened()
        for run in self._present():  # we were not there to hear that it was over
            self._connection.look_for(names.results(run))
        self._lookout.forget()
        self._announcing.soon()

    def _lose(self, event: events.Lost, now: float) -> None:
        """The connection broke: what was being fetched is void, what we have waits for the next."""
        if self._outage.loses(event, now):
            self._given_up = False
        self._fetching.lost()
        self._mending.lost()
        self._post.lost(event.most)
        self._moving.lost()
        self._held.doubt()

    def _obey(self, event: Delivered, now: float) -> None:
        """Take what a dispatcher, or another worker, tells all."""
        try:
            message, _ = decode(unpack(event.body))
        except BadFrame as bad:
            self._strangers.ignore(event.queue, bad)
            return
        if isinstance(message, Pushed):
            self._lookout.filled()
            for queue in self._lookout.missing(message.widths):
                self._connection.look_for(queue)
        elif isinstance(message, Who):
            self._announcing.soon()
        elif isinstance(message, Refused):
            if message.instance == self._hello.instance:
                self._fetching.pause(now)
                self._refuse(message.reason)
        elif isinstance(message, Alive):
            self._runs.alive(message.run, now)
        elif isinstance(message, Cancel):
            self._stop(message.run, now)
            self._orders.append(Stop(message.run, None))
        elif isinstance(message, Halt):
            self._stop(message.run, now)
            self._orders.append(GiveBack(message.run, None))
        elif isinstance(message, Over):
            self._over(message.run, now)

    def _stop(self, run: str, now: float) -> None:
        self._runs.stop(run, now)
        self._announcing.soon()

    def _over(self, run: str, now: float, why: str = "its run is over", *, complete: bool = True) -> None:
        """A run is over: nothing of it is wanted any more."""
        if complete:
            self._runs.stop(run, now)
        else:
            self._runs.vanish(run, now)
        self._moving.over(run)
        self._replies.release(self._held.finish(run, self._held.of_run(run)))
        self._held.forget(run)
        self._replies.forget(run)
        if self._runs.leave(run):
            self._orders.append(Ended(run, complete, why))

    def _refuse(self, reason: str) -> None:
        if reason not in self._refusals:
            self._refusals.add(reason)
            self._say(f"refused by the dispatcher at {self.address}: {reason}")

    def _found(self, event: events.Found, now: float) -> None:
        """Take the answer whether a queue exists: that of a width, or of a run's results."""
        if self._fetching.found(event, now, self._gone):
            return
        if event.messages is not None:
            for width in self._lookout.exists(event.queue):
                for queue, arguments in self._names.of_width(width).items():  # somebody may have deleted one
                    self._connection.declare(queue, arguments)
        else:
            for run in self._present():
                if self._names.results(run) == event.queue:
                    self._gone(run)

    def _present(self) -> set[str]:
        """The runs that this worker takes part in, or has calls of."""
        return {*self._runs.begun(), *self._held.holding()}

    def _gone(self, run: str) -> None:
        """A run's results queue is gone: so is the run."""
        if run in self._present():
            self._orders.append(Stop(run, None))
        self._over(run, time.monotonic(), "its results queue is gone", complete=False)

    def _in_line(self, width: int, queue: str) -> None:
        """Calls are in line again, which others are to be told."""
        self._lookout.filled(queue)
        self._telling.add(width)

    def _copy_came(self, event: Delivered, now: float) -> None:
        """A copy is in our hands, for the first time or again."""
        assert event.tag is not None
        if not event.body:
            self._strangers.ignore(event.queue, BadFrame(NOT_OURS))
            self._connection.ack(event.tag)
            return
        if self._moving.comes_late(event.message_id):
            run, some = calls(event.body)
            self._replies.release(self._held.add(event.message_id, run, some))
        copy = self._held.copy(event.message_id)
        self._moving.came(event.message_id)
        if copy is None:  # finished, or void since its connection broke before the original was acknowledged
            self._connection.ack(event.tag)
            return
        if copy.tag is not None:
            self._connection.ack(copy.tag)
        copy.tag, copy.since, copy.renewing = event.tag, now, False
        run, fresh = copy.run, self._held.begin(copy)
        if not fresh:
            return
        if self._draining or self._runs.stopped(run):
            self.give_back(run, [call.item.place for call in fresh])
            return
        if self._runs.begin(run, now):
            self._orders.append(Begin(run))
            self._announcing.soon()
        buffers = [buffer for call in fresh for buffer in call.buffers]
        self._orders.append(Take(run, [call.item for call in fresh], buffers))

    def _tell(self, message: Pushed) -> None:
        self._connection.publish(self._names.control, "", pack(encode(message)))

    # -- time

    def _tick(self, now: float) -> None:
        if not self._outage.opened:
            self._outage.tick(now)
            self._give_up(now)
            return
        if now >= self._announcing.beat_at:
            self._announcing.announce(now)
            self._renewing.go_on(now)
        if now >= self._again_at:
            self._again_at = now + POST_AGAIN
            self._post.again()
            self._moving.again(now)
            busy = self._held.runs() | self._moving.runs()
            self._orders += [Ended(run, False, why) for run, why in self._runs.idle(busy, now)]
        for queue in self._lookout.search(now):
            self._connection.look_for(queue)
        if now > self._telling.due:
            self._telling.tell(now)
        if now >= self._recall_at:
            self._recall_at = now + RECALL
            if surplus := self._held.surplus(now):
                self._orders += [GiveBack(run, surplus) for run in self._held.holding()]

    def _give_up(self, now: float) -> None:
        """The broker can't be reached: after our patience, what has not begun is no longer ours."""
        if not self._given_up and now - self._outage.since > self._names.patience:
            self._given_up = True
            self._moving.give_up()
            why = f"RabbitMQ can't be reached for {self._names.patience:g} s"
            for run in self._runs.begun():
                self._runs.leave(run)
                self._orders += [GiveBack(run, None), Ended(run, False, why)]
