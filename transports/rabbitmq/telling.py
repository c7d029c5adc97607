"""Which calls are in line is told to all workers: of what came into it in some time, together. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from executor.messages import Pushed

#: Seconds between two lines to all that calls wait.
TELL = 0.1


class Telling:
    """Gathers the widths of calls that are in line, which `tell` tells all; `now` is the owner's clock."""

    def __init__(self, tell: Callable[[Pushed], None]) -> None:
        self._tell = tell
        self._widths: set[int] = set()  # that are not told yet
        self._told_at = 0.0
        #: When they are to be told.
        self.due = math.inf

    def add(self, width: int) -> None:
        """Calls of a width are in line."""
        self._widths.add(width)
        self.due = self._told_at + TELL

    def add_all(self, widths: Iterable[int]) -> None:
        """Calls of these widths may be in line."""
        for width in widths:
            self.add(width)

    def tell(self, now: float) -> None:
        """Tell of them."""
        self._told_at, self.due = now, math.inf
        self._tell(Pushed(sorted(self._widths)))
        self._widths.clear()
