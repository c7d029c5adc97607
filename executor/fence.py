"""A fence between two processes that costs only one of them anything.

Two processes share memory. The one says which call it begins and then looks whether it may; the other takes
that permission away and then looks what has begun:

    child                       worker
    begun = 7                   admitted = 2
    if admitted != 1: refuse    fence()
    run 7                       take back what is behind `begun`

Both store first and load afterwards, and never must both loads miss the other's store: then the call would
run and be taken back. But a CPU may delay a store behind a later load. A barrier in between forbids that; in
the child it would have to stand before each call, and Python has none. So the worker has the kernel execute
one on every CPU that runs a registered process (membarrier(2)), which takes a microsecond or two; a process
that does not run just then passed one when it was taken off its CPU. That barrier falls somewhere among the
child's instructions. If it comes before the load, the load sees the worker's store, and the child refuses. If
it comes after the load, it comes after the store before it, too, and the worker sees what has begun.

Where there is no membarrier(2) the worker waits instead: a store stays in a CPU's buffer for well below a
microsecond, and no longer than until its process is taken off, so that after a millisecond all see it.
"""

from __future__ import annotations

import functools
import platform
import sys
import time
from collections.abc import Callable

#: linux/membarrier.h
_QUERY, _GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 0, 1 << 1, 1 << 2

#: membarrier(2) on each machine.
_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283}

_WAIT_SECONDS = 0.001


@functools.cache
def _membarrier() -> Callable[[int], int] | None:
    """Return the system call, if this system has it and lets us use it."""
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return None
    import ctypes  # 10 ms that a process need not spend before

    call = ctypes.CDLL(None, use_errno=True).syscall

    def membarrier(command: int) -> int:
        return int(call(number, command, 0, 0))

    known = membarrier(_QUERY)  # -1 if it is unknown, or forbidden
    needed = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    return membarrier if known > 0 and known & needed == needed else None


def register() -> None:
    """Have this process pass a barrier wherever another calls `fence`."""
    if (membarrier := _membarrier()) is not None:
        membarrier(_REGISTER_GLOBAL_EXPEDITED)


def fence() -> None:
    """Have every registered process pass a barrier."""
    membarrier = _membarrier()
    if membarrier is None or membarrier(_GLOBAL_EXPEDITED) != 0:
        time.sleep(_WAIT_SECONDS)
