"""Cgroups (cgroups(7)): the one this process is in, and groups of their own for the children of a worker.

A group bounds the memory of all its processes to the byte, at once, and whatever they share; a worker may
make some only where its own group is *delegated* to it, and it is the only process there. So it is for a
service of systemd with ``Delegate=memory``; elsewhere the worker watches what its children hold.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

#: The group that a worker moves to, as one that has groups with limits can't have processes, too.
_LEAF = "function-executor"

#: How systemd marks a group that it leaves to others: root may write everywhere, and must look for it.
_MARKS = ("trusted.delegate", "user.delegate")


def lineage(controller: str, root: Path = Path("/"), groups: str | None = None) -> Iterator[tuple[int, Path]]:
    """Give this process's group for a controller, and each above it: its version, 1 or 2, and its folder.

    In a container some or all of the folders may not be there. `root` and `groups` stand for the file
    system and the text of /proc/self/cgroup in tests.
    """
    if groups is None:
        try:
            groups = (root / "proc/self/cgroup").read_text()
        except OSError:  # not Linux
            return
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            version, bases = 2, ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            version, bases = 1, [f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}"]
        else:
            continue
        for base in bases:
            folder = root / base / path.strip("/")
            while folder.is_relative_to(root / base):
                yield version, folder
                folder = folder.parent


def kills(root: Path = Path("/"), groups: str | None = None) -> int | None:
    """Return how often the kernel killed for want of memory in this process's group, or else anywhere.

    None if it does not tell. Whom it killed it tells nobody but the log, which is not for everybody to read.
    """
    files = [
        folder / ("memory.events" if version == 2 else "memory.oom_control")
        for version, folder in lineage("memory", root, groups)
        if folder.name != _LEAF  # there no task runs
    ]
    for file in (*files, root / "proc/vmstat"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
            if found:
                return int(found[1])
    return None


def delegated(root: Path = Path("/"), groups: str | None = None) -> Path | None:
    """Return the folder where this process may make groups with limits on memory; None if there is none.

    The process moves out of it, into a group below.
    """
    own = next((each for version, each in lineage("memory", root, groups) if version == 2), None)
    if own is None:
        return None
    if own.name == _LEAF:  # it moved before
        own = own.parent
    leaf, pid = own / _LEAF, str(os.getpid())
    try:
        if "memory" in (own / "cgroup.subtree_control").read_text().split():
            return own if leaf.is_dir() else None
        if "memory" not in (own / "cgroup.controllers").read_text().split() or not _is_ours(own):
            return None
        if (own / "cgroup.procs").read_text().split() != [pid]:
            return None
        leaf.mkdir()
        (leaf / "cgroup.procs").write_text(pid)
        (own / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        with contextlib.suppress(OSError):  # back to where it was
            (own / "cgroup.procs").write_text(pid)
            leaf.rmdir()
        return None
    return own


def _is_ours(folder: Path) -> bool:
    """Whether a group is left to us: to a user, what the user may write to; to root, what is marked."""
    if os.geteuid() != 0:
        return os.access(folder, os.W_OK)
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, mark) == b"1":
                return True
    return False


class Group:
    """The group of the child process `pid` and all its descendants, in the folder of a `delegated` one."""

    def __init__(self, parent: Path, pid: int) -> None:
        self._folder = parent / f"child-{pid}"
        self._limit: int | None = None

    def enter(self) -> None:
        """Make it, and move this process there.

        Raises:
            OSError: that can't be.
        """
        self.remove()  # one that was left of a process of the same number
        self._folder.mkdir()
        with contextlib.suppress(OSError):  # a kernel without swap has no such file
            (self._folder / "memory.swap.max").write_text("0")
        (self._folder / "memory.oom.group").write_text("1")
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def bound(self, limit: int | None) -> None:
        """Let its processes hold `limit` bytes together (None: any number); beyond it all are killed."""
        if limit != self._limit:
            self._limit = limit
            with contextlib.suppress(OSError):  # then its worker's watching must do
                (self._folder / "memory.max").write_text("max" if limit is None else str(limit))

    def exceeded(self) -> bool:
        """Whether its processes were killed for its limit."""
        try:
            events = dict(line.split() for line in (self._folder / "memory.events").read_text().splitlines())
        except (OSError, ValueError):
            return False
        return int(events.get("oom", 0)) > 0 and int(events.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        """Remove it, when its processes are dead."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
