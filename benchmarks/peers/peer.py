"""What each peer is measured on. A module of a peer has a class `Measured`, made for some cores."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from benchmarks import processpool
from benchmarks.processpool import Pending
from benchmarks.work import IDEAL, SLEEP, WIDTHS, sleep


class Peer(ABC):
    """A peer that runs calls on `cores` processes or threads; its files go to `folder`."""

    #: The package whose version is told, or "" for Python's own.
    package = ""
    #: Whether a call can ask for several cores.
    knows_widths = False

    @abstractmethod
    def __init__(self, cores: int, folder: str, url: str) -> None:
        """Start it; `url` is a RabbitMQ's."""

    @abstractmethod
    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        """Submit a call on one core."""

    def submit_wide(self, width: int, function: Callable[..., Any], *arguments: Any) -> Pending:
        """Submit a call on so many cores."""
        raise NotImplementedError("only those are asked for it that say `knows_widths`")

    def many(self, count: int) -> float:
        """Return no-op calls a second, all submitted and then all gathered."""
        return processpool.submit_all(self.submit, count)

    def warm(self) -> None:
        """Let everything that is slow the first time be slow now."""
        processpool.submit_all(self.submit, 50)

    def mixed(self) -> float:
        """Return the share of the ideal that is reached with tasks of mixed widths."""
        for pending in [self.submit_wide(width, sleep, SLEEP) for width in (1, 2, 4) for _ in range(16)]:
            pending.result()  # so that its processes are there
        began = time.perf_counter()
        for pending in [self.submit_wide(width, sleep, SLEEP) for width in WIDTHS]:
            pending.result()
        return IDEAL / (time.perf_counter() - began)

    @abstractmethod
    def close(self) -> None:
        """End it, and all its processes."""
