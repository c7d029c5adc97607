"""How much memory a process tree holds, and whether the kernel kills for want of it."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from pathlib import Path

from executor.cgroup import kills

#: Seconds between two looks at how often the kernel killed. A process of many gigabytes takes seconds to die.
_LATELY_SECONDS = 10.0


def resident(pid: int, *, enough: int | None = None) -> int:
    """Return the resident size of a process and all its descendants, in bytes; 0 if it is gone.

    Not its address space, of which libraries reserve far more than they use. Pages that several of them
    share are counted for each, as reading is cheap then; but a sum beyond `enough` is made sure of:
    then each page that n processes share counts as an n-th of it (Linux).
    """
    family = descendants(pid)
    sizes = [_resident(member) for member in family]
    total = sum(sizes)
    if enough is None or total <= enough or len(family) == 1:
        return total
    return sum(min(size, _proportional(member, size)) for member, size in zip(family, sizes, strict=True))


def descendants(pid: int) -> list[int]:
    """Return a process and all that descend from it; what ends meanwhile may or may not be there."""
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        import psutil  # macOS, or a kernel without CONFIG_PROC_CHILDREN

        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.Error:
            return [pid]
    family = [pid]
    for member in family:  # it grows meanwhile
        with contextlib.suppress(OSError):  # it ended meanwhile
            for thread in os.listdir(f"/proc/{member}/task"):  # noqa: PTH208 - names are all it needs
                family += _children_of_thread(member, thread)
    return family


def _children_of_thread(pid: int, thread: int | str) -> list[int]:
    """Return the processes that one thread of a process started.

    Raises:
        OSError: it is gone, or the kernel can't say (it was made without CONFIG_PROC_CHILDREN).
    """
    with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:  # noqa: PTH123 - several times a second
        return [int(number) for number in file.read().split()]


def children_of(pid: int) -> list[int]:
    """Return the children of a process of one thread; [] where the system can't say (macOS)."""
    try:
        return _children_of_thread(pid, pid)
    except OSError:  # a kernel without such a file: all processes are asked
        pass
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
    return found


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:  # noqa: PTH123 - several times a second
            return int(file.read(128).split()[1]) * mmap.PAGESIZE
    except FileNotFoundError:
        if Path("/proc/self").exists():  # it is gone
            return 0
    except (OSError, IndexError):
        return 0
    import psutil  # macOS

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _proportional(pid: int, otherwise: int) -> int:
    """Return a process's proportional share of the pages it holds, in bytes; `otherwise` if nobody says."""
    found = None
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    if found is None:
        return min(otherwise, _resident(pid))  # nothing, if it has ended meanwhile
    return int(found[1]) * 1024


class OutOfMemory:
    """Whether the kernel has killed for want of memory lately, where this process is."""

    def __init__(self) -> None:
        self._before = self._after = kills()
        self._look_at = 0.0

    def look(self, now: float) -> None:
        """Note the present count; to be called often while calls run. `now` is on the monotonic clock."""
        if now >= self._look_at:
            self._before, self._after = self._after, kills()
            self._look_at = now + _LATELY_SECONDS

    def lately(self) -> bool | None:
        """Whether it has, within some seconds; None where the system does not tell."""
        count = kills()
        if count is None or self._before is None:
            return None
        return count > self._before
