"""executorlib, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from executorlib import SingleNodeExecutor

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


class Measured(Peer):
    """Processes that stay, for calls of one core; for others a process for each, as it does by itself."""

    package = "executorlib"
    knows_widths = True

    def __init__(self, cores: int, folder: str, url: str) -> None:
        if cores <= 2:
            self._executor = SingleNodeExecutor(max_workers=cores, block_allocation=True)
        else:
            self._executor = SingleNodeExecutor(max_cores=cores)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._executor.submit(function, *arguments)  # type: ignore[no-any-return]

    def submit_wide(self, width: int, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._executor.submit(  # type: ignore[no-any-return]
            function, *arguments, resource_dict={"threads_per_core": width}
        )

    def close(self) -> None:
        self._executor.shutdown()
