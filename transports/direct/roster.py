"""The workers that a dispatcher's end knows: how they come, are out of reach, come back and go."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from executor.bounds import MOST_PEERS
from executor.broker import Broker
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Beat,
    Buffer,
    Hello,
    Leaving,
    Message,
    Refused,
    Report,
    Running,
    Unknown,
    Welcome,
    decode_read,
    encode,
)
from executor.words import plural
from transports.base import Delivery, Jobs, Say, WorkerView, still_running
from transports.direct.acknowledging import Acknowledging
from transports.direct.outcasts import Outcasts, broken
from transports.direct.stock import take_stock
from transports.link import Came, Event, Frame, Gone, Link, Sign
from transports.settings import Settings

#: Links that a worker had before, and that are remembered.
_LEFT_MOST = 10


class Peer:
    """A worker as the dispatcher's end knows it."""

    __slots__ = (
        "away", "draining", "heard_at", "hello", "key", "left", "peer", "recorded", "running", "seen",
        "told_at", "welcomed",
    )  # fmt: skip

    def __init__(self, hello: Hello, peer: bytes, now: float) -> None:
        self.key = hello.instance
        self.hello = hello
        self.peer = peer
        self.left: dict[bytes, int] = {}  # links that it had before, each with its last episode there
        self.heard_at = now
        self.away = ""  # why it can't be reached now; its patience decides whether it is gone
        self.draining = False
        self.welcomed = False  # whether its present greeting was answered
        self.running: Sequence[Running] = ()  # what it said that it runs longest ...
        self.told_at = now  # ... and when
        self.seen = 0  # the number of its last Reports
        self.recorded = 0  # ... and of the last that we acknowledged

    def leave(self, link_peer: bytes) -> None:
        """What comes over this link from now on was long on its way; of the last few that is known."""
        self.left[link_peer] = self.hello.episode
        if len(self.left) > _LEFT_MOST:
            del self.left[next(iter(self.left))]

    def __str__(self) -> str:
        return f"{self.hello.name} on {self.hello.host}"


class Roster:
    """The workers that are there, each under the link's name for it and under its own.

    It talks with them of all but tasks and reports, and tells the broker who takes tasks. Of a worker that is
    gone `lost` gets reports of what it may have begun; their attempts the run counts.
    """

    def __init__(
        self,
        link: Link,
        broker: Broker,
        acknowledging: Acknowledging,
        settings: Settings,
        *,
        say: Say,
        lost: Callable[[Delivery], None],
    ) -> None:
        self._link = link
        self._broker = broker
        self._acknowledging = acknowledging
        self._heartbeat = settings.heartbeat
        self._patience = settings.patience
        self._say = say
        self._lost = lost
        self._outcasts = Outcasts(say)
        self._jobs: Jobs | None = None
        self._stopped: Message | None = None  # by what word the run is, if it is
        self._by_link: dict[bytes, Peer] = {}
        self._unheard: dict[bytes, float] = {}  # who is connected and has said nothing, since when
        #: By instance.
        self.peers: dict[str, Peer] = {}
        #: When all are due a sign of life (`beat`).
        self.beat_at = 0.0

    def begin(self, jobs: Jobs) -> None:
        """Welcome all to a run."""
        self._jobs = jobs
        for peer in list(self.peers.values()):
            self._take_in(jobs, peer)

    def views(self) -> list[WorkerView]:
        """Return the workers that can be given tasks, or have some."""
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
            for peer in self.peers.values()
            if not peer.draining or self._broker.count(peer.key)
        ]

    # -- hearing

    def hear(self, event: Event) -> tuple[Peer, Message, list[Buffer]] | None:
        """Take an event of the link; return what a worker that was greeted says of tasks, if it is that."""
        if isinstance(event, Frame):
            if self._unheard:
                self._unheard.pop(event.peer, None)
            return self._hear_frame(event)
        if isinstance(event, Came):
            self._unheard[event.peer] = time.monotonic()
        elif isinstance(event, Gone):
            self._unheard.pop(event.peer, None)
            peer = self._by_link.pop(event.peer, None)
            if peer is not None and peer.peer == event.peer:
                self.miss(peer, event.why)
        elif isinstance(event, Sign) and (peer := self._by_link.get(event.peer)) is not None:
            peer.heard_at = time.monotonic()
        return None

    def _hear_frame(self, frame: Frame) -> tuple[Peer, Message, list[Buffer]] | None:
        if frame.peer in self._outcasts:
            return None
        try:
            message, buffers = decode_read(frame.parts)
        except BadFrame as bad:
            self._cut_off(frame.peer, bad)
            return None
        if isinstance(message, Hello):
            self._greet(frame.peer, message)
            return None
        peer = self._by_link.get(frame.peer)
        if peer is None:
            self._link.send(frame.peer, encode(Unknown()))
            return None
        peer.heard_at = time.monotonic()
        if isinstance(message, Beat):
            peer.running, peer.told_at = message.running, peer.heard_at
        elif isinstance(message, Leaving):
            self._drain(peer)
        else:
            return peer, message, buffers
        return None

    def _cut_off(self, link_peer: bytes, bad: BadFrame) -> None:
        """A frame was none: of a stranger that is ignored; a worker that we know has gone mad."""
        peer = self._by_link.get(link_peer)
        if peer is None:
            text = f"ignored a stranger's frame on {self._link.address}: {bad}"
            self._outcasts.complain(link_peer, text)
            return
        why = broken(bad)
        self._say(f"cut off worker {peer}: {why}")
        self.send(peer, Refused(why))
        for who in (link_peer, peer.key):
            self._outcasts.add(who)
        self._lose(peer, "cut off")
        self._link.cut(link_peer)

    def never_had(self, peer: Peer, count: int) -> None:
        """A worker reported so many tasks that it never had: say so, once."""
        text = f"ignored {plural(count, 'report')} of worker {peer}: it never had the tasks"
        self._outcasts.complain(f"reports of {peer.key}", text)

    # -- coming and going

    def _is_full(self, hello: Hello) -> bool:
        return hello.instance not in self.peers and len(self.peers) >= MOST_PEERS

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
        known = self._by_link.get(link_peer)
        if known is not None and known.key != hello.instance:
            self._cut_off(link_peer, BadFrame("it greets as another worker"))
            return
        now = time.monotonic()
        peer = self.peers.get(hello.instance)
        if peer is None:
            peer = Peer(hello, link_peer, now)
            self.peers[hello.instance] = peer
            self._broker.join(peer.key, hello.cores, backfill=hello.backfill)
            if hello.leaving:
                self._drain(peer)
        elif peer.left.get(link_peer) == hello.episode:
            return  # the same greeting again, which came late: it greeted since, over its present link
        elif (
            hello.episode != peer.hello.episode
            or (self._jobs is not None and not peer.welcomed)
            or (link_peer != peer.peer and peer.away)
        ):
            # It comes back, over a new link perhaps: what got lost on the way is handed out again.
            # Or our answer did not go out, and what did after it was not for who is not welcomed. Or it got
            # lost with a link that broke before the worker knew: then it greets as before over the next one.
            self._by_link.pop(peer.peer, None)
            if link_peer != peer.peer:
                peer.leave(peer.peer)
            peer.peer, peer.heard_at, peer.hello = link_peer, now, hello
            # It sends again what it was not told of; by numbers that another gave, that would count as told.
            peer.seen = peer.recorded = 0
            self._come_back(peer, leaving=hello.leaving)
        elif peer.peer != link_peer:
            return  # of a link that broke meanwhile; it greets again on the present one
        else:
            self._by_link[link_peer] = peer
            if self._jobs is not None:
                self._welcome(self._jobs, peer)  # the same greeting again, whose `holding` was read
            return
        self._by_link[link_peer] = peer
        if self._jobs is not None:
            self._take_in(self._jobs, peer)

    def _take_in(self, jobs: Jobs, peer: Peer) -> None:
        take_stock(jobs, self._broker, peer.key, peer.hello.holding)
        self._welcome(jobs, peer)

    def _welcome(self, jobs: Jobs, peer: Peer) -> None:
        earlier, episode = list(jobs.earlier), peer.hello.episode
        welcome = Welcome(PROTOCOL, jobs.id, self._heartbeat, self._patience, earlier, episode)
        peer.welcomed = self.send(peer, welcome)
        if peer.welcomed and self._stopped is not None:  # it may not have heard it
            self.send(peer, self._stopped)

    def miss(self, peer: Peer, why: str) -> None:
        """A worker can't be reached now: it gets nothing more, until it comes back or was silent too long."""
        if not peer.away:
            peer.away = why
            self._broker.drain(peer.key)

    def _come_back(self, peer: Peer, *, leaving: bool) -> None:
        """A worker can be reached again, or says anew whether it takes more."""
        was_out = peer.away or peer.draining
        peer.away, peer.draining = "", False
        if leaving:
            self._drain(peer)
        elif was_out:
            self._broker.resume(peer.key)

    def _drain(self, peer: Peer) -> None:
        """A worker takes no more, and is to be told soon that what it reported is recorded."""
        peer.draining = True
        self._acknowledging.hurry()
        self._broker.drain(peer.key)

    def died(self, pid: int) -> None:
        """A process of this machine has died: if it was a worker, don't wait for its silence."""
        for peer in list(self.peers.values()):
            if peer.hello.pid == pid and peer.hello.host == socket.gethostname():
                self._lose(peer, "its process died")

    def _lose(self, peer: Peer, why: str) -> None:
        """A worker is gone: what it may have begun is reported as lost."""
        self._by_link.pop(peer.peer, None)
        self.peers.pop(peer.key, None)
        self._acknowledging.forget(peer.key)
        held = self._broker.count(peer.key)
        begun = self._broker.leave(peer.key)
        if peer.draining and not held:
            return
        error = ("Lost", f"its worker {peer} vanished ({why})", "")
        self._say(f"worker {peer} is gone ({why}); it held {held} unfinished")
        if begun:
            reports = [Report(place, 0, "lost", NIL, error=error) for place in begun]
            self._lost(Delivery(peer.hello.name, peer.hello.host, reports))

    # -- telling

    def beat(self, now: float) -> None:
        """Give all a sign of life, and give up those that gave none for too long."""
        late, self.beat_at = now - self.beat_at, now + self._heartbeat
        for peer in list(self.peers.values()):
            # While we were held up, by a slow disk say, we heard nobody: what they said may lie unread.
            peer.heard_at = min(now, peer.heard_at + late)
            silent = now - peer.heard_at
            if silent > self._patience:
                self._lose(peer, peer.away or f"silent for {silent:.0f} s")
                self._link.cut(peer.peer)  # which may lead nowhere, though nobody was told
            else:
                self.send(peer, Beat())
        for link_peer, since in list(self._unheard.items()):
            self._unheard[link_peer] = since = min(now, since + late)
            if now - since > self._patience:  # likewise
                del self._unheard[link_peer]
                self._link.cut(link_peer)

    def send(self, peer: Peer, message: Message) -> bool:
        """Send a worker a message; return whether it could be reached."""
        sent = self._link.send(peer.peer, encode(message))
        if not sent:
            self.miss(peer, "it can't be reached")
        elif peer.away and peer.peer in self._by_link:  # it took nothing for a while
            self._come_back(peer, leaving=peer.draining)
        return sent

    def stop(self, word: Message) -> None:
        """Tell all that the run is stopped, and those that can't be reached now when they greet."""
        self._stopped = word
        self.send_all(word)

    def send_all(self, message: Message) -> None:
        """Send all workers a message."""
        for peer in list(self.peers.values()):
            self.send(peer, message)
