"""What a results file says of tasks, and which of them are run again.

Nothing is changed before all of the file was read and found right. A line whose task is run again is set
aside (`executor.superseded`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from executor.changed import Changed
from executor.errors import OutputFailed, UsageError
from executor.output import SUPERSEDED, Target, not_a_file, reason
from executor.resultline import Line, parse
from executor.run import Span
from executor.superseded import move, spans_of
from executor.task import Task
from executor.words import one_line, plural

#: Statuses whose tasks ``--resume`` runs again, and ``--retry-failed``.
UNFINISHED = frozenset({"cancelled", "lost"})
FAILED = frozenset({"error", "timeout", "crashed", "lost", "rejected", "cancelled"})

#: Bytes read at once.
_BLOCK = 1 << 20

#: A large array's file, as a line names it.
_NPY = b'"$npy"'
_ARRAY = re.compile(rb'"\$npy":("(?:[^"\\]|\\.)*")')

#: What our lines begin with: so does what is left of one.
_BEGINNING = b'{"id":'


class Survey(NamedTuple):
    """What a results file holds.

    `recorded` are the places of tasks whose lines stay, `counts` the statuses of those; `again` are those of
    tasks that have a line and are run again, `twice` is how many lines have the id of one before, and `moved`
    the numbers, from 1, of both kinds of lines. `others` counts lines of tasks that are not among these. The
    lines end at byte `end`, behind which stand `torn` bytes of one; `open_end`: the last has no line end.
    `bare` is how many lines that stay name an array which is not there, and `bare_first` tells of one.
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
    bare: int
    bare_first: str


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
    changed = Changed(name, path.parent)
    twice = end = torn = bare = 0
    open_end = False
    bare_first = ""
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
            if _NPY in raw and (gone := _gone(raw, path.parent)):
                bare_first = bare_first or f"{gone} in line {number:,}"
                bare += 1
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
    return Survey(recorded, counts, retried, twice, moved, len(others), end, torn, open_end, bare, bare_first)


class Past(NamedTuple):
    """What a run has to know of those before it: the places of tasks that are recorded, their statuses, those
    of tasks that had a line until now, and by place what tells the reports whose lines were taken out."""

    recorded: Sequence[int] = ()
    counts: Mapping[str, int] = {}
    again: Sequence[int] = ()
    superseded: Mapping[int, Collection[Span]] = {}


def again(arguments: argparse.Namespace) -> Collection[str] | None:
    """Return the statuses that a command line wants to run again; None: it does not go on with a file."""
    return FAILED if arguments.retry_failed else UNFINISHED if arguments.resume else None


def left(name: str, tasks: Sequence[Task], again: Collection[str], say: Callable[[str], None]) -> list[Task]:
    """Return the tasks that a run which goes on with a file would run, and say what it holds.

    Raises:
        UsageError: as `survey`.
    """
    path = Path(os.path.realpath(name))
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise not_a_file(name)
    except FileNotFoundError:
        return list(tasks)
    except OSError as error:
        raise UsageError(f"--output {name}: {error.strerror}") from error
    found = survey(path, name, tasks, again)
    _tell(name, len(tasks), found, again, say)
    recorded = frozenset(found.recorded)
    return [task for place, task in enumerate(tasks) if place not in recorded]


def look(
    target: Target,
    tasks: Sequence[Task],
    again: Collection[str],
    say: Callable[[str], None],
    to: str = "run",
) -> Survey:
    """Survey a results file and say what it holds; `to` is for the rest. Nothing is changed.

    Raises:
        UsageError: as `survey`, or it is no file.
    """
    if target.path is None:
        raise not_a_file(target.name)
    found = survey(target.path, target.name, tasks, again)
    _tell(target.name, len(tasks), found, again, say, to)
    return found


def make_ready(target: Target, tasks: Sequence[Task], found: Survey, say: Callable[[str], None]) -> Past:
    """Make a results file that was found so ready for the run that continues it, and say what was changed.

    Raises:
        OutputFailed: that can't be done; nothing in it is lost.
    """
    assert target.path is not None
    assert target.folder is not None
    try:
        if found.moved:
            move(target.path, target.folder, found.moved, found.end)
        elif found.torn or found.open_end:
            _mend(target.path, found)
    except OSError as error:
        raise OutputFailed(
            f"{target.name}: can't be made ready to go on: {reason(error, target.path)}; no result is lost"
        ) from error
    aside = f"{target.beside}/{SUPERSEDED}"
    if found.torn:
        say(f"{target.name}: cut {plural(found.torn, 'byte')} of a last line that was not written to its end")
    if found.again:
        lines = "its line is" if len(found.again) == 1 else "their lines are"
        say(f"of those to run {len(found.again):,} ran before; {lines} now in {aside}")
    if found.twice:
        say(f"{plural(found.twice, 'line')} with the id of an earlier line: now in {aside}")
    superseded = spans_of(target.folder / SUPERSEDED, tasks)
    return Past(found.recorded, found.counts, found.again, superseded)


def _tell(
    name: str, count: int, found: Survey, again: Collection[str], say: Callable[[str], None], to: str = "run"
) -> None:
    """Say what a file holds of so many tasks."""
    kept = len(found.recorded)
    failed = kept - found.counts.get("ok", 0)
    bad = f" ({failed:,} not ok)" if failed else ""
    rest = f"{count - kept:,} to {to}" if count > kept else f"nothing to {to}"
    if failed and count == kept and again == UNFINISHED:
        rest += f"; --retry-failed runs {'that one' if failed == 1 else 'those'} again"
    say(f"{name}: {kept:,} of {plural(count, 'task')} recorded before{bad}, {rest}")
    if found.others:
        say(f"{plural(found.others, 'line')} of tasks that are not among these: left as they are")
    if found.bare:
        lines = plural(found.bare, "line names", "lines name")
        say(f"{lines} an array that is gone, {found.bare_first}; take such a line out to run its task again")


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    try:
        with path.open("rb", buffering=_BLOCK) as file:
            yield file
    except OSError as error:
        raise UsageError(f"--output {name}: can't be read: {error.strerror}") from error


def _read(raw: bytes, name: str, number: int) -> Line:
    try:
        return parse(raw)
    except ValueError as error:
        raise _no_result(raw, name, number) from error


def _no_result(raw: bytes, name: str, number: int) -> UsageError:
    begins = one_line(raw[:200].decode("utf-8", "replace").strip(), 40)
    return UsageError(
        f"{name}:{number}: is no result of a run: {begins}; take that line out, or choose another --output "
        "(nothing was changed)"
    )


def _tail(raw: bytes, name: str, number: int) -> tuple[Line, int] | None:
    """Return a last line without line end that is whole but for that, and its bytes; None if it is torn.

    A power cut may leave bytes that are 0 in place of what was to be written.
    """
    bare = raw.rstrip(b"\0")
    try:
        return parse(bare), len(bare)
    except ValueError:
        pass
    if not (bare.startswith(_BEGINNING) or _BEGINNING.startswith(bare)) or _is_whole(bare):
        raise _no_result(raw, name, number)
    return None


def _gone(raw: bytes, folder: Path) -> str:
    """Return an array that a line names and that is not there, or ""."""
    for name in _ARRAY.findall(raw):
        text = str(msgspec.json.decode(name))
        try:
            size = (folder / text).stat().st_size
        except OSError:
            size = 0
        if not size:
            return text
    return ""


def _is_whole(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True


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
