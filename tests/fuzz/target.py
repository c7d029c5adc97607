"""What a target of fuzzing is, and the memory that an input may take."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

#: Bytes that an input may take for each of its own: an empty set takes 216 and travels in four.
PER_BYTE = 200

#: ... and besides, whatever it is: what is imported or cached at first, and objects of the test's own.
AT_LEAST = 1 << 20


class Target(NamedTuple):
    """`make` returns an input that is right or nearly so; `run` raises if the code under test is wrong.

    An input is one message, text or value, and `run` returns None; or it is a sequence of them, and `run`
    returns how many the code under test was given. `slow` ones have fewer inputs in `make test`.
    """

    name: str
    make: Callable[[Random], bytes]
    run: Callable[[bytes], int | None]
    slow: bool = False


@contextlib.contextmanager
def in_proportion(size: int) -> Iterator[None]:
    """See that what is done takes no more memory than an input of `size` bytes may."""
    tracemalloc.start(1)
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= AT_LEAST + PER_BYTE * size, f"{size:,} bytes take {peak:,}"
