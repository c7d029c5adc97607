"""A dispatcher's end of RabbitMQ: it pushes a run's calls, and gathers its reports.

Who gets which call is the broker's and the workers' business. From the workers' presence the dispatcher knows
who is there and what they have; further attempts are the workers', too, so that a run goes on without it.
"""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from executor.errors import BadFrame, TransportError
from executor.messages import (
    PROTOCOL,
    Alive,
    Buffer,
    Cancel,
    Halt,
    Hello,
    Holding,
    Message,
    Over,
    Pushed,
    Refused,
    Report,
    Reports,
    Who,
    decode,
    decode_read,
    encode,
    share_out,
)
from executor.sealing import Seal
from executor.words import plural
from transports.base import Delivery, DispatcherEnd, Jobs, Say, WorkerView, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.frames import calls, pack, unpack
from transports.rabbitmq.lostwatch import LostWatch
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.parting import part
from transports.rabbitmq.post import Post
from transports.rabbitmq.presence import Open, Presence
from transports.rabbitmq.pushing import Pushing
from transports.rabbitmq.reaping import Reaping
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker

#: Messages of reports that are delivered and not acknowledged, at most.
PREFETCH = 200

#: Messages of reports that are recorded and not acknowledged yet, at most, and for how many seconds.
DONE_MOST, DONE_SECONDS = 50, 0.03

#: Seconds between two lines to all that calls wait.
TELL = 0.1

#: Seconds until workers that did not answer are told again that the run is stopped.
STOP_AGAIN = 0.5

#: Seconds that what a worker first said may be on its way.
FIRST_WORDS = 0.5

#: Seconds that the broker gets at the end to be reached again, and to take what is still to be removed.
PARTING = 5.0

#: Seconds between two looks at the time while there is no connection.
_TICK = 0.2


class RabbitDispatcherEnd(DispatcherEnd):
    """The dispatcher's end of RabbitMQ. All queues are removed at the end if they are `names.temporary`.

    Raises:
        ConfigError: the URL is none, or the file of authorities can't be used.
    """

    def __init__(
        self, broker: Broker, names: Topology, seal: Seal, *, say: Say, heartbeat: float, largest: int
    ) -> None:  # fmt: skip
        me = secrets.token_hex(4)
        self._connection = Connection(
            broker, Envelopes(seal, names), name=f"dispatcher {me}", heartbeat=names.heartbeat
        )
        self.address = f"{self._connection.address}, queue {names.queue}"
        self._me = me
        self._names = names
        self._say = say
        self._heartbeat = heartbeat
        self._largest = largest
        self._run = ""
        self._stays = False  # the run goes on without its dispatcher
        self._stands = False  # its results queue was seen to be there
        self._seeking = False  # ... and is looked for over a new connection
        self._removed = False  # ... and was deleted before our eyes
        self._seeking_earlier: set[str] = set()  # results queues of earlier runs that are looked for
        self._post = Post(self._connection)
        self._reaping = Reaping(self._connection, Mending(self._connection, self._post, names), names)
        self._jobs: Jobs | None = None
        self._continued: Continued | None = None
        self._pushing: Pushing | None = None
        self._settled = False  # what need not be pushed is known
        self._watch = LostWatch(names)
        self._open = Open(())
        self._stopped: type[Halt | Cancel] | None = None  # by what word, if it is
        self._stopped_at = 0.0
        self._stop_again_at = math.inf  # when those that did not answer it are told again
        self._presence = Presence()
        self._refused: set[str] = set()
        self._strangers: set[str] = set()
        self._arrived: list[Delivery] = []
        self._taken: list[int] = []  # places of reports that were returned, and may not have been accepted
        self._doubled: dict[
            int, int
        ] = {}  # by place, the attempt that is ours of what an earlier run reported
        self._tags: list[Tag] = []  # of reports that were returned, or will be
        self._done: list[Tag] = []  # of reports that are recorded, until they are acknowledged together
        self._done_at = 0.0  # when they were last
        self._found: dict[str, int | None] = {}
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
        if self._outage.opened:
            self._open_run()

    def _adopt(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._open = Open(jobs.widths)
        for place in jobs.recorded():
            self._open.close(place)
        self._continued = Continued(self._names, self._run, jobs)
        self._pushing = Pushing(
            self._connection, self._post, self._names, self._run, jobs, self._open,
            largest=self._largest, report=self._report, safe=self._safe,
        )  # fmt: skip

    @property
    def pushed(self) -> int:
        return self._pushing.safe if self._pushing is not None else 0

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        assert self._pushing is not None
        assert self._jobs is not None
        if self._doubled.pop(place, None) == self._jobs.attempt(place):
            self._open.reopen(place)  # that very attempt is in line, or in hands
        elif not self._stopped:
            self._pushing.again(place, alone=alone)
            self._push_on()

    def results(self, timeout: float | None) -> list[Delivery]:
        deadline = None if timeout is None else time.monotonic() + timeout
        self._reopen()
        while True:
            now = self._turn()
            if self._arrived:
                arrived, self._arrived = self._arrived, []
                self._taken = [report.place for delivery in arrived for report in delivery.reports]
                return arrived
            if deadline is not None and now >= deadline:
                return []
            wait = self._patience(now)
            wait_readable(self._connection.fileno(), wait if deadline is None else min(wait, deadline - now))

    def _reopen(self) -> None:
        """What came was accepted: a call whose report was none that counts has another under way."""
        if self._jobs is not None and not self._stopped:
            for place in self._taken:
                if 0 <= place < len(self._open.widths) and not self._jobs.is_recorded(place):
                    self._open.reopen(place)
        self._taken = []

    def acknowledge(self) -> None:
        self._done += self._tags
        self._tags = []
        now = time.monotonic()
        if len(self._done) >= DONE_MOST or now - self._done_at > DONE_SECONDS:
            self._let_go(now)

    def _let_go(self, now: float) -> None:
        """Have the broker forget what is recorded: together, as it writes each word of that to its disk."""
        done, self._done = self._done, []
        if done:
            self._done_at = now
            self._connection.ack(*done)

    def workers(self) -> list[WorkerView]:
        return self._presence.views(self._places, self._open, self._continued, time.monotonic())

    def waiting(self) -> dict[int, int]:
        held = Counter(self._open.widths[p] for p in self._presence.held(self._places) if p in self._open)
        left = {width: count - held[width] for width, count in sorted(self._open.counts.items())}
        return {width: count for width, count in left.items() if count > 0}

    def withdraw(self, width: int | None = None) -> list[int]:
        held = self._presence.held(self._places)
        found = [
            place for place in self._open if width in (None, self._open.widths[place]) and place not in held
        ]
        for place in found:  # a worker that finds one later finds that its run is over
            self._open.close(place)
        return found

    def halt(self) -> None:
        self._stop(Halt)

    def cancel(self) -> None:
        self._stop(Cancel)

    def _stop(self, kind: type[Halt | Cancel]) -> None:
        self._stopped = kind
        self._stopped_at = time.monotonic()
        self._presence.stop(self._run)
        self._tell_stopped(self._stopped_at)

    def _tell_stopped(self, now: float) -> None:
        self._stop_again_at = math.inf if self._stopped is None else now + STOP_AGAIN
        if self._stopped is not None:
            for run in self._runs():  # ours last: who answers that has heard the others
                self._tell(self._stopped(run))

    @property
    def knows_all(self) -> bool:
        # A worker's first words may still be on their way, although it has calls.
        return not self._listening or time.monotonic() - self._stopped_at > FIRST_WORDS

    def _runs(self) -> list[str]:
        """Return the runs that are told of: the own one, and those that it continues."""
        return [self._run] if self._continued is None else self._continued.all()

    def _places(self, holding: Holding) -> list[int]:
        return [] if self._continued is None else self._continued.places(holding)

    def worker_died(self, pid: int) -> None:
        for hello in self._presence.died(socket.gethostname(), pid):
            self._miss(hello, "its process died")
            self._reaping.died(hello.instance, time.monotonic())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._let_go(time.monotonic())
        begun = self._jobs is not None and (self._listening or self._jobs.earlier)  # something may be there
        if begun and not (self._stays or self.resumable):
            results = self._names.results(self._run)
            if not part(self._connection, self._outage, results, self._part, PARTING):
                left = f"what is left of the run there goes by itself in {max(self._names.keep, PARTING):g} s"
                self._say(f"can't reach RabbitMQ at {self._connection.address}: {left}")
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
        ats = [self._beat_at, self._reaping.look_at]
        if not self._watch.asking and self._watches():
            ats.append(self._watch.look_at)
        if not self._presence.answered:
            ats.append(self._stop_again_at)
        if self._fresh:
            ats.append(self._told_at + TELL)
        if self._done:
            ats.append(self._done_at + DONE_SECONDS)
        return max(0.0, min(ats) - now)

    def _hear(self, event: events.AMQPEvent, now: float) -> None:
        if isinstance(event, events.Opened):
            self._open_all(event, now)
        elif isinstance(event, events.Lost):
            self._lose(event, now)
        elif isinstance(event, events.Ended):
            self._removed = self._removed or event.queue == self._names.results(self._run)
            self._connection.break_off(f"the broker ended the subscription to {event.queue}")
        elif isinstance(event, events.Blocked):
            self._outage.blocks(event)
        elif isinstance(event, events.Confirmed):
            self._post.confirmed(event)
        elif isinstance(event, events.Found):
            self._found[event.queue] = event.messages
            self._find(event, now)
        elif isinstance(event, events.Empty):
            self._reaping.empty()
        elif isinstance(event, events.Fetched):
            pass  # none is asked for: a dispatcher takes what came back one by one
        elif event.queue == self._listening:
            self._meet(event, now)
        elif self._continued is not None and (run := self._continued.run_of(event.queue)) is not None:
            self._take(event, run)
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
        self._watch.reset(now)
        if self._stands:
            self._seeking = True
            self._connection.look_for(names.results(self._run))
        elif self._jobs is not None:
            self._open_run()
        self._post.opened()
        self._tell(Who())
        self._beat_at = 0.0

    def _find(self, event: events.Found, now: float) -> None:
        """Take the answer whether a queue is there, and how much is in it."""
        there = event.messages is not None
        if self._seeking and event.queue == self._names.results(self._run):
            self._seeking = False
            self._find_run(there)
        elif self._continued is not None and event.queue in self._seeking_earlier:
            self._find_earlier(self._continued, event.queue, there)
        elif event.queue in self._reaping:
            self._reaping.found(event)
        elif event.queue in self._watch:
            if not there:
                self._declare_again(event.queue)
            elif event.queue == self._names.results(self._run):
                self._stands = True
            lost = self._watch.found(event.queue, event.messages, self._unheld, now)
            if lost and self._pushing is not None and self._watches():
                self._say_lost(self._pushing.anew(lost))

    def _find_run(self, there: bool) -> None:
        """Go on with our run over a new connection, if its results queue is there.

        Without it somebody has removed the run, and means it: if it was deleted before our eyes, or if it was
        left in the broker, where it is removed from elsewhere. Otherwise the broker has lost it, as its data
        was wiped or we were away for too long; a run whose dispatcher is there goes on.
        """
        if there:
            self._removed = False
            if self._jobs is not None:
                self._open_run()
        elif self._stays or self._removed:
            raise TransportError(
                f"the run is gone from {self.address}: it was cancelled, or its results queue deleted"
            )
        else:
            self._stands = False
            self._open_run()
            self._tell(Alive(self._run))  # to workers that have found it gone
            if self._pushing is not None:
                self._say_lost(self._pushing.lost())

    def _find_earlier(self, continued: Continued, queue: str, there: bool) -> None:
        """Gather an earlier run's reports, too; if it is gone, its calls are ours."""
        run = continued.run_of(queue)
        assert run is not None
        self._seeking_earlier.discard(queue)
        continued.found(run, there)
        if there:
            self._connection.consume(queue, prefetch=PREFETCH)
            self._tell(Alive(run))
        elif self._settled and self._pushing is not None:
            self._say_lost(self._pushing.strayed(continued.left()))

    def _declare_again(self, queue: str) -> None:
        """Somebody deleted a queue that calls wait in: workers and we need it."""
        names = self._names
        for some in (names.common(), *(names.of_width(width) for width in self._open.counts)):
            if queue in some:
                self._connection.declare(queue, some[queue])

    def _say_lost(self, places: list[int]) -> None:
        if places:
            self._say(f"the broker has lost {plural(len(places), 'task')}; pushed again")

    def _open_run(self) -> None:
        """Declare what the run needs; have its reports delivered, and those of the runs that it continues."""
        self._declare_run()
        self._consume()
        if self._continued is not None:
            self._seeking_earlier = {self._names.results(run) for run in self._continued.sought()}
            for queue in self._seeking_earlier:
                self._connection.look_for(queue)

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
        self._tags.clear()  # they come again, and are known by their places
        self._done.clear()
        self._reaping.lost()
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

    def _take(self, event: Delivered, run: str) -> None:
        """Take reports of this run, or of one that it continues."""
        assert event.tag is not None
        assert self._continued is not None
        assert self._jobs is not None
        try:
            message, buffers = decode_read(unpack(event.body))
            if not isinstance(message, Reports) or message.run != run:
                raise BadFrame(f"reports of run {run} were expected")
        except BadFrame as bad:
            self._stranger(event.queue, bad)
            self._connection.ack(event.tag)
            return
        reports: Sequence[Report] = message.items
        shares: dict[int, list[Buffer]] = share_out(reports, buffers) if buffers else {}
        if run != self._run:
            reports, shares = self._translate(run, reports, shares)
        elif self._doubled:
            for report in reports:
                self._doubled.pop(report.place, None)
        for report in reports:
            if report.attempt > 1:
                self._jobs.tried(report.place, report.attempt)
        for width in self._open.close_all([report.place for report in reports]):
            self._watch.reported(width)
        if reports:
            worker, host = event.headers.get("worker"), event.headers.get("host")
            self._arrived.append(Delivery(worker, host, reports, shares))
            self._tags.append(event.tag)
        else:  # nobody will acknowledge it
            self._connection.ack(event.tag)

    def _translate(
        self, run: str, some: Sequence[Report], shares: dict[int, list[Buffer]]
    ) -> tuple[list[Report], dict[int, list[Buffer]]]:
        """Return an earlier run's reports of tasks that are ours, with our places, and their buffers."""
        assert self._continued is not None
        assert self._jobs is not None
        reports: list[Report] = []
        ours: dict[int, list[Buffer]] = {}
        for index, report in enumerate(some):
            place = self._continued.place_of(run, report.place)
            if place is None:  # of a task that is none of ours any more
                continue
            report.place = place
            if place in self._open and self._pushing is not None and self._pushing.has(place):
                self._doubled[place] = self._jobs.attempt(place)
            if index in shares:
                ours[len(reports)] = shares[index]
            reports.append(report)
        return reports, ours

    def _mend(self, event: Delivered) -> None:
        """Calls came back whose worker vanished; of which run does not matter."""
        try:
            run, some = calls(event.body)
        except BadFrame as bad:
            self._reaping.empty()
            self._stranger(event.queue, bad)
            if event.tag is not None:
                self._connection.ack(event.tag)
            return
        self._reaping.came(event, run, some)

    def _stranger(self, queue: str, bad: BadFrame) -> None:
        if queue not in self._strangers:
            self._strangers.add(queue)
            self._say(f"ignored a stranger's message in {queue}: {bad}")

    # -- pushing

    def _pushed(self) -> bool:
        return self._pushing is not None and self._settled and self._pushing.complete

    def _push_on(self) -> None:
        """Push what neither workers nor the broker have, once that is known."""
        if self._pushing is None or self._continued is None:
            return
        if not self._outage.opened or self._stopped or self.paused or not self._continued.known:
            return
        if not self._settled:
            self._settled = True
            self._pushing.skip(self._continued.left())
            self._pushing.skip(self._presence.held(self._places))
        self._pushing.go_on()

    def _report(self, report: Report) -> None:
        """Report of a call that goes nowhere."""
        self._arrived.append(Delivery(None, None, [report]))
        self._open.close(report.place)

    def _safe(self, width: int) -> None:
        """Calls of a width are in line."""
        self._stands = True  # as it was declared before
        self._fresh.add(width)

    # -- what the broker has lost

    def _watches(self) -> bool:
        """Whether all is in line, so that what is nowhere is lost."""
        if not self._outage.opened or self._outage.blocked or self._stopped or self.paused:
            return False
        return self._pushed() and not self._post and not self._seeking and not self._seeking_earlier

    def _unheld(self, widths: Collection[int]) -> dict[int, list[int]]:
        """Return by width the places of the calls that have no report, and that no worker has."""
        held = self._presence.held(self._places)
        found: dict[int, list[int]] = {width: [] for width in widths}
        for place in self._open:
            if (width := self._open.widths[place]) in found and place not in held:
                found[width].append(place)
        return found

    def _look_for_lost(self, now: float) -> None:
        if self._continued is None:
            return
        if not self._watches():
            self._watch.reset(now)
            return
        if widths := self.waiting():
            results = [self._names.results(run) for run in self._continued.present()]
            for queue in self._watch.ask(widths, results, now):
                self._connection.look_for(queue)
        else:
            self._watch.reset(now)

    def _tell(self, message: Message) -> None:
        self._connection.publish(self._names.control, "", pack(encode(message)))

    # -- time

    def _tick(self, now: float) -> None:
        if not self._outage.opened:
            self._outage.tick(now)
            return
        if now >= self._beat_at:
            if now - self._beat_at > self._heartbeat:  # we were held up: what they said may lie unread
                self._presence.forgive(now)
            self._beat_at = now + self._heartbeat
            self._post.again()
            if self._jobs is not None and not self._stays:
                for run in self._continued.present() if self._continued is not None else ():
                    self._tell(Alive(run))
            for hello, seconds in self._presence.silent(now, self._names.patience):
                self._miss(hello, f"silent for {seconds:.0f} s")
        if now >= self._stop_again_at and not self._presence.answered:
            self._tell_stopped(now)
        if self._done and now - self._done_at > DONE_SECONDS:
            self._let_go(now)
        if self._fresh and now - self._told_at > TELL:
            self._told_at = now
            self._tell(Pushed(sorted(self._fresh)))
            self._fresh.clear()
        self._reaping.tick(now)
        if now >= self._watch.look_at and not self._watch.asking:
            self._look_for_lost(now)

    def _miss(self, hello: Hello, why: str) -> None:
        held = sum(place in self._open for place in self._places(hello.holding))
        self._say(f"worker {hello.name} on {hello.host} is gone ({why}); it held {held} unfinished")

    def _part(self) -> None:
        self.acknowledge()
        self._let_go(time.monotonic())
        self._connection.declare_fanout(self._names.control)  # which a broker whose data were wiped lacks
        self._end_run()

    def _end_run(self) -> None:
        """Tell all that the run is over, and remove what it has in the broker."""
        for run in self._runs():
            self._tell(Over(run))
            self._connection.delete(self._names.results(run))
        for queue in self._queues_of_run():
            self._connection.delete(queue)
        if self._names.temporary:
            names = self._names
            queues = [name for width in self._open.counts for name in names.of_width(width)]
            for queue in [*queues, *names.common()]:
                self._connection.delete(queue)
            for exchange in (names.control, names.presence):
                self._connection.delete_exchange(exchange)
