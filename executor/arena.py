"""Memory that a worker and a child share for large buffers, which need not go through their socket then.

Each end writes into a half of its own, in *cells* of one size, and says where (see `executor.channel`). The
other maps what it is told of: a *loan*, which nobody copies. One byte for each cell, in the first cell of its
half, says whether it is taken. The end that writes sets it; the one that reads clears it when nothing uses
the loan any more, be it long after.

What a child is lent is its own to change: a page that it writes to is copied then, by the kernel. The memory
lies in no file system, so nothing of it outlives the two processes.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from functools import partial

from executor.errors import BadFrame
from executor.messages import Buffer

#: Bytes of a cell: a multiple of every system's pages.
CELL = 1 << 16

#: Cells of a half, the first of which holds no data: so many bytes are a child's at most beside its own.
CELLS = 257

#: Bytes from which a buffer is lent. To map and unmap less costs more than to copy it twice.
LEAST = 1 << 18

_HALF = CELL * CELLS

#: Maps all pages at once, where the system knows that: faults cost as much as to copy.
_POPULATE = getattr(mmap, "MAP_POPULATE", 0)


class Arena:
    """One end of the memory behind `descriptor`, a file of `SIZE` bytes, which it duplicates."""

    SIZE = 2 * _HALF

    def __init__(self, descriptor: int, *, child: bool) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self._descriptor = os.dup(descriptor)  # last, as nobody would close it if anything failed
        self._out, self._in = (_HALF, 0) if child else (0, _HALF)
        # A child may change what it is lent, where a worker only passes it on.
        self._flags = mmap.MAP_PRIVATE if child else mmap.MAP_SHARED | _POPULATE
        self._access = mmap.PROT_READ | mmap.PROT_WRITE if child else mmap.PROT_READ
        self._pid = os.getpid()

    def put(self, buffer: memoryview) -> int:
        """Copy a buffer into cells that are free; return the first one's number, or 0 if there is no room."""
        count = _cells(buffer.nbytes)
        flags = self._memory.find(bytes(count), self._out + 1, self._out + CELLS)
        if flags < 0:
            return 0
        at = flags - self._out
        start = self._out + at * CELL
        self._memory[start : start + buffer.nbytes] = buffer.cast("B")
        self._memory[flags : flags + count] = b"\1" * count
        return at

    def get(self, at: int, length: int) -> Buffer:
        """Return the `length` bytes that the other end put into the cells from `at` on.

        Raises:
            BadFrame: there are no such cells.
        """
        if not (0 < at < CELLS and 0 < length <= (CELLS - at) * CELL):
            raise BadFrame(f"{length} bytes in cell {at} of {CELLS}")
        start = self._in + at * CELL
        try:
            loan = _Loan(self._descriptor, length, self._flags, self._access, offset=start)
        except OSError:  # each takes a descriptor, of which there may be no more
            copy = bytearray(memoryview(self._memory)[start : start + length])
            self._release(at, length)
            return copy
        loan.over = partial(self._release, at, length)
        return memoryview(loan)

    def _release(self, at: int, length: int) -> None:
        """Let the other end use these cells again."""
        # A copy of this process, which a task has forked, must not: here they may be in use.
        if not self._memory.closed and os.getpid() == self._pid:
            count = _cells(length)
            self._memory[self._in + at : self._in + at + count] = bytes(count)

    def close(self) -> None:
        """Let go of it; what is lent stays as it is."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self._descriptor)


class _Loan(mmap.mmap):
    """Cells of the other end, until nothing refers to them any more."""

    #: Called then; None as long as it is not one.
    over: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.over is not None:
            self.over()


def _cells(length: int) -> int:
    return -(-length // CELL)
