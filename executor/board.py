"""What a worker and its child share: the board, and the records that go between them."""

from __future__ import annotations

import mmap
import struct

import msgspec

from executor.messages import Item, Report

_reports = msgspec.msgpack.Decoder(list[Report])

#: An array of so many in MessagePack: what stands before encoded reports to make them a list.
_LIST_HEAD = struct.Struct(">BI")


class Board:
    """The memory that a child shares with its worker; the child writes, the worker reads.

    `running` is the index of the item that was last begun, -1 before the first, and `since`
    when, on the monotonic clock, which all processes of a machine share. Then the reports that have not
    been sent yet: `frames` counts the frames sent before them and tells the reader whether what it read
    is of one piece; `first` is the index of the first report, then their number and length.
    """

    SIZE = 128 * 1024
    _STATE = struct.Struct("<qdd")
    _REPORTS = struct.Struct("<QQQQ")
    _REPORTS_AT = _STATE.size
    _DATA_AT = _STATE.size + _REPORTS.size
    ROOM = SIZE - _DATA_AT

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self._frames = self._first = self._count = self._length = 0

    def begin(self, index: int, since: float, epoch: float) -> None:
        """Say that the item at `index` begins, on both clocks."""
        self._STATE.pack_into(self._memory, 0, index, since, epoch)

    def add(self, report: bytes) -> bool:
        """Show a report that has not been sent; return False if there is no room for it."""
        length = self._length + len(report)
        if length > self.ROOM:
            return False
        at = self._DATA_AT
        self._memory[at + self._length : at + length] = report
        self._length = length
        self._count += 1
        self._note()
        return True

    def sent(self, upto: int) -> None:
        """Say that all reports before the index `upto` have been sent."""
        self._frames += 1
        self._first, self._count, self._length = upto, 0, 0
        self._note()

    def _note(self) -> None:
        self._REPORTS.pack_into(
            self._memory, self._REPORTS_AT, self._frames, self._first, self._count, self._length
        )

    def running(self) -> tuple[int, float, float]:
        """Return (index, since, epoch) as `begin` took them."""
        index, since, epoch = self._STATE.unpack_from(self._memory, 0)
        return index, since, epoch

    def unsent(self) -> tuple[int, list[Report]]:
        """Return the index of the first report that has not been sent, and the reports."""
        for _ in range(3):  # the child may write meanwhile; what then was missed comes in its next frame
            head = self._REPORTS.unpack_from(self._memory, self._REPORTS_AT)
            frames, first, count, length = head
            data = self._memory[self._DATA_AT : self._DATA_AT + length]
            if self._REPORTS.unpack_from(self._memory, self._REPORTS_AT)[0] == frames:
                return first, _reports.decode(_LIST_HEAD.pack(0xDD, count) + data) if count else []
        return 0, []

    def close(self) -> None:
        """Unmap the memory."""
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
    """Reports of the items from index `first` on; `last` ends a batch.

    `worn` says that tasks left threads or processes behind: this child must be replaced.
    """

    first: int
    last: bool
    worn: bool
    reports: list[Report]


#: `Done` in MessagePack, up to its list of reports: an array of 4, a u64, two truths, a list.
_DONE_HEAD = struct.Struct(">BBQBBBI")


def encode_done(first: int, last: bool, worn: bool, reports: list[bytes]) -> bytes:
    """Return a `Done` around reports that are encoded already."""
    truth = (0xC2, 0xC3)
    head = _DONE_HEAD.pack(0x94, 0xCF, first, truth[last], truth[worn], 0xDD, len(reports))
    return b"".join((head, *reports))
