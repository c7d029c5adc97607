"""Dask's distributed scheduler, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
from distributed import Client, LocalCluster

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending


class Measured(Peer):
    """`Client.submit`; widths are amounts of a resource of one worker with as many threads."""

    package = "distributed"
    knows_widths = True

    def __init__(self, cores: int, folder: str, url: str) -> None:
        dask.config.set({"temporary-directory": folder})
        few = cores <= 2
        self._cluster = LocalCluster(
            n_workers=cores if few else 1, threads_per_worker=1 if few else cores, processes=True,
            dashboard_address=None, resources=None if few else {"cores": cores},
        )  # fmt: skip
        self._client = Client(self._cluster)
        self._client.wait_for_workers(cores if few else 1)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._client.submit(function, *arguments, pure=False)  # type: ignore[no-any-return]

    def submit_wide(self, width: int, function: Callable[..., Any], *arguments: Any) -> Pending:
        return self._client.submit(  # type: ignore[no-any-return]
            function, *arguments, pure=False, resources={"cores": width}
        )

    def close(self) -> None:
        self._client.close()
        self._cluster.close()
