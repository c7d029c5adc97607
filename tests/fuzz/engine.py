"""Runs targets on inputs, one after the other, and keeps what breaks them."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
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

#: Seconds in which an input that breaks something is made shorter.
SHORTENING = 10.0

#: Inputs between two looks at the clock.
_AT_ONCE = 20


class Found(NamedTuple):
    """An input that broke something, and how: `what` is the traceback; its `number` makes it again."""

    target: str
    data: bytes
    what: str
    number: int = -1

    @property
    def where(self) -> str:
        """The line that raised."""
        return [line for line in self.what.splitlines() if line.startswith("  File")][-1]


class Fed(NamedTuple):
    """How many inputs a target was fed, how many messages were in them, and what broke it."""

    inputs: int
    messages: int
    found: list[Found]


def run(target: Target, data: bytes) -> int | Found:
    """Feed a target one input; return how many messages it was, or what broke.

    What takes too long is broken, too.
    """
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        count = target.run(data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an exit, or a MemoryError, is as wrong as any
        return Found(target.name, data, traceback.format_exc(limit=-20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return 1 if count is None else count


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"an input takes more than {LONGEST:g} s")


def bound_memory() -> None:
    """Have this process get a MemoryError long before its machine is out of memory."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, resource.RLIM_INFINITY))


def fuzz(
    target: Target, seed: int, *, seconds: float | None = None, most: int | None = None, first: int = 0
) -> Fed:
    """Feed a target new inputs, for so long or so many, from number `first` on.

    Of what breaks at the same line, only the first and shorter ones are returned.
    """
    found: dict[str, Found] = {}
    deadline = None if seconds is None else time.monotonic() + seconds
    count = messages = 0
    while most is None or count < most:
        if deadline is not None and count % _AT_ONCE == 0 and time.monotonic() >= deadline:
            break
        number = first + count
        # Each input has a generator of its own, so that it can be made again by its number alone.
        data = target.make(Random(f"{target.name} {seed} {number}"))
        count += 1
        broken = run(target, data)
        if isinstance(broken, int):
            messages += broken
        elif broken.where not in found or len(data) < len(found[broken.where].data):
            found[broken.where] = broken._replace(number=number)
    return Fed(count, messages, list(found.values()))


def shortened(target: Target, found: Found) -> Found:
    """Return a shorter input that breaks a target at the same line, if one is found soon."""
    deadline = time.monotonic() + SHORTENING
    size = len(found.data)
    while size:
        for data in _without(found.data, size):
            if time.monotonic() > deadline:
                return found
            broken = run(target, data)
            if not isinstance(broken, int) and broken.where == found.where:
                found = broken._replace(number=found.number)
                break
        else:
            size //= 2
    return found


def _without(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the bytes without so many in a row, from the end on."""
    for start in range(len(data) - size, -1, -size):
        yield data[:start] + data[start + size :]


def keep(found: Found) -> Path:
    """Save an input as a case, and return its file."""
    path = CASES / found.target / hashlib.sha256(found.data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.data)
    return path


def cases(target: Target) -> Sequence[Path]:
    """Return the files of the inputs that broke a target once."""
    return sorted(path for path in (CASES / target.name).glob("*") if path.is_file())
