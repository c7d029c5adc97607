"""Decisions out of bytes: from them an input of a state machine is read, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads decisions from bytes; behind their end every decision is the first one there is."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def below(self, bound: int) -> int:
        """Return a number from 0 to below `bound`, which is at least 1."""
        if bound <= 256:  # nearly always
            at, self._at = self._at, self._at + 1
            return self._data[at] % bound if at < len(self._data) else 0
        width = ((bound - 1).bit_length() + 7) // 8
        return int.from_bytes(self.bytes(width), "big") % bound

    def one(self, of: Sequence[T]) -> T:
        return of[self.below(len(of))]

    def chance(self, percent: int) -> bool:
        return self.below(100) >= 100 - percent  # bytes that are at their end decide for no

    def bytes(self, count: int) -> bytes:
        """Return the next bytes, or what is left of them."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def rest(self) -> bytes:
        return self.bytes(max(0, len(self._data) - self._at))

    def random(self) -> Random:
        """Return a generator for what needs many decisions."""
        return Random(self.bytes(4))


def parts(data: bytes) -> list[bytes | bytearray | memoryview]:
    """Cut bytes into a head and up to three buffers: any bytes are some frame."""
    choices = Choices(data)
    lengths = [choices.below(1 << 16) for _ in range(choices.below(4))]
    buffers = [bytearray(choices.bytes(length)) for length in lengths]
    return [choices.rest(), *buffers]


def whole(head: bytes, *buffers: bytes) -> bytes:
    """Return the bytes of which `parts` makes these, of buffers below 64 KiB."""
    lengths = b"".join(len(buffer).to_bytes(2, "big") for buffer in buffers)
    return bytes([len(buffers)]) + lengths + b"".join(buffers) + head
