"""Whether tasks are what the lines under their ids say, in a results file that a run goes on with."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import msgspec

from executor import jsonform
from executor.brief import call
from executor.errors import UsageError
from executor.resultline import Line
from executor.task import Task, content_hash
from executor.words import one_line, plural

#: Tasks shown of those that are not what their lines say.
_MOST_SHOWN = 5


class Changed:
    """Collects the tasks that are not what the lines under their ids say."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._shown: list[str] = []
        self._count = 0

    def check(self, task: Task, line: Line, number: int) -> None:
        """Compare a task with the line of its id, which has this number in the file."""
        if _equal(task, line, self._folder):
            return
        self._count += 1
        if self._count > _MOST_SHOWN:
            return
        was, now = _shown(line), call(task.function, task.params, task.kwargs)
        if task.resources != line.resources:
            was, now = (
                f"{text} on {plural(cores, 'core')}"
                for text, cores in ((was, line.resources), (now, task.resources))
            )
        differ = " (what differs is too long to show)" if was == now else ""
        name = one_line(task.id, 40)
        self._shown.append(f"{self._name}:{number}: task {name} was {was} and now is {now}{differ}")

    def refuse(self) -> None:
        """Refuse what was found, if anything was.

        Raises:
            UsageError: tasks are not what their lines say.
        """
        if not self._count:
            return
        if rest := self._count - len(self._shown):
            self._shown.append(f"and {rest:,} more")
        if self._count > 1:
            self._shown.insert(0, f"{self._count:,} tasks are not what was recorded under their ids:")
        self._shown[-1] += "; give what is new another id, or choose another --output (nothing was changed)"
        raise UsageError("\n".join(self._shown))


def _equal(task: Task, line: Line, folder: Path) -> bool:
    if task.function == line.function and task.resources == line.resources:
        if _same_text(task, line):
            return True
        arrays: list[object] = []

        def store(value: object) -> dict[str, object]:
            arrays.append(value)
            return {"$npy": arrays[-1]}

        for value, raw in ((task.params, line.params), (task.kwargs, line.kwargs)):
            form = jsonform.to_json(value, store)
            if not arrays and jsonform.encode_line(form) == bytes(raw):
                continue
            if not _same(_plain(bytes(raw)), form, folder):
                break
        else:
            return True
    # An id that was made of the content is that of the line, however the line came to differ.
    return task.id[16:17] == "-" and content_hash(task) == task.id[:16]


def _same_text(task: Task, line: Line) -> bool:
    """Tell whether a task's arguments are, as JSON, what stands in a line, and nothing but JSON.

    Most are, and a closer look takes three times as long. The texts tell 1 from 1.0 and True, the
    values what JSON has from what msgspec would write like it: bytes, say, from text.
    """
    now = [task.params, task.kwargs]
    try:
        text = msgspec.json.encode(now)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return text == b"[%b,%b]" % (line.params, line.kwargs) and bool(msgspec.json.decode(text) == now)


def _plain(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        try:
            return json.loads(raw)
        except ValueError:  # digits beyond Python's limit
            return raw


def _same(there: object, here: object, folder: Path) -> bool:
    """Tell whether two JSON forms are equal, types included; arrays are in `here`, and files of `there`."""
    if isinstance(here, dict) and "$npy" in here and not isinstance(here["$npy"], str):
        return isinstance(there, dict) and _same_array(there, here["$npy"], folder)
    if type(there) is not type(here):
        return False
    if isinstance(there, dict) and isinstance(here, dict):
        return there.keys() == here.keys() and all(_same(there[key], here[key], folder) for key in there)
    if isinstance(there, list) and isinstance(here, list):
        return len(there) == len(here) and all(
            _same(one, other, folder) for one, other in zip(there, here, strict=True)
        )
    return there == here


def _same_array(there: dict[str, object], here: object, folder: Path) -> bool:
    import numpy as np

    assert isinstance(here, np.ndarray)
    if there.get("shape") != list(here.shape) or there.get("dtype") != str(here.dtype):
        return False
    path = folder / str(there.get("$npy"))
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError):  # removed, to save room, or damaged: then its form has to do
        return True
    return bool(
        stored.dtype == here.dtype and stored.shape == here.shape and stored.tobytes() == here.tobytes()
    )


def _shown(line: Line) -> str:
    params, kwargs = _plain(bytes(line.params)), _plain(bytes(line.kwargs))
    with contextlib.suppress(ValueError):
        params, kwargs = jsonform.from_json(params), jsonform.from_json(kwargs)
    return call(
        line.function,
        params if isinstance(params, list) else [params],
        kwargs if isinstance(kwargs, dict) else {},
    )
