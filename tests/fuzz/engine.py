"""Runs targets on inputs, one after the other, and keeps what breaks them."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.fuzz.target import Target

#: Where inputs lie that broke something once, by target.
CASES = Path(__file__).parent / "cases"

#: Seconds that one input may take, on a machine that is busy.
LONGEST = 10.0

#: Bytes of address space that the process of `make fuzz` may have.
MOST_MEMORY = 4 << 30

#: Inputs between two looks at the clock.
_AT_ONCE = 20


class Found(NamedTuple):
    """An input that broke something, and how: `what` is the traceback."""

    target: str
    data: bytes
    what: str


def run(target: Target, data: bytes) -> Found | None:
    """Feed a target one input; return what broke, if anything did. What takes too long is broken, too."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        target.run(data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an exit, or a MemoryError, is as wrong as any
        return Found(target.name, data, traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return None


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"an input takes more than {LONGEST:g} s")


def bound_memory() -> None:
    """Have this process get a MemoryError long before its machine is out of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))


def fuzz(
    target: Target, seed: int, *, seconds: float | None = None, most: int | None = None
) -> tuple[int, list[Found]]:
    """Feed a target new inputs, for so long or so many; return how many, and what was found.

    Of what breaks at the same line, only the first and shorter ones are returned.
    """
    found: dict[str, Found] = {}
    deadline = None if seconds is None else time.monotonic() + seconds
    count = 0
    while most is None or count < most:
        if deadline is not None and count % _AT_ONCE == 0 and time.monotonic() >= deadline:
            break
        # Each input has a generator of its own, so that it can be made again by its number alone.
        data = target.make(Random(f"{target.name} {seed} {count}"))
        count += 1
        broken = run(target, data)
        if broken is not None:
            where = [line for line in broken.what.splitlines() if line.startswith("  File")][-1]
            if where not in found or len(data) < len(found[where].data):
                found[where] = broken
    return count, list(found.values())


def keep(found: Found) -> Path:
    """Save an input as a case, and return its file."""
    path = CASES / found.target / hashlib.sha256(found.data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.data)
    return path


def cases(target: Target) -> Sequence[Path]:
    """Return the files of the inputs that broke a target once."""
    return sorted(path for path in (CASES / target.name).glob("*") if path.is_file())
