"""What links have in common whose library needs threads: frames cross to the owner and back over queues.

The owner of a link never waits for a thread and no thread ever touches the owner's things: what came lies
in the `Inbox`, which wakes the owner through a descriptor, and what is to go lies in one `Outbox` for each
peer. Both are bounded. A full inbox keeps the threads from reading on, so that the sender feels it; a full
outbox means a peer that takes nothing, which counts as gone. So of a peer that sends more than the owner
takes there is one message at most beside what lies in the inbox, and what its connection holds.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from executor.messages import Parts
from transports.base import Say
from transports.link import Came, Event, Frame, Gone, Link, Sign
from transports.pieces import Joiner, Piece

#: Bytes, and events, that may lie in an inbox before its threads stop reading.
INBOX_BYTES = 64 << 20
INBOX_MOST = 1000

#: Bytes that a frame's part counts for besides its own: so much takes an empty one.
_PART_BYTES = 64

#: Frames that may wait for one peer: the broker's credit stays far below it.
HIGH_WATER = 10_000

#: Seconds that closing a link waits for what is still to be sent.
LINGER = 1.0

#: Seconds between attempts to reach a peer: the first, and the longest after backing off.
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0

#: Events taken at one go, so that the owner gets to answer in between.
_AT_ONCE = 16


class Inbox:
    """Events on their way from a link's threads to its owner."""

    def __init__(self) -> None:
        self._events: deque[tuple[Event, int]] = deque()
        self._room = threading.Condition()
        self._bytes = 0
        self._closed = False
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)

    def put(self, event: Event, size: int = 0) -> None:
        """Add an event, whatever the bounds; threads call `wait_for_room` before they read on."""
        with self._room:
            if self._closed:
                return
            if not self._events:
                self._wake_write.send(b"\0")
            self._events.append((event, size))
            self._bytes += size

    def wait_for_room(self) -> bool:
        """Wait until the inbox is below its bounds; return False if it was closed."""
        if self._bytes < INBOX_BYTES and len(self._events) < INBOX_MOST and not self._closed:
            return True
        with self._room:
            self._room.wait_for(
                lambda: self._closed or (self._bytes < INBOX_BYTES and len(self._events) < INBOX_MOST)
            )
            return not self._closed

    def take(self, most: int) -> list[Event]:
        """Return up to `most` events, without waiting."""
        with self._room:
            taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            if taken:
                self._bytes -= sum(size for _, size in taken)
                self._room.notify_all()
                if not self._events:
                    self._wake_read.recv(16)
            return [event for event, _ in taken]

    def __len__(self) -> int:
        return len(self._events)

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are events."""
        return self._wake_read.fileno()

    def close(self) -> None:
        """Take nothing more and let waiting threads go."""
        with self._room:
            self._closed = True
            self._room.notify_all()
            self._wake_read.close()
            self._wake_write.close()


class Outbox:
    """Frames on their way from the owner to one peer, over one connection.

    `wake` is called when there is something to take, once for all that waits, and when it is closed: for a
    thread that doesn't wait in `take`.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._frames: deque[Parts] = deque()
        self._changed = threading.Condition()
        self._wake = wake
        self._under_way = False  # some were taken, and the thread has not come back for more
        self.closed = False

    def put(self, parts: Parts) -> bool:
        """Add a frame, without waiting; return False if the connection is gone or full."""
        with self._changed:
            if self.closed or len(self._frames) >= HIGH_WATER:
                return False
            self._frames.append(parts)
            if len(self._frames) > 1:  # the thread takes it with those before
                return True
            self._changed.notify_all()
        if self._wake is not None:
            self._wake()
        return True

    def take(self, seconds: float | None) -> Sequence[Parts]:
        """Return all frames that wait; () if there are none for `seconds` (None: no limit), or it is closed.

        To come back for more says that those before are sent.
        """
        with self._changed:
            if self._under_way:
                self._under_way = False
                self._changed.notify_all()
            if not self._frames and seconds != 0:
                self._changed.wait_for(lambda: self._frames or self.closed, seconds)
            if not self._frames:
                return ()
            self._under_way = True
            frames, self._frames = self._frames, deque()
            return frames

    def wait_sent(self, seconds: float) -> None:
        """Wait until everything is sent, at most `seconds`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.closed or not (self._frames or self._under_way), max(0.0, seconds)
            )

    def close(self) -> None:
        """Take and give nothing more."""
        with self._changed:
            self.closed = True
            self._frames.clear()
            self._changed.notify_all()
        if self._wake is not None:
            self._wake()


class ThreadedLink(Link):
    """A link between its owner's thread and threads of its own; a wire adds what these do."""

    def __init__(self, address: str, *, say: Say, largest: int) -> None:
        self.address = address
        self.largest = largest
        self.closing = threading.Event()
        self._say = say
        self._inbox = Inbox()
        self._outboxes: dict[bytes, Outbox] = {}  # of the peers that are connected
        self._lock = threading.Lock()
        self._remarks: deque[str] = deque()
        self._remarked: set[str] = set()

    # -- for the owner

    def fileno(self) -> int:
        return self._inbox.fileno()

    def ready(self) -> bool:
        return bool(self._inbox)

    def receive(self) -> list[Event]:
        while self._remarks:
            self._say(self._remarks.popleft())
        return self._inbox.take(_AT_ONCE)

    def send(self, peer: bytes, parts: Parts) -> bool:
        outbox = self._outboxes.get(peer)
        return outbox is not None and outbox.put(parts)

    def cut(self, peer: bytes) -> None:
        outbox = self._outboxes.get(peer)
        if outbox is not None:
            outbox.close()  # upon which its thread ends the connection, unless it is stuck

    def close(self) -> None:
        if self.closing.is_set():
            return
        deadline = time.monotonic() + LINGER
        with self._lock:
            outboxes = list(self._outboxes.values())
        for outbox in outboxes:
            outbox.wait_sent(deadline - time.monotonic())
        self.closing.set()
        for outbox in outboxes:
            outbox.close()
        self._inbox.close()
        self._end()

    @abstractmethod
    def _end(self) -> None:
        """End the threads and let go of the library; `closing` is set, all queues are closed."""

    # -- for its threads

    def joined(self, peer: bytes, outbox: Outbox) -> None:
        """A connection to a peer stands. It replaces an earlier one, which may not know yet that it broke."""
        with self._lock:
            earlier = self._outboxes.get(peer)
            self._outboxes[peer] = outbox
            self._inbox.put(Came(peer))
        if earlier is not None:
            earlier.close()

    def left(self, peer: bytes, outbox: Outbox, why: str) -> None:
        """A connection ended."""
        outbox.close()
        with self._lock:
            if self._outboxes.get(peer) is outbox:
                del self._outboxes[peer]
                self._inbox.put(Gone(peer, why))

    def came(self, peer: bytes, parts: Parts) -> None:
        """A frame came."""
        self._inbox.put(Frame(peer, parts), sum(map(len, parts)) + _PART_BYTES * len(parts))

    def take(self, peer: bytes, joiner: Joiner, pieces: Iterable[Piece]) -> bool:
        """Take pieces that came in one message, each once there is room; return False if the link is closing.

        Raises:
            BadFrame: they make no frame.
        """
        for piece in pieces:
            frame = joiner.add(piece)
            if frame is None:
                self._inbox.put(Sign(peer))
            else:
                self.came(peer, frame)
            if not self.wait_for_room():
                return False
        return True

    def wait_for_room(self) -> bool:
        """Wait until there is room for what is read next; return False once the link is closing."""
        return self._inbox.wait_for_room()

    def remark(self, text: str) -> None:
        """Have the owner say a line, each only once."""
        if text not in self._remarked and len(self._remarked) < 1000:
            self._remarked.add(text)
            self._remarks.append(text)
            self._inbox.put(Sign(b""))  # of nobody: it only wakes the owner


class Dialler(ThreadedLink):
    """The side that connects: to each of several addresses one thread, for as long as the link is open."""

    def __init__(self, addresses: list[str], *, say: Say, largest: int) -> None:
        super().__init__(", ".join(addresses), say=say, largest=largest)
        self._threads = [
            threading.Thread(target=self._keep, args=(address,), name=f"link {address}", daemon=True)
            for address in addresses
        ]

    def start(self) -> None:
        """Begin to connect."""
        for thread in self._threads:
            thread.start()

    def _keep(self, address: str) -> None:
        waits, number = back_off(), 0
        while not self.closing.is_set():
            number += 1
            # Each connection is a peer of its own: what was sent on an earlier one may have got lost.
            if self.converse(address, f"{address}#{number}".encode()):
                waits = back_off()
            self.closing.wait(next(waits))

    def cut(self, peer: bytes) -> None:
        super().cut(peer)
        self.hang_up(peer)

    @abstractmethod
    def hang_up(self, peer: bytes) -> None:
        """End a connection whatever its thread waits for; called by the owner."""

    @abstractmethod
    def converse(self, address: str, peer: bytes) -> bool:
        """Connect and move frames until the connection ends; return whether there was one."""

    def _wait(self, seconds: float) -> None:
        """Wait until the threads have ended, at most `seconds`."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def back_off() -> Iterator[float]:
    """Return how many seconds to wait before each next attempt: ever longer, and never all at once."""
    wait = _FIRST_WAIT
    while True:
        yield wait * random.uniform(0.5, 1.0)
        wait = min(2 * wait, _LONGEST_WAIT)
