"""Frames over a stream socket between a worker and its child processes.

A frame is framed as: number of parts (u32), a word for each part (u64), then the parts. The word is the
part's length. If the part lies in the arena that both ends share, the number of its first cell stands in the
upper bits, and the part does not follow. One `Channel` serves both ends: the child's blocks, the worker's
never does.
"""

from __future__ import annotations

import mmap
import select
import socket
import struct
from collections import deque

from executor.arena import LEAST, Arena
from executor.bounds import LARGEST_FRAME, MOST_PARTS
from executor.errors import BadFrame
from executor.messages import Buffer, Parts

_COUNT = struct.Struct("<I")
_WORD = struct.Struct("<Q")
_ONE = struct.Struct("<IQ")  # the header of a frame of one part

#: Bits of a word that are the part's length.
_LENGTH_BITS = 40

#: Bytes asked of the kernel at once; parts longer than this are received straight into their own memory.
_CHUNK = 1 << 16

#: Bytes from which a part gets pages of its own: on a heap they would be zeroed twice. (Large pages would be
#: faster still, but to find them took the system ten times as long now and then.) A longer one begins with so
#: many, and grows as its bytes come: what it says of itself may be made up.
_HUGE = 4 << 20


class Channel:
    """Frames there and back over `sock`, which it owns; large parts through the `arena`, if there is one.

    `most` bounds the bytes of a frame that comes.
    """

    def __init__(self, sock: socket.socket, arena: Arena | None = None, *, most: int = LARGEST_FRAME) -> None:
        self.sock = sock
        self._arena = arena
        self._most = most
        self._poll: select.poll | None = None  # made when it is first asked whether something has come
        self._inbox = bytearray()
        self._large: bytearray | mmap.mmap | None = None  # the part being received into memory of its own
        self._length = self._filled = 0  # its bytes, and those that have come
        self._words: list[int] = []  # of the frame being received
        self._parts: list[Buffer] = []
        self._outbox: deque[memoryview] = deque()

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self.sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether something waits until the socket can be written to."""
        return bool(self._outbox)

    def send(self, parts: Parts) -> None:
        """Send a frame; on a non-blocking socket as much of it as goes, the rest by `flush`.

        Raises:
            OSError: the other end is gone.
        """
        first = parts[0] if len(parts) == 1 and not self._outbox else None
        if type(first) is bytes and len(first) < _CHUNK:  # the usual frame: nothing is gathered or waits
            data = _ONE.pack(1, len(first)) + first
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                self._outbox.append(memoryview(data)[sent:])
                self.flush()  # on a blocking socket a signal may have cut it short
            return
        views = [memoryview(part) for part in parts]  # of whatever items: bytes are what counts
        words = [view.nbytes for view in views]
        if self._arena is not None:
            for index, view in enumerate(views):
                if view.nbytes >= LEAST and (at := self._arena.put(view)):
                    words[index] |= at << _LENGTH_BITS
                    views[index] = memoryview(b"")
        self._outbox.append(memoryview(_COUNT.pack(len(parts)) + b"".join(map(_WORD.pack, words))))
        self._outbox.extend(view.cast("B") for view in views if view.nbytes)
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes.

        Raises:
            OSError: the other end is gone.
        """
        while self._outbox:
            try:
                sent = self.sock.send(self._outbox[0])
            except BlockingIOError:
                return
            if sent == len(self._outbox[0]):
                self._outbox.popleft()
            else:
                self._outbox[0] = self._outbox[0][sent:]

    def ready(self) -> bool:
        """Whether something has come that `receive` would take without waiting."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN)
        return bool(self._poll.poll(0))

    def receive(self) -> list[list[Buffer]] | None:
        """Return the frames that have arrived whole, at least one on a blocking socket; None at its end.

        Raises:
            BadFrame: what comes is no frame of ours.
            OSError: the connection broke.
        """
        frames: list[list[Buffer]] = []
        while True:
            try:
                data = self._read()
            except BlockingIOError:
                return frames
            if data is None:
                return frames or None
            if (part := self._only(data)) is not None:
                return [[part]]
            self._inbox += data
            while self._advance():
                if not self._words:
                    frames.append(self._parts)
                    self._parts = []
            if frames:
                return frames

    def _read(self) -> bytes | None:
        """Read once; return what is not part of a large one, None at the end of the stream."""
        if self._large is not None:
            if self._filled == len(self._large):
                assert isinstance(self._large, mmap.mmap)
                self._large = _grown(self._large, min(2 * self._filled, self._length))
            count = self.sock.recv_into(memoryview(self._large)[self._filled :])
            self._filled += count
            return b"" if count else None
        return self.sock.recv(_CHUNK) or None

    def _only(self, data: bytes) -> bytes | None:
        """Return the part of a frame that came whole and by itself, as nearly all do: it needs no inbox."""
        if self._inbox or self._words or len(data) < _ONE.size:
            return None
        count, word = _ONE.unpack_from(data)
        return data[_ONE.size :] if count == 1 and len(data) == _ONE.size + word else None

    def _advance(self) -> bool:
        """Take one part, or a frame's header, out of what was read; return whether there was one."""
        if self._large is not None:
            if self._filled < self._length:
                return False
            self._take(self._large if isinstance(self._large, bytearray) else memoryview(self._large))
            self._large = None
            return True
        if self._words:
            length = self._words[0]
            if length >> _LENGTH_BITS and self._arena is not None:
                self._take(self._arena.get(length >> _LENGTH_BITS, length & (1 << _LENGTH_BITS) - 1))
                return True
            if len(self._inbox) >= length:
                part = bytes(memoryview(self._inbox)[:length])
                del self._inbox[:length]
                self._take(part)
                return True
            if length > _CHUNK:
                self._large = _memory(min(length, _HUGE))
                self._length, self._filled = length, len(self._inbox)
                self._large[: self._filled] = self._inbox
                self._inbox.clear()
            return False
        if len(self._inbox) < _COUNT.size:
            return False
        (count,) = _COUNT.unpack_from(self._inbox)
        if count > MOST_PARTS:
            raise BadFrame(f"a frame of {count:,} parts")
        size = _COUNT.size + count * _WORD.size
        if len(self._inbox) < size:
            return False
        self._words = [_WORD.unpack_from(self._inbox, _COUNT.size + 8 * i)[0] for i in range(count)]
        lengths = (word if self._arena is None else word & (1 << _LENGTH_BITS) - 1 for word in self._words)
        if (length := sum(lengths)) > self._most:
            raise BadFrame(f"a frame of {length:,} bytes")
        del self._inbox[:size]
        return True

    def _take(self, part: Buffer) -> None:
        self._parts.append(part)
        del self._words[0]

    def close(self) -> None:
        """Close the socket; what was not sent is dropped."""
        self._outbox.clear()
        self.sock.close()


def _memory(length: int) -> bytearray | mmap.mmap:
    """Return memory for a part."""
    if length < _HUGE:
        return bytearray(length)
    return mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _grown(memory: mmap.mmap, length: int) -> mmap.mmap:
    """Return memory of so many bytes that begins with all that is in another."""
    try:
        memory.resize(length)
        return memory
    except SystemError:  # macOS can't
        grown = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        grown[: len(memory)] = memory
        return grown
