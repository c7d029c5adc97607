"""ProcessPoolExecutor of the standard library."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


class Measured(Peer):
    """`submit`, one future for each call."""

    def __init__(self, cores: int, folder: str, url: str) -> None:
        self._executor = ProcessPoolExecutor(cores)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._executor.submit(function, *arguments)

    def close(self) -> None:
        self._executor.shutdown()
