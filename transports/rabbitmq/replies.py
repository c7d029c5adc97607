"""What leaves a worker's hands, and is held until it is safe: reports, and calls that go back into line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from executor.messages import Buffer, Hello, Report
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.frames import Call, beyond, body_of, headers, in_bodies, report_of
from transports.rabbitmq.held import Copy, Entry, Held
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.topology import Topology

#: A report, and the buffers of its value.
Reported: TypeAlias = tuple[Report, Sequence[Buffer]]


class Replies:
    """Publishes for the worker that `hello` introduces.

    `back` is told the width and queue of calls that are in line again, `gone` a run whose results queue is.
    """

    def __init__(
        self, connection: Connection, post: Post, held: Held, names: Topology, hello: Hello, *,
        back: Callable[[int, str], None], gone: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._post = post
        self._held = held
        self._names = names
        self._headers = headers(worker=hello.name, host=hello.host)
        self._back = back
        self._gone = gone

    def report(self, run: str, some: Sequence[Reported]) -> None:
        """Send reports of a run."""
        sizes = [
            len(report.value) + len(report.stdout) + len(report.stderr) + sum(len(b) for b in own)
            for report, own in some
        ]
        for part in in_bodies(sizes):
            left = self._held.leave(run, [report.place for report, _ in some[part]])
            self._publish(run, some[part], left)

    def put_back(self, run: str, some: Sequence[Call]) -> None:
        """Put calls back into line, first: they are tried again, or were never begun."""
        by_queue: dict[str, list[Call]] = {}
        for call in some:
            width = call.item.width
            queue = self._names.alone(width) if call.item.lone else self._names.first(width)
            by_queue.setdefault(queue, []).append(call)
        for queue, group in by_queue.items():
            for part in in_bodies(call.size for call in group):
                self._put_some_back(run, queue, group[part])

    def refuse(self, run: str, some: Sequence[Call], size: int) -> None:
        """Report of calls, together of that size, which the broker took once and does not any more."""
        self._refuse(run, some, self._held.leave(run, [call.item.place for call in some]), size)

    def release(self, copies: Sequence[Copy]) -> None:
        """Acknowledge copies that stand for nothing any more."""
        self._connection.ack(*[copy.tag for copy in copies if copy.tag is not None])

    def _publish(self, run: str, some: Sequence[Reported], left: Sequence[Entry]) -> None:
        """Send reports; when they are safe, what `left` is let go of."""
        body = report_of(run, [report for report, _ in some], [buffer for _, own in some for buffer in own])

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.TOO_LARGE:
                self._publish_less(run, some, left, len(body))
                return
            self.release(self._held.arrived(run, left))
            if outcome is Outcome.NO_QUEUE:
                self._gone(run)

        self._post.send(self._names.results(run), body, done, headers=self._headers)

    def _publish_less(self, run: str, some: Sequence[Reported], left: Sequence[Entry], size: int) -> None:
        """Send reports that were too large together one by one, and of one that is too large only that."""
        if len(some) > 1:
            for each in some:
                own = [entry for entry in left if entry.place == each[0].place]
                self._publish(run, [each], own)
            return
        ((report, _),) = some
        instead = beyond("the result", report.place, size, self._post.most)
        for name in ("attempt", "cores", "started", "finished"):
            setattr(instead, name, getattr(report, name))
        self._publish(run, [(instead, ())], left)

    def _put_some_back(self, run: str, queue: str, some: list[Call]) -> None:
        left = self._held.leave(run, [call.item.place for call in some])
        width = some[0].item.width
        body = body_of(run, some)

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.NO_QUEUE:  # somebody deleted it
                for name, arguments in self._names.of_width(width).items():
                    self._connection.declare(name, arguments)
                self._post.send(queue, body, done, headers=headers())
            elif outcome is Outcome.TOO_LARGE:
                self._refuse(run, some, left, len(body))
            else:
                self.release(self._held.arrived(run, left))
                self._back(width, queue)

        self._post.send(queue, body, done, headers=headers())

    def _refuse(self, run: str, some: Sequence[Call], left: Sequence[Entry], size: int) -> None:
        reports = [beyond("the call", call.item.place, size, self._post.most) for call in some]
        self._publish(run, [(report, ()) for report in reports], left)
