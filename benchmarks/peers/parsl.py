"""Parsl's HighThroughputExecutor, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function."""
    return function(*arguments)


class Measured(Peer):
    """An app that calls what it is given."""

    package = "parsl"

    def __init__(self, cores: int, folder: str, url: str) -> None:
        executor = HighThroughputExecutor(
            label="htex", address="127.0.0.1", max_workers_per_node=cores,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )  # fmt: skip
        parsl.load(Config(executors=[executor], run_dir=folder, strategy="none", usage_tracking=0))
        self._app = parsl.python_app(call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._app(function, *arguments)  # type: ignore[no-any-return]

    def close(self) -> None:
        parsl.dfk().cleanup()
        parsl.clear()
