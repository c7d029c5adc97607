"""Ray, on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import ray

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


class _Reference:
    """A call under way."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def result(self) -> Any:
        """Wait for its value."""
        return ray.get(self._reference)


class Measured(Peer):
    """A remote function that calls what it is given."""

    package = "ray"
    knows_widths = True

    def __init__(self, cores: int, folder: str, url: str) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            return function(*arguments)

        self._call = ray.remote(num_cpus=1)(call)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return _Reference(self._call.remote(function, *arguments))

    def submit_wide(self, width: int, function: Callable[..., Any], *arguments: Any) -> Pending:
        return _Reference(self._call.options(num_cpus=width).remote(function, *arguments))

    def close(self) -> None:
        ray.shutdown()
