"""Which other workers of this user run on this machine, so that one can say whose cores it shares."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

import msgspec

from executor.cores import named
from executor.private import Lock, private_folder, runtime_folder


class Neighbour(NamedTuple):
    """Another worker that lives, and its cores."""

    pid: int
    name: str
    cores: list[int]


class Presence:
    """Makes a worker known to its neighbours for as long as its process lives.

    Each worker holds the lock on a file that names its cores; a file that nobody has locked is a dead
    worker's and is removed.

    Raises:
        ConfigError: the user's private folder can't be used.
    """

    def __init__(self, name: str, cores: tuple[int, ...]) -> None:
        self._folder = private_folder(runtime_folder() / "workers")
        self._path = self._folder / f"{os.getpid()}"
        self._lock = Lock(self._path)
        self._lock.acquire()
        self._path.write_bytes(msgspec.json.encode(Neighbour(os.getpid(), name, list(cores))))
        self._cores = set(cores)

    def overlapping(self) -> list[Neighbour]:
        """Return the workers that live on some of the same cores."""
        found: list[Neighbour] = []
        for path in self._folder.iterdir():
            if path == self._path:
                continue
            with contextlib.suppress(OSError, msgspec.MsgspecError):  # it ends, or begins, just now
                lock = Lock(path)
                try:
                    if lock.acquire():
                        path.unlink()
                        continue
                    other = msgspec.json.decode(path.read_bytes(), type=Neighbour)
                finally:
                    lock.release()
                if self._cores & set(other.cores):
                    found.append(other)
        return found

    def close(self) -> None:
        """Be known no more."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._lock.release()


def remark(neighbours: list[Neighbour], own: tuple[int, ...]) -> str:
    """Return what a user should know about shared cores, or ""."""
    if not neighbours:
        return ""
    shared = {core for other in neighbours for core in other.cores} & set(own)
    who = ", ".join(f"{other.name} (process {other.pid})" for other in neighbours)
    return f"shares {named(shared)} with {who}: tasks of both will slow each other down"
