"""What leaves a worker's hands, and is held until it is safe: reports, and calls that go back into line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from executor.messages import Buffer, Hello, Report
from executor.packed import Packed, join, pack
from executor.task import tries_again
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.frames import BODY_BYTES, Call, beyond, body_of, headers, in_bodies, report_of
from transports.rabbitmq.held import Copy, Entry, Held
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.topology import Topology

#: Seconds that reports wait for others, while calls in hand keep the cores busy: the broker writes each
#: message to its disk, and that costs it as much as a hundred tiny calls.
LINGER = 0.02

#: Reports that wait no longer, when there are so many.
ENOUGH = 2048


class Replies:
    """Publishes for the worker that `hello` introduces; `now` is its clock, in seconds.

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
        self._waiting: dict[str, list[tuple[Packed, list[Entry]]]] = {}  # reports to be sent together
        #: When what waits is to be sent.
        self.due = math.inf

    def __bool__(self) -> bool:
        """Whether reports wait to be sent."""
        return bool(self._waiting)

    def report(self, run: str, reports: Packed, places: Iterable[int], now: float) -> None:
        """Send reports of a run, which are of the calls at these places; soon, if calls are in hand."""
        waiting = self._waiting.setdefault(run, [])
        waiting.append((reports, self._held.leave(run, places)))
        self.due = min(self.due, now + LINGER)
        if not self._held.load or sum(each.count for each, _ in waiting) >= ENOUGH:
            self.due = now
        self.tick(now)

    def final(self, run: str, reports: Packed, *, stopped: bool) -> tuple[Packed, list[int]]:
        """Return the reports after which a call is not tried again, and their places; put back what is.

        Of a run that is `stopped` nothing is.
        """
        final: list[Report] = []
        buffers: list[Buffer] = []
        for report, own in reports.each():
            call = self._held.call(run, report.place)
            if call is None:  # of a run that is over
                continue
            error = report.error[0] if report.error else ""
            item = call.item
            if not stopped and tries_again(report.status, item.attempt, item.retries, error):
                item.attempt += 1
                self.put_back(run, [call])
            else:
                final.append(report)
                buffers.extend(own)
        return pack(final, buffers), [report.place for report in final]

    def tick(self, now: float) -> None:
        """Send what has waited long enough."""
        if now >= self.due:
            self.due = math.inf
            for run in list(self._waiting):
                self._publish_waiting(run)

    def forget(self, run: str) -> None:
        """A run is over: nobody waits for its reports."""
        self._waiting.pop(run, None)

    def put_back(self, run: str, some: Sequence[Call]) -> None:
        """Put calls back into line, first: they are tried again, or were never begun."""
        by_queue: dict[str, list[Call]] = {}
        for call in some:
            width = call.item.width
            queue = self._names.alone(width) if call.item.lone else self._names.first(width)
            by_queue.setdefault(queue, []).append(call)
        for queue, group in by_queue.items():
            left = self._held.leave(run, [call.item.place for call in group])
            for part in in_bodies((call.size for call in group), self._most):
                self._put_some_back(run, queue, group[part], left)

    def refuse(self, run: str, some: Sequence[Call], size: int) -> None:
        """Report of calls, together of that size, which the broker took once and does not any more."""
        self._refuse(run, some, self._held.leave(run, [call.item.place for call in some]), size)

    def release(self, copies: Sequence[Copy]) -> None:
        """Acknowledge copies that stand for nothing any more."""
        self._connection.ack(*[copy.tag for copy in copies if copy.tag is not None])

    @property
    def _most(self) -> int:
        """Bytes that one message should have at most."""
        return min(BODY_BYTES, self._post.most or BODY_BYTES)

    def _publish_waiting(self, run: str) -> None:
        """Send the reports of a run that wait, together."""
        waiting = self._waiting.pop(run, [])
        for part in in_bodies((reports.size for reports, _ in waiting), self._most):
            some = waiting[part]
            self._publish(run, join([reports for reports, _ in some]), [e for _, left in some for e in left])

    def _publish(self, run: str, reports: Packed, left: Sequence[Entry]) -> None:
        """Send reports; when they are safe, what `left` is let go of."""
        if reports.size > BODY_BYTES and reports.count > 1:
            self._publish_in_parts(run, reports, left, BODY_BYTES)
            return
        body = report_of(run, reports)

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.TOO_LARGE and reports.count > 1:
                self._publish_in_parts(run, reports, left, 0)
            elif outcome is Outcome.TOO_LARGE:
                self._publish_instead(run, reports, left, len(body))
            else:
                self.release(self._held.arrived(run, left))
                if outcome is Outcome.NO_QUEUE:
                    self._gone(run)

        self._post.send(self._names.results(run), body, done, headers=self._headers)

    def _publish_in_parts(self, run: str, reports: Packed, left: Sequence[Entry], most: int) -> None:
        """Send reports that are too large together in messages of `most` bytes, or of one report."""
        entries = {entry.place: entry for entry in left}
        each = list(reports.each())
        for part in in_bodies((_size(report, own) for report, own in each), most):
            some = each[part]
            own = [buffer for _, buffers in some for buffer in buffers]
            places = [report.place for report, _ in some]
            theirs = [entries[place] for place in places if place in entries]
            self._publish(run, pack([report for report, _ in some], own), theirs)

    def _publish_instead(self, run: str, reports: Packed, left: Sequence[Entry], size: int) -> None:
        """Send, in place of a report that is too large, only that it is."""
        (report,) = reports.reports()
        instead = beyond("the result", report.place, size, self._post.most)
        for name in ("attempt", "cores", "started", "finished"):
            setattr(instead, name, getattr(report, name))
        self._publish(run, pack([instead]), left)

    def _put_some_back(self, run: str, queue: str, some: Sequence[Call], entries: Sequence[Entry]) -> None:
        """Put calls back together; their `entries`, among others, are let go of when they are safe."""
        places = {call.item.place for call in some}
        left = [entry for entry in entries if entry.place in places]
        width = some[0].item.width
        body = body_of(run, some)

        def done(outcome: Outcome) -> None:
            if outcome is Outcome.NO_QUEUE:  # somebody deleted it
                for name, arguments in self._names.of_width(width).items():
                    self._connection.declare(name, arguments)
                self._post.send(queue, body, done, headers=headers())
            elif outcome is Outcome.TOO_LARGE and len(some) > 1:
                half = len(some) // 2
                for part in (some[:half], some[half:]):
                    self._put_some_back(run, queue, part, left)
            elif outcome is Outcome.TOO_LARGE:
                self._refuse(run, some, left, len(body))
            else:
                self.release(self._held.arrived(run, left))
                self._back(width, queue)

        self._post.send(queue, body, done, headers=headers())

    def _refuse(self, run: str, some: Sequence[Call], left: Sequence[Entry], size: int) -> None:
        reports = [beyond("the call", call.item.place, size, self._post.most) for call in some]
        self._publish(run, pack(reports), left)


def _size(report: Report, buffers: Sequence[Buffer]) -> int:
    return len(report.value) + len(report.stdout) + len(report.stderr) + sum(map(len, buffers))
