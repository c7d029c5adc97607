"""Frames in pieces of bounded size, for wires whose messages should not be too long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from executor.bounds import MOST_PARTS
from executor.errors import BadFrame
from executor.messages import Buffer, Parts

#: Bytes of a frame's parts in one piece: small beside what a network carries in a heartbeat, large beside
#: what a message costs.
PIECE_BYTES = 2 << 20

#: Parts in one piece: their own cost counts too.
PIECE_MOST = 4096


class Piece(NamedTuple):
    """Some of a frame's parts.

    `continues`: the first of them belongs to the last part of the piece before. `last`: the frame is
    complete.
    """

    parts: Sequence[bytes]
    continues: bool
    last: bool


def split(frame: Parts, size: int = PIECE_BYTES) -> Iterator[Piece]:
    """Return the pieces of a frame, each of at most `size` bytes."""
    parts: list[bytes] = []
    room, continues = size, False
    for part in frame:
        view = memoryview(part).cast("B") if len(part) > room else None
        if view is None:
            parts.append(bytes(part))
            room -= len(part)
        else:
            start = 0
            while start < len(view):
                if not room:
                    yield Piece(parts, continues, False)
                    parts, room, continues = [], size, start > 0
                parts.append(bytes(view[start : start + room]))
                start += len(parts[-1])
                room -= len(parts[-1])
        if len(parts) >= PIECE_MOST:
            yield Piece(parts, continues, False)
            parts, room, continues = [], size, False
    yield Piece(parts, continues, True)


def together(frames: Iterable[Parts], size: int = PIECE_BYTES) -> Iterator[list[Piece]]:
    """Return the pieces of frames, in order, as many together as have at most `size` bytes."""
    some: list[Piece] = []
    room = size
    for frame in frames:
        for piece in split(frame, size):
            length = sum(map(len, piece.parts))
            if some and length > room:
                yield some
                some, room = [], size
            some.append(piece)
            room -= length
    if some:
        yield some


class Joiner:
    """Puts frames together again. `most` bounds a frame's bytes, against a peer gone mad."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: list[bytes | bytearray] = []
        self._size = 0

    def add(self, piece: Piece) -> list[Buffer] | None:
        """Add a piece; return the frame if it is complete, else None.

        Raises:
            BadFrame: the piece doesn't follow on those before, has nothing in it, or the frame is too large.
        """
        if not piece.parts and not piece.last:
            raise BadFrame("a piece of nothing")
        self._size += sum(len(part) for part in piece.parts) + len(piece.parts)
        if self._size > self._most:
            raise BadFrame(f"a frame of more than {self._most:,} bytes")
        parts: Sequence[bytes] = piece.parts
        if len(self._parts) + len(parts) > MOST_PARTS:
            raise BadFrame(f"a frame of more than {MOST_PARTS:,} parts")
        if piece.continues:
            if not self._parts or not parts:
                raise BadFrame("a piece that continues nothing")
            # It grows in place, and is writable: whoever reads an array in it need not copy it.
            part = self._parts[-1]
            if isinstance(part, bytes):
                part = self._parts[-1] = bytearray(part)
            part += parts[0]
            parts = parts[1:]
        self._parts.extend(parts)
        if not piece.last:
            return None
        frame: list[Buffer] = [*self._parts]
        self._parts, self._size = [], 0
        return frame
