"""Which cores there are, which of them may be used, and which of those a task gets.

A core here is a logical CPU, known by the number that the operating system gives it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from executor.cgroup import lineage

_CPUS = Path("/sys/devices/system/cpu")


class Granted(NamedTuple):
    """The cores that this process may use: `ids` in topological order, and who limits them."""

    ids: tuple[int, ...]
    by: str


class Place(NamedTuple):
    """Where a core lies: its NUMA node, its package, and the first logical CPU of its physical core."""

    node: int
    package: int
    physical: int


class CoreSet:
    """The cores of one worker, and which of them are free.

    `ids` are in topological order, and `places` says where each lies; without it, they are all alike.
    With `pinned` False they are slot numbers and no process is pinned to them.
    """

    def __init__(
        self, ids: Sequence[int], *, pinned: bool, places: Mapping[int, Place] | None = None
    ) -> None:
        self.ids = tuple(ids)
        self.pinned = pinned
        found = {core: Place(0, 0, core) if places is None else places[core] for core in ids}
        siblings: dict[Place, list[int]] = {}
        for core in ids:
            siblings.setdefault(found[core], []).append(core)
        # Of each physical core, by its position: its cores, those that are free, their number, and their
        # number if all of them are.
        self._all = list(siblings.values())
        self._free = [list(cores) for cores in self._all]
        self._left = [len(cores) for cores in self._all]
        self._whole = list(self._left)
        #: How many cores no task has.
        self.free = len(self.ids)
        self._position = {core: position for position, cores in enumerate(self._all) for core in cores}
        # Groups of physical cores, by their positions, within which a task's cores should lie: from the
        # nearest to all. A machine that says nothing of its nodes has them all in node 0.
        nodes: dict[tuple[int, int], list[int]] = {}
        packages: dict[int, list[int]] = {}
        for position, (node, package, _) in enumerate(siblings):
            nodes.setdefault((node, package), []).append(position)
            packages.setdefault(package, []).append(position)
        self._levels = [list(nodes.values()), list(packages.values()), [list(range(len(siblings)))]]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, width: int) -> tuple[int, ...]:
        """Reserve `width` cores, at most `free`; return them in topological order.

        They are physical cores of which no other task has a part, as long as there are enough, and lie in
        one NUMA node, else one package, if one of them has so many left: the one that has the fewest, so
        that room for wide tasks stays. What is over of a physical core is taken only when no whole
        ones are left.
        """
        if not 0 < width <= self.free:
            raise ValueError(f"{width} cores of {self.free} free ones")
        self.free -= width
        if not self.free:  # there is nothing to choose
            taken = tuple(chain.from_iterable(self._free))
            for free in self._free:
                free.clear()
            self._left, self._whole = [0] * len(self._all), [0] * len(self._all)
            return taken
        positions = self._nearest(self._whole, width)
        if positions is None:
            positions = self._nearest(self._left, width)
            assert positions is not None
            positions.sort(key=lambda position: not self._whole[position])
        chosen: list[tuple[int, list[int]]] = []
        for position in positions:
            free = self._free[position]
            chosen.append((position, free[:width]))
            width -= len(chosen[-1][1])
            del free[: len(chosen[-1][1])]
            self._left[position], self._whole[position] = len(free), 0
            if not width:
                break
        return tuple(core for _, cores in sorted(chosen) for core in cores)

    def _nearest(self, sizes: Sequence[int], width: int) -> list[int] | None:
        """Return positions of physical cores, near to one another, that have `width` cores between them.

        `sizes` says how many each has to give. Of what would do, that with the least is chosen, so
        that large room stays whole.
        """
        for groups in self._levels:
            group = _least(groups, sizes, width)
            if group is not None:
                runs: list[list[int]] = [[]]
                for position in group:
                    if sizes[position]:
                        runs[-1].append(position)
                    elif runs[-1]:
                        runs.append([])
                run = _least(runs, sizes, width)
                return list(run) if run is not None else [position for some in runs for position in some]
        return None

    def give(self, cores: Iterable[int]) -> None:
        """Free cores that `take` gave."""
        for core in cores:
            position = self._position[core]
            free, every = self._free[position], self._all[position]
            if core not in free:
                self.free += 1
                free.append(core)
                free.sort(key=every.index)
            self._left[position] = len(free)
            self._whole[position] = len(free) if len(free) == len(every) else 0


def _least(groups: Iterable[list[int]], sizes: Sequence[int], width: int) -> list[int] | None:
    """Return the group of positions that has the least of those that have `width`."""
    found: tuple[int, list[int]] | None = None
    for group in groups:
        size = sum([sizes[position] for position in group])
        if size >= width and (found is None or size < found[0]):
            found = (size, group)
    return None if found is None else found[1]


def granted(environ: Mapping[str, str] = os.environ) -> Granted:
    """Return the cores that the machine, its cgroup and Slurm really grant, whichever gives least.

    The affinity mask says which; the cgroup's CPU quota and SLURM_CPUS_PER_TASK may only lower their
    number (the standard library ignores the quota: cpython#149452).
    """
    if sys.platform == "linux":
        ids = in_topological_order(os.sched_getaffinity(0))
        by = "the machine" if len(ids) == os.cpu_count() else "the affinity mask"
    else:
        ids = tuple(range(os.cpu_count() or 1))
        by = "the machine"
    quota = cgroup_quota()
    if quota is not None and math.ceil(quota) < len(ids):
        ids, by = ids[: max(1, math.ceil(quota))], "the cgroup's CPU quota"
    slurm = environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdecimal() and 0 < int(slurm) < len(ids):
        ids, by = ids[: int(slurm)], "SLURM_CPUS_PER_TASK"
    return Granted(ids, by)


def choose(
    wanted: int | None, *, pin: bool = True, environ: Mapping[str, str] = os.environ
) -> tuple[CoreSet, str]:
    """Return a worker's cores for ``--cores wanted`` (None: all granted), and a remark for its user, or "".

    More than are granted is allowed: then nothing is pinned, and the cores are slots numbered from 0.
    """
    have = granted(environ)
    count = len(have.ids) if wanted is None else wanted
    if count > len(have.ids):
        remark = f"{count:,} cores, but {have.by} grants {len(have.ids)}: tasks share them and are not pinned"
        return CoreSet(range(count), pinned=False), remark
    if not pin:
        return CoreSet(range(count), pinned=False), ""
    if sys.platform != "linux":
        return CoreSet(
            range(count), pinned=False
        ), f"tasks are not pinned: {sys.platform} can't pin processes"
    ids = have.ids[:count]
    return CoreSet(ids, pinned=True, places={core: _place(core) for core in ids}), ""


def share(ids: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Divide cores among `parts` workers: neighbours together, sizes differing by one at most.

    With more workers than cores the last ones get none.
    """
    size, extra = divmod(len(ids), parts)
    shares, start = [], 0
    for part in range(parts):
        end = start + size + (part < extra)
        shares.append(tuple(ids[start:end]))
        start = end
    return shares


def in_topological_order(ids: Iterable[int]) -> tuple[int, ...]:
    """Sort core ids so that neighbours share most: NUMA node, package, physical core, then number."""
    return tuple(sorted(ids, key=lambda core: (*_place(core), core)))


def _place(core: int) -> Place:
    """Return where a core lies, from /sys."""
    folder = _CPUS / f"cpu{core}"
    node = package = 0
    physical = core
    with contextlib.suppress(OSError, ValueError):  # not Linux, or a sandbox without /sys: all alike
        node = min(int(entry.name[4:]) for entry in folder.glob("node[0-9]*"))
    with contextlib.suppress(OSError, ValueError):
        package = int((folder / "topology/physical_package_id").read_text())
    with contextlib.suppress(OSError, ValueError):
        text = (folder / "topology/thread_siblings_list").read_text()
        physical = min(parse_cpu_list(text))
    return Place(node, package, physical)


def parse_cpu_list(text: str) -> list[int]:
    """Read the kernel's form of a set of CPUs, such as ``0-3,8`` (Documentation/admin-guide/cputopology).

    Raises:
        ValueError: it is not of that form.
    """
    cpus: list[int] = []
    for piece in text.strip().split(","):
        first, dash, last = piece.partition("-")
        cpus.extend(range(int(first), int(last if dash else first) + 1))
    return cpus


def spans(numbers: list[int]) -> str:
    """Write sorted numbers as ``0-3,8``."""
    pieces: list[list[int]] = []
    for number in numbers:
        if pieces and number == pieces[-1][1] + 1:
            pieces[-1][1] = number
        else:
            pieces.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in pieces)


def named(cores: Iterable[int]) -> str:
    """Write at least one core as ``core 3``, several as ``cores 0-3,8``."""
    ids = sorted(cores)
    return f"core{'s' * (len(ids) > 1)} {spans(ids)}"


def cgroup_quota(root: Path = Path("/"), groups: str | None = None) -> float | None:
    """Return how many cores' worth of time the cgroup allows, or None without a limit.

    Every group from this process's own up to the top may set one, and the least holds (cgroup v2:
    ``cpu.max``; v1: ``cpu.cfs_quota_us``). `root` and `groups` are as in `executor.cgroup.lineage`.
    """
    quotas = [
        quota
        for version, folder in lineage("cpu", root, groups)
        if (quota := _quota_v2(folder) if version == 2 else _quota_v1(folder)) is not None
    ]
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # the top group has no such file
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 and period > 0 else None
    except (OSError, ValueError):
        return None
