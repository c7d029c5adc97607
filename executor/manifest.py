"""What a run is that was left in a broker: its tasks, and how they were pushed, as records of bytes. Pure.

    tasks      some of its tasks, in their order       piece   a part of a task that is too large for that
    head       how many there are: all were pushed     note    results that were collected

Records may come back in any order, and more than once. None is much longer than `RECORD_BYTES`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec

from executor import codec
from executor.errors import BadFrame, ConfigError
from executor.messages import Count, Positive
from executor.task import Task

#: Tasks in one record, and bytes of it, at most: what every broker takes in a message, however it is set up.
RECORD_TASKS = 1000
RECORD_BYTES = 1 << 16

_FIELDS = ("id", "function", "params", "kwargs", "resources", "timeout", "retries", "memory")


class Kept(NamedTuple):
    """A run that was left in a broker.

    `collected` are the places of the tasks whose results were recorded before; `submitted` is in epoch
    seconds, `retries` and `timeout` are those of the run.
    """

    tasks: list[Task]
    retries: int | None
    timeout: float | None
    submitted: float
    collected: frozenset[int]


class _Record(msgspec.Struct, array_like=True, gc=False):
    """Common form of all records: an array that begins with the record's name."""


class _Tasks(_Record, tag="tasks"):
    first: Count  # place of the first of them
    tasks: list[bytes]


class _Piece(_Record, tag="piece"):
    place: Count
    index: Count
    count: Positive  # of pieces
    data: bytes


class _Head(_Record, tag="head"):
    count: Count
    retries: Count | None
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None
    submitted: float


class _Note(_Record, tag="note"):
    places: list[Count]


_Any: TypeAlias = _Tasks | _Piece | _Head | _Note

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[_Any] = msgspec.msgpack.Decoder(_Any)
_parts: msgspec.msgpack.Decoder[list[bytearray]] = msgspec.msgpack.Decoder(list[bytearray])


def records(
    tasks: Sequence[Task], retries: int | None, timeout: float | None, submitted: float
) -> Iterator[bytes]:
    """Yield the records of a run, the head last."""
    some: list[bytes] = []
    first = size = 0
    for place, task in enumerate(tasks):
        one = _encode(codec.encode([getattr(task, name) for name in _FIELDS]))
        if some and (len(some) == RECORD_TASKS or size + len(one) > RECORD_BYTES):
            yield _encode(_Tasks(first, some))
            some, size = [], 0
        if len(one) > RECORD_BYTES:  # so none waits before it
            starts = range(0, len(one), RECORD_BYTES)
            for index, start in enumerate(starts):
                yield _encode(_Piece(place, index, len(starts), one[start : start + RECORD_BYTES]))
            continue
        first = first if some else place
        some.append(one)
        size += len(one)
    if some:
        yield _encode(_Tasks(first, some))
    yield _encode(_Head(len(tasks), retries, timeout, submitted))


def note(collected: Iterable[int]) -> bytes:
    """Return the record that says that the results of the tasks at these places were recorded."""
    return _encode(_Note(sorted(collected)))


def read(name: str, found: Iterable[bytes]) -> Kept:
    """Return the run of these records.

    Raises:
        ConfigError: they are not all there, or none of ours.
    """
    tasks: dict[int, bytes] = {}
    pieces: dict[int, dict[int, _Piece]] = {}
    head: _Head | None = None
    collected: set[int] = set()
    foreign: Exception | None = None
    for one in found:
        try:
            record = _decoder.decode(one)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            foreign = error
            continue
        if isinstance(record, _Tasks):
            tasks.update(enumerate(record.tasks, record.first))
        elif isinstance(record, _Piece):
            pieces.setdefault(record.place, {})[record.index] = record
        elif isinstance(record, _Head):
            head = record
        else:
            collected.update(record.places)
    for place, own in pieces.items():
        if _are_all(own, own[min(own)].count):
            tasks[place] = b"".join(own[index].data for index in sorted(own))
    if head is None or not _are_all(tasks, head.count):
        if foreign is not None:
            raise _of_another_version(name, foreign) from foreign
        raise ConfigError(f"run {name} was never pushed to its end; --cancel {name} removes it")
    try:
        read = [_task(tasks[place]) for place in range(head.count)]
    except (BadFrame, ValueError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _of_another_version(name, error) from error
    known = frozenset(place for place in collected if place < head.count)
    return Kept(read, head.retries, head.timeout, head.submitted, known)


def _are_all(found: Collection[int], count: int) -> bool:
    """Whether these are the numbers from 0 to below `count`, which nobody vouches for."""
    return len(found) == count and max(found, default=-1) < count


def _task(one: bytes) -> Task:
    fields: Any = codec.decode(_parts.decode(one))
    if not isinstance(fields, list):
        raise BadFrame(f"a task's fields were expected, not {type(fields).__name__}")
    return msgspec.convert(dict(zip(_FIELDS, fields, strict=True)), Task)


def _of_another_version(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"run {name} was pushed by another version ({error}); --cancel {name} removes it")
