"""A dispatcher's end of RabbitMQ: it pushes a run's calls, and gathers its reports.

Who gets which call is the broker's and the workers' business. From the workers' presence the dispatcher knows
who is there and what they have; further attempts are the workers', too, so that a run goes on without it.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import time
from typing import Any

from executor.errors import BadFrame
from executor.messages import Alive, Cancel, Halt, Hello, Holding, Message, Over, Report, Who, encode
from executor.sealing import Seal
from transports.base import Delivery, DispatcherEnd, Jobs, Say, WorkerView, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.acknowledging import Acknowledging
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Delivered
from transports.rabbitmq.frames import calls, pack
from transports.rabbitmq.greetings import Greetings
from transports.rabbitmq.intake import Intake
from transports.rabbitmq.lostwatch import LostWatch
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.parting import part, remove
from transports.rabbitmq.post import Post
from transports.rabbitmq.presence import Open, Presence
from transports.rabbitmq.pushing import Pushing
from transports.rabbitmq.reaping import Reaping
from transports.rabbitmq.restoring import Restoring
from transports.rabbitmq.runqueues import RunQueues
from transports.rabbitmq.stopping import Stopping
from transports.rabbitmq.strangers import Strangers
from transports.rabbitmq.telling import Telling
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.unheld import Unheld
from transports.rabbitmq.words import Broker

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
        self._declares = self._consumes = True  # the run's queues are made, and its reports delivered here
        self._post = Post(self._connection)
        self._reaping = Reaping(self._connection, Mending(self._connection, self._post, names), names)
        self._acknowledging = Acknowledging(self._connection)
        self._watch = LostWatch(names)
        self._open = Open(())
        self._presence = Presence()
        self._unheld = Unheld(self._open, self._presence, self._places)
        self._strangers = Strangers(say)
        self._greetings = Greetings(self._presence, self._strangers, say=say, tell=self._tell)
        self._stopping = Stopping(self._presence, self._runs, self._tell)
        self._telling = Telling(self._tell)
        # What there is once the run is known:
        self._jobs: Jobs | None = None
        self._continued: Continued | None = None
        self._queues: RunQueues | None = None
        self._pushing: Pushing | None = None
        self._intake: Intake | None = None
        self._restoring: Restoring | None = None
        self._beat_at = 0.0
        self._outage = Outage(self._connection.address, say)
        self._listening = ""
        self._closed = False

    # -- the contract

    def push(self, jobs: Jobs) -> None:
        self._run = jobs.id
        queues = self._adopt(jobs)
        if self._outage.opened:
            queues.open()

    def _adopt(self, jobs: Jobs) -> RunQueues:
        """Make what deals with a run; return what deals with its queues, which are as they were yet."""
        names, own = self._names, self._run
        self._jobs = jobs
        self._open = Open(jobs.widths)
        for place in jobs.recorded():
            self._open.close(place)
        self._unheld = Unheld(self._open, self._presence, self._places)
        self._continued = Continued(names, own, jobs)
        self._pushing = Pushing(
            self._connection, self._post, names, own, jobs, self._open,
            largest=self._largest, report=self._report, safe=self._safe,
        )  # fmt: skip
        self._intake = Intake(
            self._connection, own, jobs, self._open, self._continued, self._pushing, self._watch,
            self._acknowledging, self._strangers,
        )  # fmt: skip
        self._restoring = Restoring(
            self._connection, names, own, self._watch, self._unheld, self._continued, self._pushing, self._say
        )
        self._queues = RunQueues(
            self._connection, names, own, self._queues_of_run(), self._open, self._continued,
            declares=self._declares, consumes=self._consumes, stays=self._stays,
            tell=self._tell, lost=self._restoring.lost,
        )  # fmt: skip
        return self._queues

    @property
    def pushed(self) -> int:
        return self._pushing.safe if self._pushing is not None else 0

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        assert self._pushing is not None
        assert self._intake is not None
        if self._intake.was_doubled(place):
            self._open.reopen(place)
        elif not self._stopping.stopped:
            self._pushing.again(place, alone=alone)
            self._push_on()

    def results(self, timeout: float | None) -> list[Delivery]:
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._intake is not None and not self._stopping.stopped:
            self._intake.reopen()
        while True:
            now = self._turn()
            if self._intake is not None and self._intake.arrived:
                return self._intake.give_out()
            if deadline is not None and now >= deadline:
                return []
            wait = self._patience(now)
            wait_readable(self._connection.fileno(), wait if deadline is None else min(wait, deadline - now))

    def acknowledge(self) -> None:
        self._acknowledging.record(time.monotonic())

    def workers(self) -> list[WorkerView]:
        return self._presence.views(self._places, self._open, self._continued, time.monotonic())

    def waiting(self) -> dict[int, int]:
        return self._unheld.counts()

    def withdraw(self, width: int | None = None) -> list[int]:
        return self._unheld.withdraw(width)

    def halt(self) -> None:
        self._stopping.stop(Halt, self._run, time.monotonic())

    def cancel(self) -> None:
        self._stopping.stop(Cancel, self._run, time.monotonic())

    @property
    def knows_all(self) -> bool:
        return not self._listening or self._stopping.heard_first_words(time.monotonic())

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
        self._acknowledging.let_go(time.monotonic())
        begun = self._jobs is not None and (self._listening or self._jobs.earlier)  # something may be there
        if begun and not (self._stays or self.resumable):
            results = self._names.results(self._run)
            if not part(self._connection, self._outage, results, self._part, PARTING):
                left = f"what is left of the run there goes by itself in {max(self._names.keep, PARTING):g} s"
                self._say(f"can't reach RabbitMQ at {self._connection.address}: {left}")
        self._connection.close()

    # -- hearing and telling

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
        ats = [self._beat_at, self._reaping.look_at, self._telling.due, self._acknowledging.due]
        if not self._watch.asking and self._watches():
            ats.append(self._watch.look_at)
        if not self._presence.answered:
            ats.append(self._stopping.again_at)
        return max(0.0, min(ats) - now)

    def _hear(self, event: events.AMQPEvent, now: float) -> None:
        if isinstance(event, events.Opened):
            self._open_all(event, now)
        elif isinstance(event, events.Lost):
            self._lose(event, now)
        elif isinstance(event, events.Ended):
            if self._queues is not None:
                self._queues.ended(event.queue)
            self._connection.break_off(f"the broker ended the subscription to {event.queue}")
        elif isinstance(event, events.Blocked):
            self._outage.blocks(event)
        elif isinstance(event, events.Confirmed):
            self._post.confirmed(event)
        elif isinstance(event, events.Found):
            self._find(event, now)
        elif isinstance(event, events.Empty):
            self._reaping.empty()
        elif isinstance(event, events.Fetched):
            pass  # none is asked for: a dispatcher takes what came back one by one
        elif event.queue == self._listening:
            self._greetings.came(event, now)
        elif self._intake is None or not self._intake.take(event):
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
        if self._queues is not None:
            self._queues.opened()
        self._post.opened()
        self._tell(Who())
        self._beat_at = 0.0

    def _find(self, event: events.Found, now: float) -> None:
        """Take the answer whether a queue is there, and how much is in it."""
        there = event.messages is not None
        if self._queues is not None and self._queues.found(event.queue, there=there):
            if there:  # who pushed what is in line may have had no time to tell
                self._telling.add_all(self._open.counts)
            return
        if event.queue in self._reaping:
            self._reaping.found(event)
        elif event.queue in self._watch and self._queues is not None and self._restoring is not None:
            self._queues.seen(event.queue, there=there)
            nowhere = self._restoring.found(event, now)
            self._telling.add_all(self._watch.waiting)  # should nobody have heard it
            if nowhere and self._watches():
                self._restoring.nowhere(nowhere)

    def _lose(self, event: events.Lost, now: float) -> None:
        self._outage.loses(event, now)
        self._acknowledging.lost()
        self._reaping.lost()
        self._post.lost(event.most)

    def _mend(self, event: Delivered) -> None:
        """Calls came back whose worker vanished; of which run does not matter."""
        try:
            run, some = calls(event.body)
        except BadFrame as bad:
            self._reaping.empty()
            self._strangers.ignore(event.queue, bad)
            if event.tag is not None:
                self._connection.ack(event.tag)
            return
        self._reaping.came(event, run, some)

    def _tell(self, message: Message) -> None:
        self._connection.publish(self._names.control, "", pack(encode(message)))

    # -- pushing

    def _pushed(self) -> bool:
        return self._pushing is not None and self._pushing.settled and self._pushing.complete

    def _push_on(self) -> None:
        """Push what neither workers nor the broker have, once that is known."""
        if self._pushing is None or self._continued is None:
            return
        if not self._outage.opened or self._stopping.stopped or self.paused or not self._continued.known:
            return
        if not self._pushing.settled:
            held = self._presence.held(self._places)
            self._pushing.settle(itertools.chain(self._continued.left(), held))
        self._pushing.go_on()

    def _report(self, report: Report) -> None:
        """Report of a call that goes nowhere."""
        assert self._intake is not None
        self._intake.report(report)

    def _safe(self, width: int) -> None:
        """Calls of a width are in line."""
        if self._queues is not None:
            self._queues.stands = True  # as it was declared before
        self._telling.add(width)

    # -- what the broker has lost

    def _watches(self) -> bool:
        """Whether all is in line, so that what is nowhere is lost."""
        if not self._outage.opened or self._outage.blocked or self._stopping.stopped or self.paused:
            return False
        return self._pushed() and not self._post and self._queues is not None and not self._queues.seeking

    def _look_for_lost(self, now: float) -> None:
        if self._restoring is None:
            return
        if self._watches():
            self._restoring.look(now)
        else:
            self._watch.reset(now)

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
        if now >= self._stopping.again_at:
            self._stopping.again(now)
        if now > self._acknowledging.due:
            self._acknowledging.let_go(now)
        if now > self._telling.due:
            self._telling.tell(now)
        self._reaping.tick(now)
        if now >= self._watch.look_at and not self._watch.asking:
            self._look_for_lost(now)

    def _miss(self, hello: Hello, why: str) -> None:
        held = sum(place in self._open for place in self._places(hello.holding))
        self._say(f"worker {hello.name} on {hello.host} is gone ({why}); it held {held} unfinished")

    def _part(self) -> None:
        self.acknowledge()
        self._acknowledging.let_go(time.monotonic())
        self._connection.declare_fanout(self._names.control)  # which a broker whose data were wiped lacks
        self._end_run()

    def _end_run(self) -> None:
        """Tell all that the run is over, and remove what it has in the broker."""
        for run in self._runs():
            self._tell(Over(run))
            self._connection.delete(self._names.results(run))
        remove(self._connection, self._names, self._queues_of_run(), self._open.counts)

    def _queues_of_run(self) -> dict[str, dict[str, Any]]:
        return self._names.of_run(self._run)
