"""What a results file says of tasks, and which of them are run again.

The file is read line by line, and of a line no more than is needed: a million take seconds. Nothing is
changed before all of it was read and found right. A line whose task is run again is moved to
``superseded.jsonl`` in the folder beside it: first that file is replaced by one with the old and the new
lines, then the results file by one without them. So a crash between the two leaves a line in both, and the
next resume sees that.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from executor import jsonform
from executor.brief import call
from executor.errors import OutputFailed, UsageError
from executor.journal import SUPERSEDED, Target, sync_folder
from executor.run import Earlier, Span
from executor.task import Status, Task, content_hash
from executor.words import one_line, plural

#: Statuses whose tasks ``--resume`` runs again, and ``--retry-failed``.
UNFINISHED = frozenset({"cancelled", "lost"})
FAILED = frozenset({"error", "timeout", "crashed", "lost", "rejected", "cancelled"})

#: Tasks shown of those that are not what their lines say.
_MOST_SHOWN = 5

#: Bytes read at once.
_BLOCK = 1 << 20

#: What our lines begin with: so does what is left of one.
_BEGINNING = b'{"id":'


class Line(msgspec.Struct, gc=False):
    """What is read of a line; `params` and `kwargs` are JSON."""

    id: str
    function: str
    params: msgspec.Raw
    kwargs: msgspec.Raw
    resources: int
    status: Status
    started: float | None
    finished: float | None


_decoder = msgspec.json.Decoder(Line)


class Survey(NamedTuple):
    """What a results file holds.

    `recorded` are the places of tasks whose lines stay, `counts` the statuses of those; `again` are those of
    tasks that have a line and are run again, `twice` is how many lines have the id of one before, and `moved`
    the numbers, from 1, of both kinds of lines. `others` counts lines of tasks that are not among these. The
    lines end at byte `end`, behind which stand `torn` bytes of one; `open_end`: the last has no line end.
    """

    recorded: array[int]
    counts: Mapping[str, int]
    again: array[int]
    twice: int
    moved: array[int]
    others: int
    end: int
    torn: int
    open_end: bool


def survey(path: Path, name: str, tasks: Sequence[Task], again: Collection[str]) -> Survey:
    """Read the results file at `path`, which the user calls `name`; tasks of a status in `again` run again.

    Raises:
        UsageError: a line is no result, or a task's id has a line of something else than it is now.
    """
    places = {task.id: place for place, task in enumerate(tasks)}
    seen = bytearray(len(tasks))
    others: set[str] = set()
    recorded, retried, moved = array("q"), array("q"), array("q")
    counts: Counter[str] = Counter()
    changed = _Changed(name, path.parent)
    twice = end = torn = 0
    open_end = False
    with _opened(path, name) as file:
        for number, raw in enumerate(file, 1):
            if raw.endswith(b"\n"):
                if raw.isspace():
                    end += len(raw)
                    continue
                line = _read(raw, name, number)
                end += len(raw)
            else:
                found = _tail(raw, name, number)
                if found is None:
                    torn = len(raw)
                    break
                line, whole = found
                end, torn, open_end = end + whole, len(raw) - whole, True
            place = places.get(line.id)
            if place is None:
                if line.id in others:
                    twice += 1
                    moved.append(number)
                others.add(line.id)
            elif seen[place]:
                twice += 1
                moved.append(number)
            else:
                seen[place] = 1
                changed.check(tasks[place], line, number)
                if line.status in again:
                    retried.append(place)
                    moved.append(number)
                else:
                    recorded.append(place)
                    counts[line.status] += 1
    changed.refuse()
    return Survey(recorded, counts, retried, twice, moved, len(others), end, torn, open_end)


class Past(NamedTuple):
    """What a run has to know of those before it: the places of tasks that are recorded, their statuses, those
    of tasks that had a line until now, and by place what tells the reports whose lines were taken out."""

    recorded: Sequence[int] = ()
    counts: Mapping[str, int] = {}
    again: Sequence[int] = ()
    superseded: Mapping[int, Collection[Span]] = {}
    earlier: Sequence[Earlier] = ()


def again(arguments: argparse.Namespace) -> Collection[str] | None:
    """Return the statuses that a command line wants to run again; None: it does not go on with a file."""
    return FAILED if arguments.retry_failed else UNFINISHED if arguments.resume else None


def left(name: str, tasks: Sequence[Task], again: Collection[str], say: Callable[[str], None]) -> list[Task]:
    """Return the tasks that a run which goes on with a file would run, and say what it holds.

    Raises:
        UsageError: as `survey`.
    """
    path = Path(name)
    if not path.is_file():
        return list(tasks)
    found = survey(path.resolve(), name, tasks, again)
    tell(name, len(tasks), found._replace(again=array("q"), twice=0), say)  # nothing is set aside yet
    recorded = frozenset(found.recorded)
    return [task for place, task in enumerate(tasks) if place not in recorded]


def resume(
    target: Target,
    tasks: Sequence[Task],
    again: Collection[str],
    say: Callable[[str], None],
    to: str = "run",
) -> Past:
    """Make a results file ready for the run that continues it, and say what it holds; `to` is for the rest.

    Raises:
        UsageError: as `survey`.
        OutputFailed: it can't be made ready; nothing in it is lost.
    """
    if target.path is None or target.folder is None:
        raise UsageError(f"--output {target.name}: is no file, so there is nothing to go on with")
    found = survey(target.path, target.name, tasks, again)
    try:
        if found.moved:
            _move(target.path, target.folder, found)
        elif found.torn or found.open_end:
            _mend(target.path, found)
    except OSError as error:
        raise OutputFailed(
            f"{target.name}: can't be made ready to go on: {error.strerror}; no result is lost"
        ) from error
    if found.torn:
        say(f"{target.name}: cut {plural(found.torn, 'byte')} of a last line that was not written to its end")
    tell(target.name, len(tasks), found, say, to)
    superseded = _superseded(target.folder / SUPERSEDED, tasks)
    return Past(found.recorded, found.counts, found.again, superseded)


def tell(name: str, count: int, found: Survey, say: Callable[[str], None], to: str = "run") -> None:
    """Say what a file holds of so many tasks."""
    kept = len(found.recorded)
    failed = kept - found.counts.get("ok", 0)
    bad = f" ({failed:,} not ok)" if failed else ""
    rest = f"{count - kept:,} to {to}" if count > kept else f"nothing to {to}"
    say(f"{name}: {kept:,} of {plural(count, 'task')} recorded before{bad}, {rest}")
    if found.again:
        say(f"{len(found.again):,} of these ran before; what came of it is now in {name}.d/{SUPERSEDED}")
    if found.twice:
        lines = plural(found.twice, "line")
        say(f"{lines} with the id of an earlier line: now in {name}.d/{SUPERSEDED}")
    if found.others:
        say(f"{plural(found.others, 'line')} of tasks that are not among these: left as they are")


# --- Reading ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            yield file
    except OSError as error:
        raise UsageError(f"--output {name}: can't be read: {error.strerror}") from error


def _parse(raw: bytes) -> Line:
    """Return the line that a JSON text holds.

    Raises:
        ValueError: it is none.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    # A lone surrogate, which msgspec does not read; Python does, but no long integers unless told to.
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        record = json.loads(raw)
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        for key in ("params", "kwargs"):
            record[key] = msgspec.Raw(jsonform.encode_line(record.get(key)))
        return Line(**{key: record[key] for key in Line.__struct_fields__})
    except (KeyError, RecursionError) as error:
        raise ValueError(str(error)) from error
    finally:
        sys.set_int_max_str_digits(digits)


def _read(raw: bytes, name: str, number: int) -> Line:
    try:
        return _parse(raw)
    except ValueError as error:
        raise _no_result(name, number) from error


def _no_result(name: str, number: int) -> UsageError:
    return UsageError(
        f"{name}:{number}: is no result of a run; take that line out, or choose another --output "
        "(nothing was changed)"
    )


def _tail(raw: bytes, name: str, number: int) -> tuple[Line, int] | None:
    """Return a last line without line end that is whole but for that, and its bytes; None if it is torn.

    A power cut may leave bytes that are 0 in place of what was to be written.
    """
    bare = raw.rstrip(b"\0")
    try:
        return _parse(bare), len(bare)
    except ValueError:
        pass
    if not (bare.startswith(_BEGINNING) or _BEGINNING.startswith(bare)) or _is_whole(bare):
        raise _no_result(name, number)
    return None


def _is_whole(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


# --- Is it what it was? -----------------------------------------------------------------------------------


class _Changed:
    """Collects the tasks that are not what the lines under their ids say."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._shown: list[str] = []
        self._count = 0

    def check(self, task: Task, line: Line, number: int) -> None:
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
    if not path.exists():  # removed, to save room: then its form has to do
        return True
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return False
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


# --- Changing ---------------------------------------------------------------------------------------------


def _mend(path: Path, found: Survey) -> None:
    """Cut a torn line, or end one that lacks only that."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, found.end)
        if found.open_end:
            os.pwrite(descriptor, b"\n", found.end)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(path: Path, folder: Path, found: Survey) -> None:
    """Move lines to the superseded ones."""
    aside = folder / SUPERSEDED
    moved = set(found.moved)
    known = _digests(aside)
    with _replacing(aside) as new:
        if aside.exists():
            with aside.open("rb", buffering=_BLOCK) as old:
                last = b"\n"
                while block := old.read(_BLOCK):
                    new.write(block)
                    last = block[-1:]
            if last != b"\n":
                new.write(b"\n")
        for number, line in _lines(path, found.end):
            if number in moved and _digest(line) not in known:  # else moved before a crash
                new.write(line)
    with _replacing(path) as new:
        for number, line in _lines(path, found.end):
            if number not in moved:
                new.write(line)


def _lines(path: Path, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines up to byte `end` with their numbers, each with its line end."""
    with path.open("rb", buffering=_BLOCK) as file:
        for number, line in enumerate(file, 1):
            if end <= 0:
                return
            line = line[:end]
            end -= len(line)
            yield number, line if line.endswith(b"\n") else line + b"\n"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` once all of it is safe."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb", buffering=_BLOCK) as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    sync_folder(path.parent)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()


def _digests(path: Path) -> set[bytes]:
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            return {_digest(line) for line in file}
    except FileNotFoundError:
        return set()


def _superseded(path: Path, tasks: Sequence[Task]) -> dict[int, set[Span]]:
    """Return what tells the reports of superseded lines, by place. Those that never ran have none."""
    spans: dict[int, set[Span]] = {}
    if not path.exists():
        return spans
    places = {task.id: place for place, task in enumerate(tasks)}
    with contextlib.suppress(OSError), path.open("rb", buffering=_BLOCK) as file:
        for raw in file:
            try:
                line = _parse(raw)
            except ValueError:
                continue
            place = places.get(line.id)
            if place is not None and line.started is not None and line.finished is not None:
                spans.setdefault(place, set()).add((line.started, line.finished))
    return spans
