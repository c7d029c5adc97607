"""A worker's end of RabbitMQ.

It fetches (`basic.get`) rather than subscribes: only so can it take the narrowest first and no more than can
start soon. What it fetched, it moves: a copy into a queue of its own, confirmed, then it acknowledges the
original. A call is handed to the pool when the copy was delivered; from then on, and only then, it may
have begun. So the broker itself knows who has what, and whether a worker that vanished may have begun it: no
delivery count says that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from executor.errors import BadFrame
from executor.messages import (
    Alive,
    Buffer,
    Cancel,
    Halt,
    Hello,
    Message,
    Over,
    Pushed,
    Refused,
    Report,
    Who,
    decode,
    encode,
    share_out,
)
from executor.session import Begin, Ended, GiveBack, Order, Stop, Take
from executor.task import tries_again
from transports.base import Say, WorkerEnd, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.frames import Call, beyond, body_of, calls, in_bodies, pack, report_of, unpack
from transports.rabbitmq.held import Copy, Entry, Held, Key
from transports.rabbitmq.mending import Mending, headers
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.topology import Topology

#: Seconds until a queue that was empty is looked into again, unless somebody says that calls wait there.
LOOK_AGAIN = 1.0

#: Seconds until it is looked again for queues of widths that there were none of.
LOOK_FOR_WIDTHS = 60.0

#: Seconds without anything of a run, and without its dispatcher, after which it counts as left.
RUN_IDLE = 5.0

#: Seconds in which a run's results queue need not be looked for again.
RUN_KNOWN = 10.0

#: Seconds in which nothing is fetched after calls came that another version pushed.
FOREIGN = 5.0

#: Seconds between two looks at the time while there is no connection.
_TICK = 0.2

#: Seconds between two lines to all that calls were put back.
TELL = 0.1

#: Seconds between two looks for calls that wait behind others for too long.
RECALL = 0.25

#: Seconds until what the broker did not take is published again.
POST_AGAIN = 1.0


class _Move:
    """Calls on their way from a common queue into the worker's own."""

    __slots__ = ("acknowledged", "fresh", "open", "run", "tag")

    def __init__(self, run: str, tag: Tag, fresh: list[Call]) -> None:
        self.run = run
        self.tag = tag
        self.fresh = fresh  # handed to the owner when the copy came
        self.open = 0  # publications that are not confirmed
        self.acknowledged = False


class _Run:
    """A run of which this worker has, or lately had, calls."""

    __slots__ = ("begun", "dispatcher_at", "known_at", "last_at", "stopped")

    def __init__(self, now: float) -> None:
        self.begun = False
        self.stopped = False  # none of its calls is begun any more
        self.known_at = -RUN_KNOWN  # when it was last seen that its results queue is there
        self.last_at = now
        self.dispatcher_at: float | None = None


class RabbitWorkerEnd(WorkerEnd):
    """The worker's end of RabbitMQ."""

    def __init__(
        self, url: str, names: Topology, hello: Hello, *, say: Say, heartbeat: float, largest: int
    ) -> None:
        self.largest = largest
        self._connection = Connection(url, name=f"worker {hello.name}", heartbeat=names.patience)
        self.address = f"{self._connection.address}, queue {names.queue}"
        self._names = names
        self._hello = hello
        self._say = say
        self._heartbeat = heartbeat
        self._post = Post(self._connection)
        self._mending = Mending(self._connection, self._post, names)
        self._held = Held(hello.cores, backfill=hello.backfill)
        self._own: dict[str, dict[str, Any]] = {}  # its own queues, with their arguments
        self._listening = ""  # the queue in which it hears what is told to all
        self._moves: dict[str, _Move] = {}
        self._runs: dict[str, _Run] = {}
        self._orders: list[Order] = []
        self._widths: list[int] = []
        self._looked_for_widths_at = 0.0
        self._empty_until: dict[str, float] = {}
        self._getting = ""
        self._checking: tuple[Delivered, str, list[Call]] | None = None  # until its run is known
        self._copies = 0
        self._outage = Outage(self._connection.address, say)
        self._given_up = True  # what had not begun when the connection broke
        self._pause_until = 0.0
        self._beat_at = 0.0
        self._again_at = 0.0
        self._waiting: set[int] = set()  # widths of calls that we put back, which is still to be told
        self._told_at = 0.0
        self._recall_at = 0.0
        self._refusals: set[str] = set()
        self._strangers: set[str] = set()
        self._draining = False
        self._closed = False

    # -- the contract

    def pull(self, timeout: float | None) -> list[Order]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            now = time.monotonic()
            for event in self._connection.take():
                self._hear(event, now)
            self._tick(now)
            self._fetch(now)
            if self._orders or (deadline is not None and now >= deadline):
                orders, self._orders = self._orders, []
                return orders
            wait = self.patience()
            wait_readable(self._connection.fileno(), wait if deadline is None else min(wait, deadline - now))

    def reply(self, run: str, reports: Sequence[Report], buffers: Sequence[Buffer]) -> None:
        now = time.monotonic()
        self._touch(run, now)
        shares = share_out(reports, buffers)
        final: list[tuple[Report, Sequence[Buffer]]] = []
        for index, report in enumerate(reports):
            call = self._held.call(run, report.place)
            if call is None:  # of a run that is over
                continue
            self._held.learn([report], call.item.width, now)
            error = report.error[0] if report.error else ""
            if not self._stopped(run) and tries_again(
                report.status, call.item.attempt, call.item.retries, error
            ):
                call.item.attempt += 1
                self._send_back(run, [call], now)
            else:
                final.append((report, shares.get(index, ())))
        sizes = [
            len(report.value) + len(report.stdout) + len(report.stderr) + sum(len(b) for b in own)
            for report, own in final
        ]
        for part in in_bodies(sizes):
            self._send_reports(run, final[part])

    def give_back(self, run: str, places: Sequence[int]) -> None:
        keys = [Key(run, place) for place in places]
        if self._stopped(run):
            self._finish(keys)
        else:
            self._held.never_begun(keys)
            found = [call for key in keys if (call := self._held.call(*key)) is not None]
            self._send_back(run, found, time.monotonic())

    def drain(self) -> list[Order]:
        self._draining = True
        self._hello.leaving = True
        self._beat_at = 0.0
        return [GiveBack(run, None) for run, each in self._runs.items() if each.begun]

    @property
    def connected(self) -> bool:
        return any(run.begun for run in self._runs.values())

    @property
    def settled(self) -> bool:
        return not (self._post or self._moves or self._held or self._checking or self._getting)

    def fileno(self) -> int:
        return self._connection.fileno()

    def patience(self) -> float:
        if self._connection.ready():
            return 0.0
        now = time.monotonic()
        if not self._outage.opened:
            return _TICK
        ats = [self._beat_at, self._again_at, *(at for at in self._empty_until.values() if at > now)]
        if self._held.excess:
            ats.append(self._recall_at)
        if self._waiting:
            ats.append(self._told_at + TELL)
        return max(0.0, min(ats) - now)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._outage.opened:
            self._hello.leaving = True
            self._announce(self._names.presence, self._greeting())
            if self.settled:
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
            self._got_nothing(event.queue, now)
        elif isinstance(event, events.Found):
            self._found(event, now)
        elif event.queue == self._listening:
            self._obey(event, now)
        elif event.queue in self._own:
            self._copy_came(event, now)
        else:
            self._got(event, now)

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
        self._widths = []  # somebody may have deleted queues, and who fetches from none is cut off
        self._looked_for_widths_at = self._beat_at = 0.0
        self._empty_until.clear()

    def _lose(self, event: events.Lost, now: float) -> None:
        """The connection broke: what was being fetched is void, what we have waits for the next."""
        if self._outage.loses(event, now):
            self._given_up = False
        self._getting, self._checking = "", None
        self._mending.lost()
        self._post.lost(event.most)
        for message_id, move in list(self._moves.items()):
            if not move.acknowledged:  # so the original goes back into line
                del self._moves[message_id]
                if (copy := self._held.copy(message_id)) is None or copy.tag is None:
                    self._held.void(message_id)
        self._held.doubt()

    def _obey(self, event: Delivered, now: float) -> None:
        """Take what a dispatcher, or another worker, tells all."""
        try:
            message, _ = decode(unpack(event.body))
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            return
        if isinstance(message, Pushed):
            self._empty_until.clear()
            missing = [width for width in message.widths if width <= self._hello.cores]
            for width in set(missing) - set(self._widths):
                self._connection.look_for(self._names.line(width))
        elif isinstance(message, Who):
            self._beat_at = 0.0
        elif isinstance(message, Refused):
            if message.instance == self._hello.instance:
                self._refuse(message.reason)
        elif isinstance(message, Alive):
            if (run := self._runs.get(message.run)) is not None:
                run.dispatcher_at = now
        elif isinstance(message, Cancel):
            self._stop(message.run, now)
            self._orders.append(Stop(message.run, None))
        elif isinstance(message, Halt):
            self._stop(message.run, now)
            self._orders.append(GiveBack(message.run, None))
        elif isinstance(message, Over):
            self._over(message.run, now)

    def _stop(self, run: str, now: float) -> None:
        self._touch(run, now).stopped = True
        self._beat_at = 0.0

    def _over(self, run: str, now: float, why: str = "its run is over", *, complete: bool = True) -> None:
        """A run is over: nothing of it is wanted any more."""
        known = self._touch(run, now)
        known.stopped = True
        for message_id, move in list(self._moves.items()):
            if move.run == run:
                move.fresh = []
                if not move.open:
                    del self._moves[message_id]
        self._finish(self._held.of_run(run))
        self._held.forget(run)
        if known.begun:
            known.begun = False
            self._orders.append(Ended(run, complete, why))

    def _refuse(self, reason: str) -> None:
        self._pause_until = time.monotonic() + FOREIGN
        if reason not in self._refusals:
            self._refusals.add(reason)
            self._say(f"refused by the dispatcher at {self.address}: {reason}")

    def _stranger(self, queue: str, bad: BadFrame) -> None:
        if queue not in self._strangers:
            self._strangers.add(queue)
            self._say(f"ignored a stranger's message in {queue}: {bad}")

    # -- fetching

    def _fetch(self, now: float) -> None:
        """Ask for the next message, if there is room for what it may hold."""
        if not self._outage.opened or self._getting or self._checking or self._draining or self._held.lone:
            return
        if now < self._pause_until or any(move.open for move in self._moves.values()):
            return
        queue = self._next_queue(now)
        if queue:
            self._getting = queue
            self._connection.get(queue)

    def _next_queue(self, now: float) -> str:
        """Return where to look next: what came back, then the narrowest."""
        idle = not self._held.load and not self._moves
        candidates = [self._names.alone(width) for width in self._widths] if idle else []
        if not self._mending:
            candidates.append(self._names.returned)
        for queue in candidates:
            if self._empty_until.get(queue, 0.0) <= now:
                return queue
        for width in self._widths:
            for queue in (self._names.first(width), self._names.line(width)):
                if self._empty_until.get(queue, 0.0) <= now:
                    return queue if self._held.appetite(width, now) else ""
        return ""

    def _got_nothing(self, queue: str, now: float) -> None:
        if self._getting == queue:
            self._getting = ""
        self._empty_until[queue] = now + LOOK_AGAIN * random.uniform(0.7, 1.3)

    def _found(self, event: events.Found, now: float) -> None:
        """Take the answer whether a queue exists: that of a width, or of a run's results."""
        if self._checking is not None and event.queue == self._names.results(self._checking[1]):
            (delivered, run, some), self._checking = self._checking, None
            known = self._touch(run, now)
            if event.messages is None:
                self._gone(run, now)
            else:
                known.known_at = now
            self._move(delivered, run, some, now)
        elif event.messages is not None:
            width = next(
                (w for w in range(1, self._hello.cores + 1) if self._names.line(w) == event.queue), 0
            )
            if width and width not in self._widths:
                self._widths = sorted([*self._widths, width])

    def _gone(self, run: str, now: float) -> None:
        """A run's results queue is gone: so is the run."""
        if self._touch(run, now).begun:
            self._orders.append(Stop(run, None))
        self._over(run, now, "its results queue is gone", complete=False)

    def _got(self, event: Delivered, now: float) -> None:
        """A message came that was asked for."""
        if self._getting != event.queue or event.tag is None:
            return
        self._getting = ""
        try:
            run, some = calls(event.body)
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            self._connection.ack(event.tag)
            return
        if event.queue == self._names.returned:
            self._mending.mend(event, run, some)
            self._empty_until.clear()
            return
        protocol = event.headers.get("protocol")
        if protocol != self._hello.protocol:
            self._connection.reject(event.tag)
            self._refuse(
                f"it speaks protocol {protocol}, this worker {self._hello.protocol}: use the same version"
            )
            return
        known = self._runs.get(run)
        if known is None or (not known.stopped and now - known.known_at > RUN_KNOWN and not known.begun):
            self._checking = (event, run, some)
            self._connection.look_for(self._names.results(run))
            return
        self._move(event, run, some, now)

    def _move(self, event: Delivered, run: str, some: list[Call], now: float) -> None:
        """Move what we want of a message into our own queue, and the rest to where it comes first."""
        assert event.tag is not None
        some = [call for call in some if not self._held.done_before(run, call)]
        if self._stopped(run) or not some:
            self._connection.ack(event.tag)
            return
        width = some[0].item.width
        count = 1 if some[0].item.lone else max(1, self._held.appetite(width, now))
        ours, rest = some[:count], some[count:]
        self._copies += 1
        message_id = f"{self._hello.instance}.{self._copies}"
        fresh, done = self._held.add(message_id, run, ours)
        self._release(done)
        move = self._moves[message_id] = _Move(run, event.tag, fresh)
        self._touch(run, now)

        def confirmed(some: list[Call], size: int, outcome: Outcome) -> None:
            if outcome is Outcome.TOO_LARGE:  # the broker took it once
                move.fresh = []
                self._post_beyond(run, some, self._held.leave(Key(run, c.item.place) for c in some), size)
            move.open -= 1
            if not move.open and not move.acknowledged:
                move.acknowledged = True
                self._connection.ack(move.tag)
                if not move.fresh and message_id in self._moves:  # the run ended meanwhile
                    del self._moves[message_id]

        move.open = 1 + bool(rest)
        own = self._names.held(self._hello.instance)
        body = body_of(run, ours)
        self._post.send(
            own, body, partial(confirmed, ours, len(body)), message_id=message_id, headers=self._headers(),
            lasts=False,
        )  # fmt: skip
        if rest:
            first = self._names.first(width)
            body = body_of(run, rest)
            self._post.send(first, body, partial(confirmed, rest, len(body)), headers=headers(), lasts=False)
            self._empty_until.pop(first, None)
            self._waiting.add(width)

    def _headers(self) -> dict[str, Any]:
        return headers(worker=self._hello.name, host=self._hello.host)

    def _copy_came(self, event: Delivered, now: float) -> None:
        """A copy is in our hands, for the first time or again."""
        copy = self._held.copy(event.message_id)
        move = self._moves.pop(event.message_id, None)
        assert event.tag is not None
        if copy is None:  # finished, or void since its connection broke before the original was acknowledged
            self._connection.ack(event.tag)
            return
        if copy.tag is not None:
            self._connection.ack(copy.tag)
        copy.tag, copy.since, copy.renewing = event.tag, now, False
        if move is None or not move.fresh:
            return
        if move.open:  # it came before its confirmation; the original is acknowledged then
            self._moves[event.message_id] = move
        run = self._touch(move.run, now)
        if not run.begun:
            run.begun = True
            self._orders.append(Begin(move.run))
            self._beat_at = 0.0
        fresh, move.fresh = move.fresh, []
        self._orders.append(
            Take(
                move.run, [call.item for call in fresh], [buffer for call in fresh for buffer in call.buffers]
            )
        )

    # -- sending

    def _send_reports(self, run: str, some: Sequence[tuple[Report, Sequence[Buffer]]]) -> None:
        left = self._held.leave(Key(run, report.place) for report, _ in some)
        self._post_reports(run, some, left)

    def _post_reports(
        self, run: str, some: Sequence[tuple[Report, Sequence[Buffer]]], left: Sequence[Entry]
    ) -> None:
        """Send reports; when they are safe, what `left` is let go of."""
        body = report_of(run, [report for report, _ in some], [buffer for _, own in some for buffer in own])

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.TOO_LARGE:
                self._post_less(run, some, left, len(body))
                return
            self._release(self._held.arrived(left))
            if outcome is Outcome.NO_QUEUE:
                self._gone(run, time.monotonic())

        self._post.send(self._names.results(run), body, done, headers=self._headers())

    def _post_less(
        self, run: str, some: Sequence[tuple[Report, Sequence[Buffer]]], left: Sequence[Entry], size: int
    ) -> None:
        """Send reports that were too large together one by one, and of one that is too large only that."""
        if len(some) > 1:
            for each in some:
                own = [entry for entry in left if entry.key.place == each[0].place]
                self._post_reports(run, [each], own)
            return
        ((report, _),) = some
        instead = beyond("the result", report.place, size, self._post.most)
        for name in ("attempt", "cores", "started", "finished"):
            setattr(instead, name, getattr(report, name))
        self._post_reports(run, [(instead, ())], left)

    def _post_beyond(self, run: str, some: Sequence[Call], left: Sequence[Entry], size: int) -> None:
        """Report of calls that the broker took once, and does not any more."""
        most = self._post.most
        self._post_reports(
            run, [(beyond("the call", call.item.place, size, most), ()) for call in some], left
        )

    def _send_back(self, run: str, some: Sequence[Call], now: float) -> None:
        """Put calls back into line, first: they are tried again, or were never begun."""
        by_queue: dict[str, list[Call]] = {}
        for call in some:
            width = call.item.width
            queue = self._names.alone(width) if call.item.lone else self._names.first(width)
            by_queue.setdefault(queue, []).append(call)
        for queue, group in by_queue.items():
            for part in in_bodies(call.size for call in group):
                self._send_some_back(run, queue, group[part])

    def _send_some_back(self, run: str, queue: str, some: list[Call]) -> None:
        left = self._held.leave(Key(run, call.item.place) for call in some)
        width = some[0].item.width

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.NO_QUEUE:  # somebody deleted it
                for name, arguments in self._names.of_width(width).items():
                    self._connection.declare(name, arguments)
                self._post.send(queue, body, done, headers=headers())
                return
            if outcome is Outcome.TOO_LARGE:
                self._post_beyond(run, some, left, len(body))
                return
            self._release(self._held.arrived(left))
            self._empty_until.pop(queue, None)
            self._waiting.add(width)

        body = body_of(run, some)
        self._post.send(queue, body, done, headers=headers())

    def _finish(self, keys: Sequence[Key]) -> None:
        """Nothing more is wanted of these calls."""
        self._release(self._held.finish(keys))

    def _release(self, copies: Sequence[Copy]) -> None:
        """Acknowledge copies that stand for nothing any more."""
        for copy in copies:
            if copy.tag is not None:
                self._connection.ack(copy.tag)

    def _announce(self, exchange: str, message: Message) -> None:
        self._connection.publish(exchange, "", pack(encode(message)))

    def _greeting(self) -> Hello:
        self._hello.holding = self._held.holding()
        return self._hello

    # -- time

    def _tick(self, now: float) -> None:
        if not self._outage.opened:
            self._outage.tick(now)
            self._give_up(now)
            return
        if now >= self._beat_at:
            self._beat_at = now + self._heartbeat
            self._announce(self._names.presence, self._greeting())
            self._renew(now)
        if now >= self._again_at:
            self._again_at = now + POST_AGAIN
            self._post.again()
            self._leave_idle_runs(now)
        if not self._looked_for_widths_at or now - self._looked_for_widths_at > LOOK_FOR_WIDTHS:
            self._looked_for_widths_at = now * random.uniform(0.99, 1.0)
            for width in range(1, self._hello.cores + 1):
                if width not in self._widths:
                    self._connection.look_for(self._names.line(width))
        if self._waiting and now - self._told_at > TELL:
            self._told_at = now
            self._announce(self._names.control, Pushed(sorted(self._waiting)))
            self._waiting.clear()
        if now >= self._recall_at:
            self._recall_at = now + RECALL
            if surplus := self._held.surplus(now):
                self._orders += [GiveBack(run, surplus) for run in self._held.holding()]

    def _renew(self, now: float) -> None:
        """Publish copies anew before the broker finds that they take too long to be acknowledged."""
        for copy in self._held.copies():
            if not copy.renewing and now - copy.since > self._names.acknowledgement_timeout / 2:
                copy.renewing = True

                def confirmed(outcome: Outcome) -> None:
                    """Nothing to do yet: the old copy is acknowledged when the new one comes."""

                self._post.send(
                    self._names.held(self._hello.instance), body_of(copy.run, self._held.calls_of(copy)),
                    confirmed, message_id=copy.id, headers=self._headers(), lasts=False,
                )  # fmt: skip

    def _give_up(self, now: float) -> None:
        """The broker can't be reached: after our patience, what has not begun is no longer ours."""
        if not self._given_up and now - self._outage.since > self._names.patience:
            self._given_up = True
            for name, run in self._runs.items():
                if run.begun:
                    run.begun = False
                    why = f"RabbitMQ can't be reached for {self._names.patience:g} s"
                    self._orders += [GiveBack(name, None), Ended(name, False, why)]

    def _leave_idle_runs(self, now: float) -> None:
        for name, run in list(self._runs.items()):
            if self._held.of_run(name) or any(move.run == name for move in self._moves.values()):
                run.last_at = now
                continue
            patience = self._names.patience
            silent = run.dispatcher_at is not None and now - run.dispatcher_at > patience
            if run.begun and (silent or (run.dispatcher_at is None and now - run.last_at > RUN_IDLE)):
                run.begun = False
                why = (
                    f"its dispatcher is silent for {patience:g} s" if silent else "nothing more of it is here"
                )
                self._orders.append(Ended(name, False, why))
            elif not run.begun and now - run.last_at > 10 * RUN_IDLE:
                del self._runs[name]

    def _touch(self, run: str, now: float) -> _Run:
        known = self._runs.get(run)
        if known is None:
            known = self._runs[run] = _Run(now)
        known.last_at = now
        return known

    def _stopped(self, run: str) -> bool:
        return run in self._runs and self._runs[run].stopped
