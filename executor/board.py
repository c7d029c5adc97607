"""What a worker and its child share: the board, and the records that go between them."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

import msgspec

from executor.messages import Item, Report

_reports = msgspec.msgpack.Decoder(list[Report])

#: An array of so many in MessagePack: what stands before encoded reports to make them a list.
_LIST_HEAD = struct.Struct(">BI")


#: The words of a board, in order; the last one is the number of reports << 32 | their length in bytes.
_SINCE, _EPOCH, _INDEX, _FIRST, _SHOWN = range(5)
_DATA_AT = 5 * 8


class Board:
    """The memory that a child shares with its worker; the child writes, the worker reads.

    It says which item was begun last, by its index, -1 before the first, and since when, on the monotonic
    clock, which all processes of a machine share, and in epoch seconds. Then come the reports that have not
    been sent yet: the index of the first one's item, their number and length, and they themselves.

    The worker may look at any moment, and a child may be killed at any. So each word is stored whole, by
    one instruction (`struct.pack_into` would write zeros first), and last the one that makes the others
    count: what is read always belongs together.
    """

    SIZE = 128 * 1024
    ROOM = SIZE - _DATA_AT

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self._times = memoryview(self._memory).cast("d")
        self._words = memoryview(self._memory).cast("q")
        self._count = self._length = 0

    def begin(self, index: int, since: float, epoch: float) -> None:
        """Say that the item at `index` begins, on both clocks."""
        # The other way round it would for a moment have run since the one before it began.
        self._times[_SINCE] = since
        self._times[_EPOCH] = epoch
        self._words[_INDEX] = index

    def add(self, report: bytes) -> bool:
        """Show a report that has not been sent; return False if there is no room for it."""
        length = self._length + len(report)
        if length > self.ROOM:
            return False
        at = _DATA_AT
        self._memory[at + self._length : at + length] = report
        self._length = length
        self._count += 1
        self._words[_SHOWN] = self._count << 32 | length
        return True

    def sent(self, upto: int) -> None:
        """Say that all reports before the index `upto` have been sent."""
        self._count = self._length = 0
        self._words[_SHOWN] = 0
        self._words[_FIRST] = upto

    def running(self) -> tuple[int, float, float]:
        """Return (index, since, epoch) as `begin` took them."""
        while True:
            index = self._words[_INDEX]
            since, epoch = self._times[_SINCE], self._times[_EPOCH]
            if self._words[_INDEX] == index:
                return index, since, epoch  # or of the next one, if that is about to begin

    def unsent(self) -> tuple[int, list[Report]]:
        """Return the index of the first report that has not been sent, and the reports."""
        for _ in range(3):  # the child may write meanwhile; what then was missed comes in its next frame
            first, shown = self._words[_FIRST], self._words[_SHOWN]
            count, length = shown >> 32, shown & 0xFFFFFFFF
            data = self._memory[_DATA_AT : _DATA_AT + length]
            if self._words[_FIRST] == first:
                return first, _reports.decode(_LIST_HEAD.pack(0xDD, count) + data) if count else []
        return 0, []

    def close(self) -> None:
        """Unmap the memory."""
        self._times.release()
        self._words.release()
        self._memory.close()


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Items for a child, in order, and the cores to run them on; `pin` says whether to pin to them.

    `first` is the index of the first item, counted over all that the child was ever sent; `epoch` is the
    value of the tokens that came with them.
    """

    first: int
    epoch: int
    cores: tuple[int, ...]
    pin: bool
    items: list[Item]


class Done(msgspec.Struct, array_like=True, gc=False):
    """Reports of the `count` items from index `first` on; `last` ends a batch.

    `worn` says that tasks left threads or processes behind: this child must be replaced. `began` is when the
    first of the items began and `ended` when the last one ended, in epoch seconds, None if none ever began.
    `reports` is their list in MessagePack, so that the worker can pass them on as they are.
    """

    first: int
    count: int
    last: bool
    worn: bool
    began: float | None
    ended: float | None
    reports: msgspec.Raw


def as_list(reports: Sequence[bytes]) -> msgspec.Raw:
    """Return reports that are encoded already as one list in MessagePack."""
    return msgspec.Raw(b"".join((_LIST_HEAD.pack(0xDD, len(reports)), *reports)))
