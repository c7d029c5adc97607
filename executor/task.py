"""The two records of the project: what is to be run, and what came of it.

A `Task` is one call; a `Result` is the one line that a run records for it. Their field names are the
names in task files and in result files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from executor import codec

#: How a task ended. ``lost``: every worker that held it vanished; ``rejected``: it can never run.
Status = Literal["ok", "error", "timeout", "crashed", "lost", "rejected", "cancelled"]

#: Attempts after the first that a task gets when it names no `retries`, by status. What a dead process
#: or machine did to a task may not happen again; what a function raised will.
DEFAULT_RETRIES: dict[str, int] = {"crashed": 2, "lost": 2, "error": 0}


#: Type of the error of a task that held more memory than it may; it would again, so it isn't tried again.
MEMORY_LIMIT = "MemoryLimit"


def tries_again(status: str, attempt: int, retries: int | None, error: str = "") -> bool:
    """Whether a task whose `attempt` (from 1) ended so gets another.

    `retries` is its own, or that of its run; None for `DEFAULT_RETRIES`. `error` is the type of its error.
    """
    if status not in DEFAULT_RETRIES or error == MEMORY_LIMIT:
        return False
    return attempt <= (DEFAULT_RETRIES[status] if retries is None else retries)


class Task(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """One call of a function, and what it may use.

    Only `function` is required. `resources` is a number of cores (at least 1), `timeout` is in seconds
    and `memory` in bytes; None means no limit. `retries` None means `DEFAULT_RETRIES`. `id` is filled
    in by `identify`.
    """

    function: str
    params: list[Any] = []
    kwargs: dict[str, Any] = {}
    resources: int = 1
    id: str = ""
    timeout: float | None = None
    retries: int | None = None
    memory: int | None = None


class Error(msgspec.Struct, gc=False):
    """What went wrong: the exception's type, its message, and the user's part of the traceback."""

    type: str
    message: str
    traceback: str = ""


class Result(msgspec.Struct, gc=False):
    """What came of one task, in the order of a result file's line.

    Times are epoch seconds and None where nothing applies; `cores` holds the core ids it ran on, and
    `attempt` is 0 if it never started. `stdout` and `stderr` are UNSET, and left out of the line, when empty.
    """

    id: str
    function: str
    params: list[Any]
    kwargs: dict[str, Any]
    resources: int
    status: Status
    value: Any = None
    error: Error | None = None
    attempt: int = 0
    worker: str | None = None
    host: str | None = None
    cores: tuple[int, ...] = ()
    submitted: float | None = None
    started: float | None = None
    finished: float | None = None
    stdout: str | msgspec.UnsetType = msgspec.UNSET
    stderr: str | msgspec.UnsetType = msgspec.UNSET


def content_hash(task: Task) -> str:
    """Return 16 hex digits of what the task computes: function, params, kwargs and resources.

    How it is run (timeout, retries, memory) is left out, so that a resumed run may change it.

    Raises:
        CannotTravel: a parameter has no form on the wire.
    """
    content = codec.canonical([task.function, task.params, task.kwargs, task.resources])
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def identify(tasks: Iterable[Task]) -> None:
    """Give each task that has no `id` its own: ``<content hash>-<occurrence among equals>``, from 0."""
    seen: Counter[str] = Counter()
    for task in tasks:
        if not task.id:
            digest = content_hash(task)
            task.id = f"{digest}-{seen[digest]}"
            seen[digest] += 1
