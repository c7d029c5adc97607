"""From records, as people write them, to tasks; every mistake is found, and named with its place."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, TypeGuard

import msgspec

from executor.errors import CannotTravel, TaskFileError
from executor.sizes import MOST, parse_size, size_mistake
from executor.task import Task, content_hash, identify
from executor.words import shown

#: The names that a record may use.
KEYS = Task.__struct_fields__
#: What people who come from other tools write, where the spelling alone does not lead to ours.
OTHER_WORDS = {"args": "params", "arguments": "params", "cores": "resources", "cpus": "resources"}


class _Written(Task, kw_only=True):
    """A task as people also write it: with a number for its id, and text for its memory."""

    id: str | int = ""  # type: ignore[assignment]
    memory: int | str | None = None  # type: ignore[assignment]


_TASK = msgspec.json.Decoder(Task)
_WRITTEN = msgspec.json.Decoder(_Written)
#: What a line that is no such task may raise; wrong UTF-8 and wrong memory are ValueErrors.
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)


def plain_task(line: bytes) -> Task | None:
    """Return the task that a line of JSON holds, or None if it takes a closer look to see what is there.

    It finds right what `Intake.check` finds right, in a small part of the time.
    """
    try:
        task = _TASK.decode(line)
    except _UNREADABLE:
        try:
            task = _as_task(_WRITTEN.decode(line))
        except _UNREADABLE:
            return None
    right = (
        _is_dotted(task.function)
        and 1 <= task.resources <= MOST
        and (task.timeout is None or task.timeout > 0)
        and (task.retries is None or 0 <= task.retries <= MOST)
        and (task.memory is None or 1 <= task.memory <= MOST)
        and (task.id.isprintable() if task.id else line.find(b'"id"') < 0)
    )
    return task if right else None


def _as_task(written: _Written) -> Task:
    memory = written.memory
    return Task(
        function=written.function,
        params=written.params,
        kwargs=written.kwargs,
        resources=written.resources,
        id=str(written.id),
        timeout=written.timeout,
        retries=written.retries,
        memory=parse_size(memory) if isinstance(memory, str) else memory,
    )


class Intake:
    """Takes in the records of one source, until `finish` returns the tasks or raises all their mistakes.

    A record's position is its line, or its index in a list; `place` makes of it what a message begins with,
    such as ``tasks.jsonl:17``. `source` names the whole.
    """

    def __init__(self, source: str, place: Callable[[int], str]) -> None:
        self._source = source
        self._place = place
        self._tasks: list[Task] = []
        self._positions = array("q")
        self._ids: dict[str, int] = {}
        self._mistakes: list[tuple[int, str]] = []

    def take(self, task: Task, position: int) -> None:
        """Take in a task that is right in itself."""
        if task.id:
            self._claim(task.id, position)
        self._tasks.append(task)
        self._positions.append(position)

    def check(self, record: object, position: int, wrong: Sequence[str] = ()) -> None:
        """Take in what should be the record of a task; `wrong` is what its reader already found in it."""
        if isinstance(record, Mapping):
            fields, found = _fields(record)
            wrong = [*wrong, *found]
        elif not wrong:
            wrong = [f'must be a task such as {{"function": "math.sqrt", "params": [2]}}, {_not(record)}']
        if not wrong:
            task = Task(**fields)
            wrong = _travel_mistakes(task) if task.id else ()  # else `identify` finds them
            self.take(task, position)
        elif isinstance(record, Mapping) and "id" in fields:
            self._claim(fields["id"], position)
        self._mistakes += [(position, text) for text in wrong]

    def finish(self) -> list[Task]:
        """Return the tasks, each with its id.

        Raises:
            TaskFileError: something is wrong with a record, or there is none.
        """
        if not self._tasks and not self._mistakes:
            raise TaskFileError([f"{self._source}: holds no tasks"])
        self._identify()
        if self._mistakes:
            self._mistakes.sort(key=lambda mistake: mistake[0])
            raise TaskFileError([f"{self._place(position)}: {text}" for position, text in self._mistakes])
        return self._tasks

    def _claim(self, id: str, position: int) -> None:
        first = self._ids.setdefault(id, position)
        if first != position:
            self._mistakes.append((position, f"id: {shown(id)} is already the id of {self._place(first)}"))

    def _identify(self) -> None:
        placed = zip(self._tasks, self._positions, strict=True)
        unnamed = [(task, at) for task, at in placed if not task.id] if self._ids else []
        try:
            identify(self._tasks)
        except CannotTravel:  # it stops at the first such task; all that it left without an id are suspect
            placed = zip(self._tasks, self._positions, strict=True)
            suspects = [(task, at) for task, at in placed if not task.id]
            self._mistakes += [(at, wrong) for task, at in suspects for wrong in _travel_mistakes(task)]
        for task, at in unnamed:
            if task.id in self._ids:
                twin = self._place(self._ids[task.id])
                self._mistakes.append((at, f"id: {task.id}, made for it, is the one given at {twin}"))


def unknown_key(key: object, known: Sequence[str]) -> str:
    """Return what is wrong with a key that is none of those `known`, and the nearest of them."""
    import difflib  # only mistakes need it

    word = key if isinstance(key, str) and key.isprintable() and 0 < len(key) <= 40 else shown(key)
    near = [OTHER_WORDS[word]] if OTHER_WORDS.get(word) in known else []
    near += difflib.get_close_matches(word.lower(), known, n=1)
    return f"{word}: unknown key; " + (
        f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    )


def _fields(record: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a record that are right, None counting as absent, and what else is wrong."""
    fields: dict[str, Any] = {}
    wrong = []
    for key, value in record.items():
        if key not in _CHECKS:
            wrong.append(unknown_key(key, KEYS))
        elif value is not None:
            try:
                fields[key] = _CHECKS[key](value)
            except ValueError as error:
                wrong.append(f"{key}: {error}")
    if record.get("function") is None:
        wrong.append("function: is missing")
    return fields, wrong


def _travel_mistakes(task: Task) -> list[str]:
    try:
        content_hash(task)
    except CannotTravel as error:
        return [f"params or kwargs: {error}"]
    return []


def _not(value: object) -> str:
    return f"not {shown(value)}"


@lru_cache(1024)  # a file of a million tasks has a handful of functions
def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _function(value: object) -> str:
    if not isinstance(value, str) or not _is_dotted(value):
        raise ValueError(f"must be a name such as min or numpy.linalg.norm, in full, {_not(value)}")
    return value


def _params(value: object) -> list[object]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, {_not(value)}")
    return list(value)


def _kwargs(value: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping of names to values, {_not(value)}")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"a name must be a string, {_not(name)}")
    return dict(value)


def _whole(least: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not _is_integer(value) or value < least:
            raise ValueError(f"must be an integer of at least {least}, {_not(value)}")
        if value > MOST:
            raise ValueError(f"must be at most {MOST}, {_not(value)}")
        return int(value)

    return check


def _timeout(value: object) -> float:
    try:
        if _is_number(value) and value > 0 and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer beyond the range of floats
        pass
    raise ValueError(f"must be a number of seconds above 0, {_not(value)}")


def _memory(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if _is_integer(value) and 1 <= value <= MOST:
        return int(value)
    raise size_mistake(value)


def _id(value: object) -> str:
    if _is_integer(value):
        return str(value)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"must be printable text on one line, or an integer, {_not(value)}")
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """Tell a real number, NumPy's included, from a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_integer(value: object) -> TypeGuard[int]:
    """Tell an integer, NumPy's included, from a bool and from 2.0."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


_CHECKS: dict[object, Callable[[object], object]] = {
    "function": _function,
    "params": _params,
    "kwargs": _kwargs,
    "resources": _whole(1),
    "id": _id,
    "timeout": _timeout,
    "retries": _whole(0),
    "memory": _memory,
}
