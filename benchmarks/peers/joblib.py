"""joblib, which puts tiny calls together by itself."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from typing import Any

import joblib

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


class _Done:
    """A call that has been made."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self) -> Any:
        """Return its value."""
        return self._value


class Measured(Peer):
    """`Parallel`, with loky's processes: a call alone is a list of one."""

    package = "joblib"

    def __init__(self, cores: int, folder: str, url: str) -> None:
        self._parallel = joblib.Parallel(n_jobs=cores, temp_folder=folder).__enter__()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return _Done(self._parallel([joblib.delayed(function)(*arguments)])[0])

    def many(self, count: int) -> float:
        began = time.perf_counter()
        values = self._parallel(joblib.delayed(operator.add)(number, 1) for number in range(count))
        seconds = time.perf_counter() - began
        assert values[-1] == count
        return count / seconds

    def warm(self) -> None:
        self.many(1000)

    def close(self) -> None:
        self._parallel.__exit__(None, None, None)
