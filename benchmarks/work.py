"""The work that is measured: the same for us and for everybody beside us. Nothing here needs a package."""

from __future__ import annotations

import time

#: Bytes of an array of float64 that goes there and back, and how many of them do in a round.
ARRAY_BYTES = 1_000_000
ARRAYS = 200

#: Mixed widths: the cores of each task, in the order in which they are handed out, and the seconds it sleeps.
WIDTHS = [1] * 120 + [2] * 40 + [4] * 20
SLEEP = 0.02

#: Logical cores for them: they sleep, so the machine need not have so many.
CORES = 8

#: Seconds that they take at least: their area over the cores.
IDEAL = sum(WIDTHS) * SLEEP / CORES


def compute(seconds: float) -> None:
    """Keep the core busy for so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def sleep(seconds: float) -> None:
    """Sleep for so long; some look at a function's signature, which the built-in one has not."""
    time.sleep(seconds)
