"""Celery on RabbitMQ, results by messages too."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import celery
import celery.result

from benchmarks.peers.peer import Peer
from benchmarks.processpool import Pending

app = celery.Celery("benchmarks.peers.celery", broker=os.environ.get("BENCH_URL"), backend="rpc://")
app.conf.update(
    # A function and an array travel, as with the others; by reference and as bytes.
    task_serializer="pickle", result_serializer="pickle", accept_content=["pickle"],
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
    broker_connection_retry_on_startup=True,
)  # fmt: skip


@app.task  # type: ignore[untyped-decorator]
def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function."""
    return function(*arguments)


class _Result:
    """A call under way."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def result(self) -> Any:
        """Wait for its value."""
        return self._result.get(timeout=300)


class Measured(Peer):
    """A task that calls what it is given, and a worker with its pool of processes."""

    package = "celery"

    def __init__(self, cores: int, folder: str, url: str) -> None:
        queue = f"bench-{secrets.token_hex(4)}"
        app.conf.update(broker_url=url, task_default_queue=queue)
        self._worker = subprocess.Popen(
            [
                sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery", "worker", "--pool=prefork",
                f"--concurrency={cores}", f"--hostname={queue}@localhost", "--loglevel=ERROR",
            ],
            env={**os.environ, "BENCH_URL": url, "BENCH_QUEUE": queue, "C_FORCE_ROOT": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Pending:
        return _Result(call.delay(function, *arguments))

    def close(self) -> None:
        self._worker.terminate()
        self._worker.wait(60)
