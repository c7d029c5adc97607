"""What a worker and its child share: the board, and the records that go between them."""

from __future__ import annotations

import mmap
import struct

import msgspec

from executor.errors import BadFrame
from executor.messages import Item, Parts, Report

_reports = msgspec.msgpack.Decoder(list[Report])

#: What reading raises of bytes that are none of ours.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, struct.error)

#: An array of so many in MessagePack: what stands before encoded reports to make them a list.
_LIST_HEAD = struct.Struct(">BI")


#: The words of a board, in order; _SHOWN is the number of reports << 32 | their length in bytes.
_SINCE, _OFFSET, _INDEX, _FIRST, _SHOWN, _TERM = range(6)
_DATA_AT = 6 * 8


class Board:
    """The memory that a child shares with its worker; the child writes, the worker reads.

    It says which item was begun last, by its index, -1 before the first, and since when, on the monotonic
    clock, which all processes of a machine share, and how much epoch seconds are ahead of that. Then come the
    reports that have not been sent yet: the index of the first one's item, their number and length, and they
    themselves.

    The worker may look at any moment, and a child may be killed at any. So each word is stored whole, by
    one instruction (`struct.pack_into` would write zeros first), and last the one that makes the others
    count: what is read always belongs together.

    One word is the worker's: the term. Items are given in terms, and only those of the present one may begin.
    A child says that an item begins and then looks at the term; a worker that takes items back begins another
    term, has all processes pass a `fence`, and then looks what has begun. So both always agree.
    """

    SIZE = 128 * 1024
    ROOM = SIZE - _DATA_AT

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self._times = memoryview(self._memory).cast("d")
        self._words = memoryview(self._memory).cast("q")
        self.count = 0  # of the reports that are shown
        self._end = _DATA_AT

    # -- the child's

    def set_clock(self, offset: float) -> None:
        """Say how many seconds the epoch's clock is ahead of the monotonic one; nothing may run just now."""
        self._times[_OFFSET] = offset

    def begin(self, index: int, since: float, term: int = 0) -> bool:
        """Say that the item at `index` begins; return False if it must not, as its term is over."""
        # The other way round it would for a moment have run since the one before it began.
        self._times[_SINCE] = since
        self._words[_INDEX] = index
        if self._words[_TERM] == term:
            return True
        self._words[_INDEX] = index - 1
        return False

    def add(self, report: bytes) -> bool:
        """Show a report that has not been sent; return False if there is no room for it."""
        at = self._end
        end = at + len(report)
        if end > self.SIZE:
            return False
        self._memory[at:end] = report
        self._end = end
        self.count += 1
        self._words[_SHOWN] = self.count << 32 | end - _DATA_AT
        return True

    def shown(self) -> msgspec.Raw:
        """Return the list of the reports that are shown, in MessagePack."""
        return as_list(self.count, self._memory[_DATA_AT : self._end])

    def sent(self, upto: int) -> None:
        """Say that all reports before the index `upto` have been sent."""
        self.count, self._end = 0, _DATA_AT
        self._words[_SHOWN] = 0
        self._words[_FIRST] = upto

    # -- the worker's

    def set_term(self, term: int) -> None:
        """Begin another term; what has begun of the last one is known after a `fence`."""
        self._words[_TERM] = term

    def begun(self) -> int:
        """Return the index of the item that was begun last."""
        return self._words[_INDEX]

    def running(self) -> tuple[int, float, float]:
        """Return (index, since, epoch): what was begun last, and when on both clocks."""
        while True:
            index = self._words[_INDEX]
            since, offset = self._times[_SINCE], self._times[_OFFSET]
            if self._words[_INDEX] == index:
                return index, since, since + offset  # or of the next one, if that is about to begin

    def unsent(self) -> tuple[int, list[Report]]:
        """Return the index of the first report that has not been sent, and the reports."""
        for _ in range(3):  # the child may write meanwhile; what then was missed comes in its next frame
            first, shown = self._words[_FIRST], self._words[_SHOWN]
            count, length = shown >> 32, shown & 0xFFFFFFFF
            data = self._memory[_DATA_AT : _DATA_AT + length]
            if self._words[_FIRST] == first:
                try:
                    return first, _reports.decode(as_list(count, data)) if count else []
                except _UNREADABLE:
                    break  # the user's code wrote here
        return 0, []

    def close(self) -> None:
        """Unmap the memory."""
        self._times.release()
        self._words.release()
        self._memory.close()


class Batch(msgspec.Struct, array_like=True, gc=False):
    """Items for a child, in order, and the cores to run them on; `pin` says whether to pin to them.

    `first` is the index of the first item, counted over all that the child was ever sent; `term` is the one
    in which they may begin. `linger` is the seconds that reports may wait while there is more to run.
    """

    first: int
    term: int
    cores: tuple[int, ...]
    pin: bool
    linger: float
    items: list[Item]


class Done(msgspec.Struct, array_like=True, gc=False):
    """Reports of the `count` items from index `first` on; so many `batches` ended since the last such frame.

    `worn` says that tasks left threads or processes behind: this child must be replaced. `began` is when the
    first of the items began and `ended` when the last one ended, in epoch seconds, None if none ever began.
    `reports` is their list in MessagePack, so that the worker can pass them on as they are.
    """

    first: int
    count: int
    batches: int
    worn: bool
    began: float | None
    ended: float | None
    reports: msgspec.Raw


_done = msgspec.msgpack.Decoder(Done)


def read_done(frame: Parts) -> tuple[Done, list[Report]]:
    """Return what a child sent, and the reports in it: they are whole, as they travel on unread.

    Raises:
        BadFrame: it is no such frame. The user's code runs in a child, and may send anything.
    """
    if not frame:
        raise BadFrame("an empty frame")
    try:
        done = _done.decode(frame[0])
        reports = _reports.decode(done.reports)
    except _UNREADABLE as error:
        raise BadFrame(f"a child's frame that can't be read: {error}") from error
    count, buffers = len(reports), 0
    for report in reports:
        buffers += report.buffers
    head = memoryview(done.reports)[: _LIST_HEAD.size]  # in that form they are joined to others
    if (done.count, buffers) != (count, len(frame) - 1) or head != _LIST_HEAD.pack(0xDD, count):
        raise BadFrame(f"a child's frame of {count} reports that are not as it says")
    return done, reports


def as_list(count: int, reports: bytes) -> msgspec.Raw:
    """Return so many reports, encoded one after the other, as one list in MessagePack."""
    return msgspec.Raw(_LIST_HEAD.pack(0xDD, count) + reports)
