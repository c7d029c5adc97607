"""The dispatcher's end over a link: the embedded broker, the workers that are there, and what they sent."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence

from executor.bounds import MOST_PEERS
from executor.broker import Broker
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Beat,
    Buffer,
    Cancel,
    Hello,
    Leaving,
    Message,
    Over,
    Recall,
    Recorded,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Unknown,
    Welcome,
    decode,
    decode_read,
    encode,
    share_out,
)
from executor.pace import mean_seconds
from executor.words import plural
from transports.base import Delivery, DispatcherEnd, Jobs, Say, WorkerView, still_running
from transports.direct.acknowledging import Acknowledging
from transports.direct.loading import loads
from transports.direct.outcasts import Outcasts, broken
from transports.direct.stock import Shares, is_present, possible, take_stock, translated
from transports.link import Event, Frame, Gone, Link, Sign
from transports.settings import Settings

#: Seconds between two looks for tasks that busy workers could hand to idle ones.
RECALL_SECONDS = 0.05

#: Seconds that workers get to answer that a run is over; those that hang don't keep a dispatcher from ending.
PARTING_SECONDS = 1.0


class _Peer:
    """A worker as the dispatcher's end knows it."""

    __slots__ = (
        "away", "draining", "heard_at", "hello", "key", "peer", "recorded", "running", "seen", "told_at",
        "welcomed",
    )  # fmt: skip

    def __init__(self, hello: Hello, peer: bytes, now: float) -> None:
        self.key = hello.instance
        self.hello = hello
        self.peer = peer
        self.heard_at = now
        self.away = ""  # why it can't be reached now; its patience decides whether it is gone
        self.draining = False
        self.welcomed = False  # whether its present greeting was answered
        self.running: Sequence[Running] = ()  # what it said that it runs longest ...
        self.told_at = now  # ... and when
        self.seen = 0  # the number of its last Reports
        self.recorded = 0  # ... and of the last that we acknowledged


class DirectDispatcherEnd(DispatcherEnd):
    """The dispatcher's end over a link, with the broker in it."""

    def __init__(self, link: Link, settings: Settings, *, say: Say) -> None:
        self.address = link.address
        self._link = link
        self._say = say
        self._heartbeat = settings.heartbeat
        self._patience = settings.patience
        self._broker = Broker()
        self._jobs: Jobs | None = None
        self._runs: set[str] = set()  # the run, and those that it continues
        self._stopped: Message | None = None  # by what word, if it is
        self._peers: dict[bytes, _Peer] = {}  # by the link's name for it
        self._instances: dict[str, _Peer] = {}
        self._acknowledging = Acknowledging()
        self._outcasts = Outcasts(say)
        self._arrived: list[Delivery] = []
        self._beat_at = 0.0
        self._recall_at = 0.0
        self._closed = False

    # -- the contract

    def push(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._runs = {jobs.id, *jobs.earlier}
        self._broker.push(jobs.widths, jobs.recorded())
        for peer in list(self._instances.values()):
            take_stock(jobs, self._broker, peer.key, peer.hello.holding)
            self._welcome(peer)
        self._hand_out()

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        self._broker.again(place, suspect=suspect, alone=alone)

    def results(self, timeout: float | None) -> list[Delivery]:
        now = time.monotonic()
        deadline = math.inf if timeout is None else now + timeout
        self._hand_out()  # what is due again is on its way while it is looked what has come
        while True:
            wake_at = min(deadline, self._beat_at, self._acknowledging.deadline)
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
                arrived, self._arrived = self._arrived, []
                return arrived
            if now >= deadline:
                return []

    def acknowledge(self) -> None:
        if self._jobs is None or self._arrived:  # what was not even returned is not recorded
            return
        now = time.monotonic()
        for worker in self._acknowledging.record(now):
            peer = self._instances[worker]
            peer.recorded = peer.seen
        self._tell_recorded(now)

    def _tell_recorded(self, now: float) -> None:
        for worker in self._acknowledging.due(now):
            assert self._jobs is not None
            self._tell(self._jobs, self._instances[worker])

    def _tell(self, jobs: Jobs, peer: _Peer) -> None:
        """Tell a worker what of its reports is recorded; if it can't be reached just now, soon again."""
        if not self._send(peer, Recorded(jobs.id, peer.recorded)):
            self._acknowledging.missed(peer.key, time.monotonic())

    def workers(self) -> list[WorkerView]:
        now = time.monotonic()
        return [
            WorkerView(
                peer.hello.name,
                peer.hello.host,
                peer.hello.cores,
                peer.hello.pid,
                self._broker.count(peer.key),
                self._broker.running(peer.key),
                peer.hello.instance,
                still_running(self._jobs, peer.running, now - peer.told_at),
            )
            for peer in self._instances.values()
            if not peer.draining or self._broker.count(peer.key)
        ]

    def waiting(self) -> dict[int, int]:
        return self._broker.waiting()

    def withdraw(self, width: int | None = None) -> list[int]:
        return self._broker.withdraw(width)

    def halt(self) -> None:
        self._broker.halt()
        if self._jobs is not None:
            self._stop(Recall(self._jobs.id, len(self._jobs.widths)))

    def worker_died(self, pid: int) -> None:
        for _ in range(len(self._instances)):  # its last words, if they are there
            if not self._link.ready():
                break
            for event in self._link.receive():
                self._hear(event)
        for peer in list(self._instances.values()):
            if peer.hello.pid == pid and peer.hello.host == socket.gethostname():
                self._lose(peer, "its process died")

    def cancel(self) -> None:
        self._broker.halt()
        if self._jobs is not None:
            self._stop(Cancel(self._jobs.id))

    def _stop(self, word: Message) -> None:
        """Tell all workers, and those that can't be reached now when they greet."""
        self._stopped = word
        for peer in list(self._instances.values()):
            self._send(peer, word)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._jobs is not None and not self.resumable:
            self._acknowledging.hurry()
            self.acknowledge()
            self._tell_recorded(time.monotonic())  # also if something came meanwhile that is not
            for peer in list(self._instances.values()):
                self._send(peer, Over(self._jobs.id))
            self._part()
        self._link.close()

    def _part(self) -> None:
        """Wait until the workers answer that the run is over: what a closing socket sends may get lost."""
        silent = {peer.peer for peer in self._instances.values() if not peer.away}
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

    # -- hearing

    def _hear(self, event: Event) -> None:
        if isinstance(event, Frame):
            self._hear_frame(event)
        elif isinstance(event, Gone):
            peer = self._peers.pop(event.peer, None)
            if peer is not None and peer.peer == event.peer:
                self._miss(peer, event.why)
        elif isinstance(event, Sign) and (peer := self._peers.get(event.peer)) is not None:
            peer.heard_at = time.monotonic()

    def _hear_frame(self, frame: Frame) -> None:
        if frame.peer in self._outcasts:
            return
        try:
            message, buffers = decode_read(frame.parts)
        except BadFrame as bad:
            self._cut_off(frame.peer, bad)
            return
        if isinstance(message, Hello):
            self._greet(frame.peer, message)
            return
        peer = self._peers.get(frame.peer)
        if peer is None:
            self._link.send(frame.peer, encode(Unknown()))
            return
        peer.heard_at = time.monotonic()
        self._take(peer, message, buffers)

    def _cut_off(self, link_peer: bytes, bad: BadFrame) -> None:
        """A frame was none: of a stranger that is ignored; a worker that we know has gone mad."""
        peer = self._peers.get(link_peer)
        if peer is None:
            text = f"ignored a stranger's frame on {self.address}: {bad}"
            self._outcasts.complain(link_peer, text)
            return
        why = broken(bad)
        self._say(f"cut off worker {peer.hello.name} on {peer.hello.host}: {why}")
        self._send(peer, Refused(why))
        for who in (link_peer, peer.key):
            self._outcasts.add(who)
        self._lose(peer, "cut off")
        self._link.cut(link_peer)

    def _is_full(self, hello: Hello) -> bool:
        return hello.instance not in self._instances and len(self._instances) >= MOST_PEERS

    def _greet(self, link_peer: bytes, hello: Hello) -> None:
        if hello.protocol != PROTOCOL:
            reason = f"it speaks protocol {PROTOCOL}, this worker {hello.protocol}: use the same version"
            self._link.send(link_peer, encode(Refused(reason)))
            text = f"refused worker {hello.name} on {hello.host}: it speaks protocol {hello.protocol}"
            self._outcasts.complain(link_peer, text)
            return
        if hello.instance in self._outcasts or self._is_full(hello):
            self._link.send(link_peer, encode(Refused("it was cut off, or there are too many workers")))
            return
        known = self._peers.get(link_peer)
        if known is not None and known.key != hello.instance:
            self._cut_off(link_peer, BadFrame("it greets as another worker"))
            return
        now = time.monotonic()
        peer = self._instances.get(hello.instance)
        if peer is None:
            peer = _Peer(hello, link_peer, now)
            self._instances[hello.instance] = peer
            self._broker.join(peer.key, hello.cores, backfill=hello.backfill)
            if hello.leaving:
                self._drain(peer)
        elif hello.episode != peer.hello.episode or (self._jobs is not None and not peer.welcomed):
            # It comes back, over a new link perhaps: what got lost on the way is handed out again.
            # Or our answer did not go out, and what did after it was not for who is not welcomed.
            self._peers.pop(peer.peer, None)
            peer.peer, peer.heard_at, peer.hello = link_peer, now, hello
            # It sends again what it was not told of; by numbers that another gave, that would count as told.
            peer.seen = peer.recorded = 0
            self._come_back(peer, leaving=hello.leaving)
        elif peer.peer != link_peer:
            return  # of a link that broke meanwhile; it greets again on the present one
        else:
            self._peers[link_peer] = peer
            if self._jobs is not None:
                self._welcome(peer)  # the same greeting again, whose `holding` was read
            return
        self._peers[link_peer] = peer
        if self._jobs is not None:
            take_stock(self._jobs, self._broker, peer.key, peer.hello.holding)
            self._welcome(peer)

    def _miss(self, peer: _Peer, why: str) -> None:
        """A worker can't be reached now: it gets nothing more, until it comes back or was silent too long."""
        if not peer.away:
            peer.away = why
            self._broker.drain(peer.key)

    def _come_back(self, peer: _Peer, *, leaving: bool) -> None:
        """A worker can be reached again, or says anew whether it takes more."""
        was_out = peer.away or peer.draining
        peer.away, peer.draining = "", False
        if leaving:
            self._drain(peer)
        elif was_out:
            self._broker.resume(peer.key)

    def _drain(self, peer: _Peer) -> None:
        """A worker takes no more, and is to be told soon that what it reported is recorded."""
        peer.draining = True
        self._acknowledging.hurry()
        self._broker.drain(peer.key)

    def _welcome(self, peer: _Peer) -> None:
        assert self._jobs is not None
        earlier, episode = list(self._jobs.earlier), peer.hello.episode
        welcome = Welcome(PROTOCOL, self._jobs.id, self._heartbeat, self._patience, earlier, episode)
        peer.welcomed = self._send(peer, welcome)
        if peer.welcomed and self._stopped is not None:  # it may not have heard it
            self._send(peer, self._stopped)

    def _take(self, peer: _Peer, message: Message, buffers: list[Buffer]) -> None:
        """Take a message of a worker that was greeted."""
        jobs = self._jobs
        if isinstance(message, Reports):
            if jobs is not None and message.run in self._runs:
                self._take_reports(jobs, peer, message, buffers)
        elif isinstance(message, Returned):
            if jobs is not None and message.run in self._runs:
                here = (jobs.place_of(message.run, place) for place in message.places)
                self._broker.give_back(peer.key, [place for place in here if place is not None])
        elif isinstance(message, Beat):
            peer.running, peer.told_at = message.running, peer.heard_at
        elif isinstance(message, Leaving):
            self._drain(peer)

    def _take_reports(self, jobs: Jobs, peer: _Peer, message: Reports, buffers: list[Buffer]) -> None:
        if message.number <= peer.recorded:  # sent again before our acknowledgement came
            self._tell(jobs, peer)
            return
        peer.seen = max(peer.seen, message.number)
        reports: Sequence[Report] = message.items
        shares: Shares = share_out(message.items, buffers)
        if message.run != jobs.id:
            reports, shares = translated(jobs, self._broker, peer.key, message.run, reports, shares)
        if reports and self._settle(jobs, peer, reports) < len(reports) and message.run == jobs.id:
            came = len(reports)
            reports, shares = possible(jobs, self._broker, reports, shares)
            if len(reports) < came:
                who = f"worker {peer.hello.name} on {peer.hello.host}"
                text = f"ignored {plural(came - len(reports), 'report')} of {who}: it never had the tasks"
                self._outcasts.complain(f"reports of {peer.key}", text)
        if reports:
            self._arrived.append(Delivery(peer.hello.name, peer.hello.host, reports, shares))
            self._acknowledging.report(peer.key, hurry=peer.draining or bool(shares))
        elif peer.key not in self._acknowledging.reported:  # there is nothing in it that will be recorded
            peer.recorded = peer.seen
            self._tell(jobs, peer)

    def _settle(self, jobs: Jobs, peer: _Peer, reports: Sequence[Report]) -> int:
        """Tell the broker what a worker ended; return how many of these it held.

        But for attempts given up meanwhile: if it holds such a place, then for a later attempt.
        """
        places = [report.place for report in reports]
        attempts = [report.attempt for report in reports]
        if max(places) < len(jobs.widths) and attempts == list(map(jobs.attempt, places)):  # nearly always
            present = reports
        else:
            present = [report for report in reports if is_present(jobs, report.place, report.attempt)]
            places = [report.place for report in present]
        widths = [jobs.widths[place] for place in places]
        if len(kinds := set(widths)) == 1:
            return self._broker.settle(peer.key, places, mean_seconds(present))
        held = 0
        for width in kinds:
            group = [report for report, own in zip(present, widths, strict=True) if own == width]
            held += self._broker.settle(peer.key, [report.place for report in group], mean_seconds(group))
        return held

    # -- doing

    def _hand_out(self) -> None:
        """Send workers what the broker grants them."""
        if self._jobs is None or self.paused:
            return
        while grants := self._broker.grants():
            all_sent = True
            for worker, places in grants:
                peer = self._instances[worker]
                if not self._send_tasks(self._jobs, peer, places):
                    all_sent = False
                elif self._acknowledging.goes_along(worker, time.monotonic()):
                    self._tell(self._jobs, peer)
            if all_sent or self._arrived:  # after what arrived the caller comes again at once
                break

    def _send_tasks(self, jobs: Jobs, peer: _Peer, places: Sequence[int]) -> bool:
        """Send a worker tasks; what does not reach it goes back, and what can't travel is reported.

        Return whether all are on their way: otherwise there may be more to hand out.
        """
        sent = True
        done: list[int] = []
        for load in loads(jobs, places, self._link.largest):
            if load.parts and not self._link.send(peer.peer, load.parts):
                self._miss(peer, "it can't be reached")
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
        if now >= self._beat_at:
            late, self._beat_at = now - self._beat_at, now + self._heartbeat
            for peer in list(self._instances.values()):
                # While we were held up, by a slow disk say, we heard nobody: what they said may lie unread.
                peer.heard_at = min(now, peer.heard_at + late)
                silent = now - peer.heard_at
                if silent > self._patience:
                    self._lose(peer, peer.away or f"silent for {silent:.0f} s")
                else:
                    self._send(peer, Beat())
        if now >= self._recall_at and self._jobs is not None:
            self._recall_at = now + RECALL_SECONDS
            for recall in self._broker.recalls():
                if (busy := self._instances.get(recall.worker)) is not None:
                    self._send(busy, Recall(self._jobs.id, recall.most))

    def _tailing(self) -> bool:
        return self._jobs is not None and self._broker.exhausted and len(self._instances) > 1

    def _lose(self, peer: _Peer, why: str) -> None:
        """A worker is gone: what it may have begun is reported as lost, whose attempts the run counts."""
        self._peers.pop(peer.peer, None)
        self._instances.pop(peer.key, None)
        self._acknowledging.forget(peer.key)
        held = self._broker.count(peer.key)
        begun = self._broker.leave(peer.key)
        if peer.draining and not held:
            return
        name, host = peer.hello.name, peer.hello.host
        error = ("Lost", f"its worker {name} on {host} vanished ({why})", "")
        self._say(f"worker {name} on {host} is gone ({why}); it held {held} unfinished")
        if begun:
            lost = [Report(place, 0, "lost", NIL, error=error) for place in begun]
            self._arrived.append(Delivery(name, host, lost))

    def _send(self, peer: _Peer, message: Message, buffers: Sequence[Buffer] = ()) -> bool:
        sent = self._link.send(peer.peer, encode(message, buffers))
        if not sent:
            self._miss(peer, "it can't be reached")
        elif peer.away and peer.peer in self._peers:  # it took nothing for a while
            self._come_back(peer, leaving=peer.draining)
        return sent
