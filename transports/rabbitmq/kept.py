"""A dispatcher's end of RabbitMQ for runs that are left there: to leave one, to collect it, to cancel it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from executor.errors import ConfigError, ExecutorError, NobodyThere
from executor.messages import Cancel, Pushed, Report
from executor.packed import pack
from executor.sealing import Seal
from transports.base import Jobs, KeepingEnd, Say, wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.dispatcher import PARTING, RabbitDispatcherEnd
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.frames import headers, report_of
from transports.rabbitmq.post import Outcome
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker


class RabbitKeepingEnd(RabbitDispatcherEnd, KeepingEnd):
    """The dispatcher's end for the run of a name, which it leaves in the broker, or finds there (`collects`).

    Under its name stands its manifest; the run itself has an id that no other ever had, so that calls of
    one that was cancelled are none of the next one's of the same name. Each record tells it.

    Raises:
        ConfigError: the URL is none, or the file of authorities can't be used.
    """

    def __init__(
        self, broker: Broker, names: Topology, seal: Seal, name: str, *, say: Say, heartbeat: float,
        largest: int, collects: bool,
    ) -> None:  # fmt: skip
        super().__init__(broker, names, seal, say=say, heartbeat=heartbeat, largest=largest)
        self._stays = True
        self._declares, self._consumes = not collects, collects
        self._name = name
        self._collects = collects
        self._manifest = names.manifest(name)
        self._records: list[tuple[Tag, bytes]] = []
        self._found: dict[str, int | None] = {}  # of queues that were looked for: how much is in each
        self._recorded: list[Tag] = []  # results that were recorded: acknowledged when that is noted
        self._left: Jobs | None = None  # what is to be pushed
        self._claims = False  # that it is the only dispatcher of its run
        self._claimed = False
        self._claimed_at = 0.0  # when another was first found to have claimed what was ours
        self._removing = False
        self._breaks = 0  # connections that broke

    # -- to leave one

    def check_name(self, wait: float | None) -> None:
        self._claim()
        if self._look_for(self._manifest, wait) is not None:
            raise ConfigError(
                f"--run {self._name}: there is a run of that name; collect it (--collect {self._name}), "
                f"or end it (--cancel {self._name})"
            )

    def push(self, jobs: Jobs) -> None:
        self._left = jobs  # until its manifest is there: without it nobody could cancel the run
        self._run = jobs.id

    def keep(self, records: Sequence[bytes], wait: float | None, stopped: Callable[[], bool]) -> bool:
        assert self._left is not None
        *chunks, head = records  # the head comes last: with it the run is whole
        self._declare_manifest()
        for record in chunks:
            self._write(record)
        self._until(lambda: stopped() or not self._post, wait, "pushed")
        if not stopped():
            super().push(self._left)
            self._until(lambda: stopped() or (self._pushed() and not self._post), wait, "pushed")
        if not stopped():
            self._write(head)
            self._until(lambda: not self._post, wait, "pushed")
            self._tell(Pushed(sorted(self._open.counts)))
        return not stopped()

    def _declare_manifest(self) -> None:
        self._connection.declare(self._manifest, self._queues_of_run()[self._manifest])

    def _write(self, record: bytes, done: Callable[[Outcome], None] = lambda outcome: None) -> None:
        self._post.send(self._manifest, record, done, headers=headers(run=self._run))

    def _report(self, report: Report) -> None:
        body = report_of(self._run, pack([report]))
        self._post.send(self._names.results(self._run), body, lambda outcome: None, headers=headers())

    # -- to collect it

    def kept(self, wait: float | None) -> list[bytes]:
        self._claim()
        if self._look_for(self._manifest, wait) is None:
            raise ConfigError(self._none("--collect"))
        while not self._read(None, wait):
            pass  # from the beginning, over a new connection
        return [record for _, record in self._records]

    def gather(self, jobs: Jobs) -> None:
        queues = self._adopt(jobs)
        queues.stands = True
        queues.consume()
        assert self._pushing is not None
        self._pushing.all()

    def acknowledge(self) -> None:
        if self._collects:
            self._recorded += self._acknowledging.hand_over()  # until it is noted
        else:
            super().acknowledge()

    def note(self, record: bytes) -> None:
        tags, self._recorded = self._recorded, []

        def done(outcome: Outcome) -> None:
            self._connection.ack(*tags)

        self._write(record, done)

    def forget(self) -> None:
        self._stays = False

    # -- to end it

    def drop(self, wait: float | None) -> None:
        deadline = time.monotonic() + self._names.noticing
        while not self._run:
            count = self._look_for(self._manifest, wait)
            if count is None:
                raise ConfigError(self._none("--cancel"))
            self._read(1, wait)
            if not count and time.monotonic() > deadline:  # nor does anybody read it just now
                break  # so nothing else was ever there
        if self._run:
            self._tell(Cancel(self._run))
        self._remove(wait)

    def close(self) -> None:
        if not self._closed and self._collects and self._jobs is not None:
            self._part()
        self._stays = True  # all that had to be done is done
        super().close()

    def _part(self) -> None:
        """See that what was noted is safe; or, if all is gathered, that the run is removed."""
        text = ""
        try:
            if self._stays:
                self._until(lambda: not self._post or not self._outage.opened, PARTING, "reached")
            else:
                self._remove(PARTING)
        except ExecutorError:
            text = "" if self._stays else f"--cancel {self._name} removes what is left of the run"
        if self._stays and self._post:
            text = "who collects the rest gets the last of these results again"
        if text:
            self._say(f"can't reach RabbitMQ at {self._connection.address}: {text}")

    def _remove(self, wait: float | None) -> None:
        """Remove the run, and see that it is."""
        self._removing = self._stopping.stopped = True
        if self._queues is not None:
            self._queues.end()
        while True:
            if self._run:
                self._end_run()
            self._connection.delete(self._manifest)
            if self._look_for(self._manifest, wait) is None:
                return

    def _none(self, option: str) -> str:
        return (
            f"{option} {self._name}: there is no run of that name at {self.address}; "
            "one that was collected to its end, or cancelled, is gone"
        )

    def _queues_of_run(self) -> dict[str, dict[str, Any]]:
        return self._names.of_kept_run(self._name, self._run)

    # -- what is there

    def _claim(self) -> None:
        """Be the only dispatcher of the run: what is asked for after this is done when it is."""
        self._claims = True
        if self._outage.opened:
            self._connection.claim(self._names.claim(self._name))

    def _read(self, most: int | None, wait: float | None) -> bool:
        """Read records of the run, which stay there; return whether the connection stood as long as that.

        By a subscription: each `get` from a quorum queue is a write to the broker's disk.
        """
        count = self._look_for(self._manifest, wait) or 0
        count = count if most is None else min(most, count)
        breaks = self._breaks
        self._records.clear()
        if count:
            self._connection.consume(self._manifest, prefetch=most or 0)
        while (read := len(self._records)) < count and self._breaks == breaks:
            self._until(lambda: len(self._records) > read or self._breaks != breaks, wait, "read")
        if count:
            self._connection.stop_consuming(self._manifest)
        for tag, _ in self._records:
            self._connection.reject(tag)
        return self._breaks == breaks

    def _look_for(self, queue: str, wait: float | None) -> int | None:
        """Return how many messages wait in a queue, or None if there is no such queue."""
        while True:
            self._until(lambda: self._outage.opened, wait, "reached")
            breaks = self._breaks
            self._found.pop(queue, None)
            self._connection.look_for(queue)
            self._until(lambda: queue in self._found or self._breaks != breaks, wait, "reached")  # noqa: B023
            if queue in self._found:
                return self._found[queue]

    def _until(self, condition: Callable[[], object], wait: float | None, what: str) -> None:
        """Take turns until a condition holds.

        Raises:
            NobodyThere: it does not within `wait` seconds.
        """
        deadline = None if wait is None else time.monotonic() + max(wait, 1.0)
        while not condition():
            now = self._turn()
            if deadline is not None and now >= deadline:
                raise NobodyThere(
                    f"RabbitMQ at {self._connection.address} could not be {what} within {wait:g} s"
                )
            wait_readable(self._connection.fileno(), min(0.1, self._patience(now)))

    # -- hearing

    def _hear(self, event: events.AMQPEvent, now: float) -> None:
        if isinstance(event, events.Ended) and self._removing:
            return  # by our own doing
        if isinstance(event, events.Found):
            self._claimed, self._claimed_at = self._claims, 0.0  # as that was asked for before
            self._found[event.queue] = event.messages
        if isinstance(event, Delivered) and event.queue == self._manifest:
            if not event.body:
                self._say(f"ignored a stranger's record in {event.queue}")
                return
            if event.tag is not None:
                self._records.append((event.tag, event.body))
            self._run = self._run or str(event.headers.get("run", ""))
            return
        super()._hear(event, now)

    def _open_all(self, event: events.Opened, now: float) -> None:
        if self._claims:
            self._connection.claim(self._names.claim(self._name))
        if self._left is not None and not self._removing:
            self._declare_manifest()
        super()._open_all(event, now)

    def _lose(self, event: events.Lost, now: float) -> None:
        super()._lose(event, now)
        self._breaks += 1
        self._records.clear()
        self._recorded.clear()
        if event.locked:  # by another dispatcher, or by a broken connection of ours
            self._claimed_at = self._claimed_at or now
            if not self._claimed or now - self._claimed_at > self._names.noticing:
                raise ConfigError(
                    f"run {self._name} is being pushed or collected by another dispatcher; "
                    "stop that one, or wait for its end"
                )
