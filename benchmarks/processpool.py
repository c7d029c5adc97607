"""ProcessPoolExecutor on the same work: what everybody has, and what our figures stand beside."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np


class Pending(Protocol):
    """A call under way."""

    def result(self) -> Any:
        """Wait for it; return its value."""


#: Submits a call of a function with its arguments.
Submit = Callable[..., Pending]


@contextmanager
def processes(count: int = 2) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are warm."""
    with ProcessPoolExecutor(count) as executor:
        submit_all(executor.submit, 200)
        yield executor


def submit_all(submit: Submit, count: int) -> float:
    """Submit no-op calls one by one, then gather their results; return calls a second."""
    began = time.perf_counter()
    for number, future in enumerate([submit(operator.add, number, 1) for number in range(count)]):
        assert future.result() == number + 1
    return count / (time.perf_counter() - began)


def arrays(submit: Submit, count: int, size: int) -> float:
    """Submit so many arrays of `size` bytes, then gather them; return bytes a second, there and back."""
    array = np.random.default_rng(0).random(size // 8)
    for pending in [submit(np.asarray, [1.0]) for _ in range(20)]:  # every process loads NumPy
        pending.result()
    began = time.perf_counter()
    last: Any = None
    for pending in [submit(np.asarray, array) for _ in range(count)]:
        last = pending.result()
    seconds = time.perf_counter() - began
    assert np.array_equal(last, array)
    return count * size / seconds


def one_by_one(call: Callable[[], Any], count: int) -> list[float]:
    """Make one call after the other; return the seconds that each took."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds
