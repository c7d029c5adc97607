"""Reports on their way in: of a dispatcher's own run, and of the earlier ones that it continues."""

from __future__ import annotations

from collections.abc import Sequence

from executor.errors import BadFrame
from executor.messages import Buffer, Report, Reports, decode_read, share_out
from transports.base import Delivery, Jobs
from transports.rabbitmq.acknowledging import Acknowledging
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.events import Delivered
from transports.rabbitmq.frames import unpack
from transports.rabbitmq.lostwatch import LostWatch
from transports.rabbitmq.presence import Open
from transports.rabbitmq.pushing import Pushing
from transports.rabbitmq.strangers import Strangers


class Intake:
    """Takes the reports of the runs that are `continued`, of which `own` is the own one.

    Their calls are `open` no more; what is recorded of them is `acknowledging`'s to acknowledge.
    """

    def __init__(
        self, connection: Connection, own: str, jobs: Jobs, open_: Open, continued: Continued,
        pushing: Pushing, watch: LostWatch, acknowledging: Acknowledging, strangers: Strangers,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._own = own
        self._jobs = jobs
        self._open = open_
        self._continued = continued
        self._pushing = pushing
        self._watch = watch
        self._acknowledging = acknowledging
        self._strangers = strangers
        #: What came, until it is given out.
        self.arrived: list[Delivery] = []
        self._given: list[int] = []  # places of reports that were given out, and may not have been accepted
        self._doubled: dict[int, int] = {}  # by place, our attempt at what an earlier run reported

    def take(self, event: Delivered) -> bool:
        """Take reports, if they are of this run, or of one that it continues; return whether they are."""
        run = self._continued.run_of(event.queue)
        if run is None:
            return False
        assert event.tag is not None
        try:
            message, buffers = decode_read(unpack(event.body))
            if not isinstance(message, Reports) or message.run != run:
                raise BadFrame(f"reports of run {run} were expected")
        except BadFrame as bad:
            self._strangers.ignore(event.queue, bad)
            self._connection.ack(event.tag)
            return True
        reports: Sequence[Report] = message.items
        shares: dict[int, list[Buffer]] = share_out(reports, buffers) if buffers else {}
        if run != self._own:
            reports, shares = self._continued.translate(run, reports, shares)
            self._note_doubled(reports)
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
            self.arrived.append(Delivery(worker, host, reports, shares))
            self._acknowledging.came(event.tag)
        else:  # nobody will acknowledge it
            self._connection.ack(event.tag)
        return True

    def report(self, report: Report) -> None:
        """Take a report of our own, of a call that goes nowhere."""
        self.arrived.append(Delivery(None, None, [report]))
        self._open.close(report.place)

    def give_out(self) -> list[Delivery]:
        """Return what arrived."""
        arrived, self.arrived = self.arrived, []
        self._given = [report.place for delivery in arrived for report in delivery.reports]
        return arrived

    def reopen(self) -> None:
        """What was given out was accepted: a call whose report was none that counts has another under way."""
        for place in self._given:
            if 0 <= place < len(self._open.widths) and not self._jobs.is_recorded(place):
                self._open.reopen(place)
        self._given = []

    def was_doubled(self, place: int) -> bool:
        """Whether an earlier run reported of a call whose next attempt is in line, or in hands, as ours.

        To be asked once for each report.
        """
        return self._doubled.pop(place, None) == self._jobs.attempt(place)

    def _note_doubled(self, reports: Sequence[Report]) -> None:
        """Remember which reports of an earlier run are of calls that are under way as ours, too."""
        for report in reports:
            place = report.place
            if place in self._open and self._pushing.has(place):
                self._doubled[place] = self._jobs.attempt(place)
