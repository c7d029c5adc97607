"""From records, as people write them, to tasks; every mistake is found, and named with its place."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, TypeGuard

import msgspec

from executor import content, jsontext
from executor.errors import CannotTravel, TaskFileError
from executor.sizes import MOST, parse_size, size_mistake
from executor.task import Naming, Task, content_hash
from executor.words import shown

#: The names that a record may use.
KEYS = Task.__struct_fields__
#: What people who come from other tools write, where the spelling alone does not lead to ours.
OTHER_WORDS = {"args": "params", "arguments": "params", "cores": "resources", "cpus": "resources"}

#: The kwargs of all lines that have none: nobody changes those of a task that was read.
_NO_KWARGS: dict[str, Any] = {}


def plain_tasks(block: bytes) -> list[Task] | None:
    """Return the tasks that stand in a block of whole lines of JSON, one on each; they have ids where given.

    None: it takes a closer look to see what is there. It finds right what `Intake.check` finds right, in a
    small part of the time.
    """
    records = jsontext.load_lines(block)
    if records is None:
        return None
    keys: set[str] = set().union(*records)
    try:
        if "id" in keys:
            for record in records:
                if "id" in record:
                    record["id"] = _id(record["id"])
        if "memory" in keys:
            for record in records:
                if isinstance(size := record.get("memory"), str):
                    record["memory"] = parse_size(size)
        tasks = msgspec.convert(records, list[Task])
    except (ValueError, OverflowError):  # msgspec's are ValueErrors, too
        return None
    # Functions are shared, and kwargs where there are none: of each there is a handful in a million tasks,
    # of which they would take a third of the memory.
    names = {name: sys.intern(name) for name in {task.function for task in tasks}}
    if not all(map(_is_dotted, names)):
        return None
    for task in tasks:
        task.function = names[task.function]
        if not task.kwargs:
            task.kwargs = _NO_KWARGS
    return tasks


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
        self._ids: dict[str, int] = {}  # those given, and where first
        self._twice: set[int] = set()  # positions of those given again
        self._naming = Naming()
        self._named = 0  # so many of the tasks have been through it
        self._unfit = False  # some of them can't travel
        self._mistakes: list[tuple[int, str]] = []

    def take(self, tasks: Sequence[Task], positions: Sequence[int]) -> None:
        """Take in tasks that `plain_tasks` gave."""
        self._name()
        for task, position in zip(tasks, positions, strict=True):
            if task.id:
                self._claim(task.id, position)
        self._tasks += tasks
        self._positions.extend(positions)
        self._name(content.canonical_json)

    def check(self, record: object, position: int, wrong: Sequence[str] = ()) -> None:
        """Take in what should be the record of a task; `wrong` is what its reader already found in it."""
        if isinstance(record, Mapping):
            fields, found = _fields(record)
            wrong = [*wrong, *found]
        elif not wrong:
            wrong = [f'must be a task such as {{"function": "math.sqrt", "params": [2]}}, {_not(record)}']
        if not wrong:
            self._tasks.append(Task(**fields))
            self._positions.append(position)
        if isinstance(record, Mapping) and "id" in fields:
            self._claim(fields["id"], position)
        self._mistakes += [(position, text) for text in wrong]

    def finish(self) -> list[Task]:
        """Return the tasks, each with its id.

        Raises:
            TaskFileError: something is wrong with a record, or there is none.
        """
        if not self._tasks and not self._mistakes:
            raise TaskFileError([f"{self._source}: holds no tasks"])
        self._name()
        placed = zip(self._tasks, self._positions, strict=True)
        if self._unfit:
            self._mistakes += [(at, wrong) for task, at in placed for wrong in _travel_mistakes(task)]
        elif self._ids:
            self._mistakes += [
                (at, f"id: {task.id}, made for it, is the one given at {self._place(self._ids[task.id])}")
                for task, at in placed
                if self._ids.get(task.id, at) != at and at not in self._twice
            ]
        if self._mistakes:
            self._mistakes.sort(key=lambda mistake: mistake[0])
            raise TaskFileError([f"{self._place(position)}: {text}" for position, text in self._mistakes])
        return self._tasks

    def _claim(self, id: str, position: int) -> None:
        first = self._ids.setdefault(id, position)
        if first != position:
            self._twice.add(position)
            self._mistakes.append((position, f"id: {shown(id)} is already the id of {self._place(first)}"))

    def _name(self, canonical: Callable[[Any], bytes] = content.canonical) -> None:
        """Give ids to the tasks that came since the last time."""
        tasks = self._tasks[self._named :]
        self._named = len(self._tasks)
        try:
            self._naming.name(tasks, canonical)
        except CannotTravel:  # it stops at the first such task; which there are is looked at in the end
            self._unfit = True


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
