"""What a run is that was left in a broker: its tasks, and how they were pushed, as records of bytes. Pure.

The records are chunks of tasks, then the head, which says that all were pushed; later may come notes of what
was collected already by a dispatcher that stopped before all was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from executor import codec
from executor.errors import BadFrame, ConfigError
from executor.messages import Parts
from executor.task import Task

#: Tasks in one chunk, and bytes of it, at most; a larger task has a chunk of its own.
_CHUNK_TASKS = 1000
_CHUNK_BYTES = 1 << 20

_FIELDS = ("id", "function", "params", "kwargs", "resources", "timeout", "retries", "memory")


class Kept(NamedTuple):
    """A run that was left in a broker.

    `collected` has 1 for the place of each task whose result was recorded before; `submitted` is in epoch
    seconds, `retries` and `timeout` are those of the run.
    """

    tasks: list[Task]
    retries: int | None
    timeout: float | None
    submitted: float
    collected: bytes


def records(
    tasks: Sequence[Task], retries: int | None, timeout: float | None, submitted: float
) -> Iterator[Parts]:
    """Yield the records of a run, the head last."""
    some: list[list[Any]] = []
    size = 0
    for task in tasks:
        fields = [getattr(task, name) for name in _FIELDS]
        length = sum(len(part) for part in codec.encode(fields))
        if some and (len(some) == _CHUNK_TASKS or size + length > _CHUNK_BYTES):
            yield codec.encode(["tasks", some])
            some, size = [], 0
        some.append(fields)
        size += length
    if some:
        yield codec.encode(["tasks", some])
    yield codec.encode(["head", [len(tasks), retries, timeout, submitted]])


def note(collected: bytes) -> Parts:
    """Return the record that says which tasks' results were recorded: 1 at the place of each."""
    return codec.encode(["collected", collected])


def read(name: str, found: Sequence[Parts]) -> Kept:
    """Return the run of these records.

    Raises:
        ConfigError: they are not all there, or none of ours.
    """
    tasks: list[Task] = []
    head: list[Any] | None = None
    collected = b""
    try:
        for record in found:
            kind, value = codec.decode(record)
            if kind == "tasks":
                tasks += [msgspec.convert(dict(zip(_FIELDS, each, strict=True)), Task) for each in value]
            elif kind == "head":
                head = value
            elif kind == "collected":
                collected = _either(collected, value)
        if head is None or head[0] != len(tasks):
            raise ConfigError(
                f"run {name} is being collected by another dispatcher, or was never pushed to its end; "
                f"--cancel {name} removes it"
            )
        _, retries, timeout, submitted = head
    except (BadFrame, ValueError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"run {name} was pushed by another version: {error}") from error
    return Kept(tasks, retries, timeout, submitted, collected.ljust(len(tasks), b"\0"))


def _either(one: bytes, other: bytes) -> bytes:
    length = max(len(one), len(other))
    return bytes(a | b for a, b in zip(one.ljust(length, b"\0"), other.ljust(length, b"\0"), strict=True))
