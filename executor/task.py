"""The two records of the project: what is to be run, and what came of it.

A `Task` is one call; a `Result` is the one line that a run records for it. Their field names are the
names in task files and in result files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from executor import content
from executor.sizes import MOST

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


_Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MOST)]

#: It is copied for each digest, which takes two thirds of the time that making one does.
_BLAKE2B = hashlib.blake2b(digest_size=8)


class Task(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """One call of a function, and what it may use.

    Only `function` is required. `resources` is a number of cores (at least 1), `timeout` is in seconds
    and `memory` in bytes; None means no limit. `retries` None means `DEFAULT_RETRIES`. `id` is filled
    in by `identify`.
    """

    function: str
    params: list[Any] = []
    kwargs: dict[str, Any] = {}
    resources: _Positive = 1
    id: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=MOST)] | None = None
    memory: _Positive | None = None


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


def content_hash(task: Task, canonical: Callable[[Any], bytes] = content.canonical) -> str:
    """Return 16 hex digits of what the task computes: function, params, kwargs and resources.

    How it is run (timeout, retries, memory) is left out, so that a resumed run may change it. `canonical` is
    `content.canonical_json` for a task whose arguments hold nothing but JSON.

    Raises:
        CannotTravel: a parameter has no form on the wire.
    """
    return _digest(canonical([task.function, task.params, task.kwargs, task.resources]))


def _digest(form: bytes) -> str:
    digest = _BLAKE2B.copy()
    digest.update(form)
    return digest.hexdigest()


class Naming:
    """Gives tasks that have no `id` their own: ``<content hash>-<occurrence among equals>``, from 0."""

    def __init__(self) -> None:
        #: The ids that it gave to the first of equals.
        self._first: set[str] = set()
        self._again: dict[str, int] = {}

    def name(self, tasks: Iterable[Task], canonical: Callable[[Any], bytes] = content.canonical) -> None:
        """Give ids to the next tasks; `canonical` is as in `content_hash`.

        Raises:
            CannotTravel: a parameter of a task, be its id given, has no form on the wire. Those behind it get
                no id.
        """
        first = self._first
        for task in tasks:
            # Even if the id is given, as this finds out whether the task can be handed out.
            form = canonical([task.function, task.params, task.kwargs, task.resources])
            if task.id:
                continue
            id = _digest(form) + "-0"
            if id in first:
                count = self._again[id] = self._again.get(id, 0) + 1
                id = f"{id[:-1]}{count}"
            else:
                first.add(id)
            task.id = id


def identify(tasks: Iterable[Task]) -> None:
    """Give each task that has no `id` its own, as `Naming` does.

    Raises:
        CannotTravel: as `Naming.name`.
    """
    Naming().name(tasks)
