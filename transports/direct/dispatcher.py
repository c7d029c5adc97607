"""The dispatcher's end over a link: the embedded broker, what it hands out and what comes of that."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from executor.broker import Broker
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    Buffer,
    Cancel,
    Over,
    Recall,
    Recorded,
    Report,
    Reports,
    Returned,
    decode,
    share_out,
)
from transports.base import Delivery, DispatcherEnd, Jobs, Say, WorkerView
from transports.direct.acknowledging import Acknowledging
from transports.direct.loading import loads
from transports.direct.roster import Peer, Roster
from transports.direct.stock import Shares, possible, settle, translated
from transports.link import Event, Frame, Gone, Link
from transports.settings import Settings

#: Seconds between two looks for tasks that busy workers could hand to idle ones.
RECALL_SECONDS = 0.05

#: Seconds that workers get to answer that a run is over; those that hang don't keep a dispatcher from ending.
PARTING_SECONDS = 1.0


class DirectDispatcherEnd(DispatcherEnd):
    """The dispatcher's end over a link, with the broker in it."""

    def __init__(self, link: Link, settings: Settings, *, say: Say) -> None:
        self.address = link.address
        self._link = link
        self._broker = Broker()
        self._jobs: Jobs | None = None
        self._runs: set[str] = set()  # the run, and those that it continues
        self._arrived: list[Delivery] = []  # always this one, as the roster adds to it, too
        self._acknowledging = Acknowledging()
        self._roster = Roster(
            link, self._broker, self._acknowledging, settings, say=say, lost=self._arrived.append
        )
        self._recall_at = 0.0
        self._closed = False

    # -- the contract

    def push(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._runs = {jobs.id, *jobs.earlier}
        self._broker.push(jobs.widths, jobs.recorded())
        self._roster.begin(jobs)
        self._hand_out()

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        self._broker.again(place, suspect=suspect, alone=alone)

    def results(self, timeout: float | None) -> list[Delivery]:
        now = time.monotonic()
        deadline = math.inf if timeout is None else now + timeout
        self._hand_out()  # what is due again is on its way while it is looked what has come
        while True:
            wake_at = min(deadline, self._roster.beat_at, self._acknowledging.deadline)
            if self._tailing():
                wake_at = min(wake_at, self._recall_at)
            if now < wake_at and not self._arrived:
                self._link.wait(wake_at - now)
            # One helping, not all there is: workers get their next tasks before we look at their results.
            for event in self._link.receive():
                self._hear(event)
            now = time.monotonic()
            self._tick(now)
            self._hand_out()
            self._tell_recorded(now)  # after that: it is less urgent
            if self._arrived:
                arrived = self._arrived.copy()
                self._arrived.clear()
                return arrived
            if now >= deadline:
                return []

    def acknowledge(self) -> None:
        if self._jobs is None or self._arrived:  # what was not even returned is not recorded
            return
        now = time.monotonic()
        for worker in self._acknowledging.record(now):
            peer = self._roster.peers[worker]
            peer.recorded = peer.seen
        self._tell_recorded(now)

    def _tell_recorded(self, now: float) -> None:
        for worker in self._acknowledging.due(now):
            assert self._jobs is not None
            self._tell(self._jobs, self._roster.peers[worker])

    def _tell(self, jobs: Jobs, peer: Peer) -> None:
        """Tell a worker what of its reports is recorded; if it can't be reached just now, soon again."""
        if not self._roster.send(peer, Recorded(jobs.id, peer.recorded)):
            self._acknowledging.missed(peer.key, time.monotonic())

    def workers(self) -> list[WorkerView]:
        return self._roster.views()

    def waiting(self) -> dict[int, int]:
        return self._broker.waiting()

    def withdraw(self, width: int | None = None) -> list[int]:
        return self._broker.withdraw(width)

    def halt(self) -> None:
        self._broker.halt()
        if self._jobs is not None:
            self._roster.stop(Recall(self._jobs.id, len(self._jobs.widths)))

    def worker_died(self, pid: int) -> None:
        for _ in range(len(self._roster.peers)):  # its last words, if they are there
            if not self._link.ready():
                break
            for event in self._link.receive():
                self._hear(event)
        self._roster.died(pid)

    def cancel(self) -> None:
        self._broker.halt()
        if self._jobs is not None:
            self._roster.stop(Cancel(self._jobs.id))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._jobs is not None and not self.resumable:
            self._acknowledging.hurry()
            self.acknowledge()
            self._tell_recorded(time.monotonic())  # also if something came meanwhile that is not
            self._roster.send_all(Over(self._jobs.id))
            self._part()
        self._link.close()

    def _part(self) -> None:
        """Wait until the workers answer that the run is over: what a closing socket sends may get lost."""
        silent = {peer.peer for peer in self._roster.peers.values() if not peer.away}
        deadline = time.monotonic() + PARTING_SECONDS
        while silent and (left := deadline - time.monotonic()) > 0:
            for event in self._link.receive():
                if isinstance(event, Gone):
                    silent.discard(event.peer)
                elif isinstance(event, Frame):
                    try:
                        message, _ = decode(event.parts)
                    except BadFrame:
                        continue
                    if isinstance(message, Over):
                        silent.discard(event.peer)
            if silent:
                self._link.wait(left)

    # -- taking

    def _hear(self, event: Event) -> None:
        """Take an event of the link, and of what workers say that which is about tasks."""
        heard, jobs = self._roster.hear(event), self._jobs
        if heard is None or jobs is None:
            return
        peer, message, buffers = heard
        if isinstance(message, Reports):
            if message.run in self._runs:
                self._take_reports(jobs, peer, message, buffers)
        elif isinstance(message, Returned) and message.run in self._runs:
            here = (jobs.place_of(message.run, place) for place in message.places)
            self._broker.give_back(peer.key, [place for place in here if place is not None])

    def _take_reports(self, jobs: Jobs, peer: Peer, message: Reports, buffers: list[Buffer]) -> None:
        if message.number <= peer.recorded:  # sent again before our acknowledgement came
            self._tell(jobs, peer)
            return
        peer.seen = max(peer.seen, message.number)
        reports: Sequence[Report] = message.items
        shares: Shares = share_out(message.items, buffers)
        if message.run != jobs.id:
            reports, shares = translated(jobs, self._broker, peer.key, message.run, reports, shares)
        came = len(reports)
        if reports and settle(jobs, self._broker, peer.key, reports) < came and message.run == jobs.id:
            reports, shares = possible(jobs, self._broker, reports, shares)
            if len(reports) < came:
                self._roster.never_had(peer, came - len(reports))
        if reports:
            self._arrived.append(Delivery(peer.hello.name, peer.hello.host, reports, shares))
            self._acknowledging.report(peer.key, hurry=peer.draining or bool(shares))
        elif peer.key not in self._acknowledging.reported:  # there is nothing in it that will be recorded
            peer.recorded = peer.seen
            self._tell(jobs, peer)

    # -- handing out

    def _hand_out(self) -> None:
        """Send workers what the broker grants them."""
        if self._jobs is None or self.paused:
            return
        while grants := self._broker.grants():
            all_sent = True
            for worker, places in grants:
                peer = self._roster.peers[worker]
                if not self._send_tasks(self._jobs, peer, places):
                    all_sent = False
                elif self._acknowledging.goes_along(worker, time.monotonic()):
                    self._tell(self._jobs, peer)
            if all_sent or self._arrived:  # after what arrived the caller comes again at once
                break

    def _send_tasks(self, jobs: Jobs, peer: Peer, places: Sequence[int]) -> bool:
        """Send a worker tasks; what does not reach it goes back, and what can't travel is reported.

        Return whether all are on their way: otherwise there may be more to hand out.
        """
        sent = True
        done: list[int] = []
        for load in loads(jobs, places, self._link.largest):
            if load.parts and not self._link.send(peer.peer, load.parts):
                self._roster.miss(peer, "it can't be reached")
                self._broker.give_back(peer.key, list(set(places).difference(done)))
                return False
            done += load.places
            if not load.parts:
                sent = False
                self._broker.settle(peer.key, load.places)
            if load.error:
                error = ("CannotTravel", load.error, "")
                reports = [Report(place, 0, "error", NIL, error=error) for place in load.places]
                self._arrived.append(Delivery(None, None, reports))
        return sent

    def _tick(self, now: float) -> None:
        if now >= self._roster.beat_at:
            self._roster.beat(now)
        if now >= self._recall_at and self._jobs is not None:
            self._recall_at = now + RECALL_SECONDS
            for recall in self._broker.recalls():
                if (busy := self._roster.peers.get(recall.worker)) is not None:
                    self._roster.send(busy, Recall(self._jobs.id, recall.most))

    def _tailing(self) -> bool:
        return self._jobs is not None and self._broker.exhausted and len(self._roster.peers) > 1
