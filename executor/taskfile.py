"""Reading tasks: from files, from stdin, and from the list that stands in ``dispatcher.py``.

A file is read by its suffix, and refused whole when anything is wrong with it. In messages a line counts
from 1, as editors count, and ``tasks[3]`` is the fourth task of a list, as Python counts.

The objects that stand for what JSON lacks, ``{"$float": "nan"}`` and the others of `executor.jsonform`, are
read back in `params` and `kwargs`, so that both can be copied from a results file. JSON may also hold the
words NaN and Infinity, which Python writes.
"""

from __future__ import annotations

import gc
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from executor import jsontext
from executor.errors import TaskFileError, UsageError
from executor.jsonform import from_json
from executor.task import Task
from executor.taskcheck import KEYS, Intake, plain_tasks, unknown_key
from executor.travel import MAX_DEPTH
from executor.words import shown

# What only one kind of file needs is imported by its reader: most runs read one kind or none.

#: The forms that stand for what JSON lacks begin with it. A byte is found faster than a string of one.
_DOLLAR = ord("$")
#: Bytes of JSON Lines that are read at once: a thousand tasks, which stay in the processor's caches until
#: they have their ids.
_BLOCK = 1 << 16
#: What the name of a CSV column begins with that holds one keyword argument.
_KWARG = "kwargs."


def read_tasks(path: str, stdin: BinaryIO | None = None) -> list[Task]:
    """Return the tasks of the file at `path`, each with its id.

    The suffix tells the kind: ``.jsonl``, ``.json``, ``.yaml`` or ``.yml``, ``.csv``. The path ``-`` stands
    for JSON Lines on `stdin` (None: the process's own).

    Raises:
        TaskFileError: the file can't be read or is wrong; all mistakes are named.
    """
    if path == "-":
        try:
            with _collector_paused():
                return _read_lines(stdin or sys.stdin.buffer, "stdin")
        except OSError as error:
            raise TaskFileError([f"stdin: can't be read: {error.strerror or error}"]) from error
    read = _READERS.get(Path(path).suffix.lower())
    if read is None:
        raise TaskFileError(
            [f"{path or repr(path)}: a task file ends in {', '.join(_READERS)}; - is JSON Lines on stdin"]
        )
    try:
        with Path(path).open("rb") as file, _collector_paused():
            return read(file, path)
    except OSError as error:
        raise TaskFileError([f"{path}: can't be read: {error.strerror or error}"]) from error


def check_tasks(records: Sequence[object], place: str) -> list[Task]:
    """Return the tasks of a list of records, each with its id; `place` names the list, such as ``TASKS``.

    A record is a mapping from the names of `Task`'s fields, of which only `function` is required, to their
    values; None counts as absent.

    Raises:
        TaskFileError: something is wrong with the records; all mistakes are named.
    """
    if not isinstance(records, list | tuple):
        raise TaskFileError([f"{place}: must be a list of tasks, not {shown(records)}"])
    intake = Intake(place, lambda index: f"{place}[{index}]")
    for index, record in enumerate(records):
        intake.check(record, index)
    return intake.finish()


def _read_lines(file: BinaryIO, name: str) -> list[Task]:
    intake = Intake(name, lambda line: f"{name}:{line}")
    number = 1
    for block in _blocks(file):
        tasks = plain_tasks(block) if _DOLLAR not in block else None
        if tasks is not None:
            intake.take(tasks, range(number, number + len(tasks)))
            number += len(tasks)
            continue
        for line in io.BytesIO(block):
            if not _take_line(intake, line, number):
                return intake.finish()
            number += 1
    return intake.finish()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the file in blocks of whole lines."""
    while True:
        block = file.read(_BLOCK)
        at_end = len(block) < _BLOCK  # so it is not asked again: a terminal would want a second Ctrl-D
        if not at_end and not block.endswith(b"\n"):
            block += file.readline()
        if block:
            yield block
        if at_end:
            return


def _take_line(intake: Intake, line: bytes, number: int) -> bool:
    """Take in a line that may need a closer look; tell whether it makes sense to read on."""
    forms = _DOLLAR in line
    if not forms and (tasks := plain_tasks(line)):
        intake.take(tasks, [number])
        return True
    if line.isspace():
        return True
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        intake.check(None, number, [_not_utf8(error)])
        return False  # most likely all the rest is of that kind
    record, wrong = _json_or_mistake(text)
    if forms and isinstance(record, dict):
        record = _read_back(record, wrong)
    intake.check(record, number, wrong)
    return True


def _read_json(file: BinaryIO, name: str) -> list[Task]:
    text = _text(file, name)
    try:
        document, twice = jsontext.load(text) if text.strip() else (None, [])
    except ValueError as error:
        line = "" if (number := jsontext.line_of(error)) is None else f":{number}"
        more = getattr(error, "msg", "") == "Extra data"  # behind a first object that is whole
        hint = "; a file of one task on each line ends in .jsonl" if more else ""
        raise TaskFileError([f"{name}{line}: {jsontext.malformed(error)}{hint}"]) from error
    return _from_document(document, name, forms='"$' in text, twice=bool(twice))


def _read_yaml(file: BinaryIO, name: str) -> list[Task]:
    from executor import yamlfile

    text = _text(file, name)
    try:
        document = yamlfile.load(text, name)
    except UsageError as error:
        raise TaskFileError([str(error)]) from error
    return _from_document(document, name, forms="$" in text)


def _from_document(document: object, name: str, *, forms: bool, twice: bool = False) -> list[Task]:
    """Return the tasks of a whole JSON or YAML file.

    With `forms`, it may hold some for what JSON lacks; with `twice`, objects in which a key stands twice.
    """
    if isinstance(document, jsontext.Ambiguous):
        raise TaskFileError([f"{name}: {mistake}" for mistake in document.mistakes])
    if isinstance(document, Mapping) and "tasks" in document:
        if others := [key for key in document if key != "tasks"]:
            raise TaskFileError([f"{name}: {unknown_key(key, ['tasks'])}" for key in others])
        document = document["tasks"]
    if document is None:
        document = []
    if not isinstance(document, list):
        what = "must be a list of tasks, or a mapping with the one key tasks"
        raise TaskFileError([f"{name}: {what}, not {shown(document)}"])
    intake = Intake(name, lambda index: f"{name}: tasks[{index}]")
    for index, record in enumerate(document):
        wrong = jsontext.mistakes_in(record) if twice else []
        if forms and isinstance(record, dict):
            record = _read_back(record, wrong)
        intake.check(record, index, wrong)
    return intake.finish()


def _read_csv(file: BinaryIO, name: str) -> list[Task]:
    text = _text(file, name)
    forms = '"$' in text
    intake = Intake(name, lambda line: f"{name}:{line}")
    rows = iter(_csv_rows(text, name))
    line, header = next(rows, (1, ["function"]))
    columns = [cell.strip() for cell in header]
    if wrong := _column_mistakes(columns):
        raise TaskFileError([f"{name}:{line}: {mistake}" for mistake in wrong])
    for line, cells in rows:
        record, wrong = _csv_record(columns, cells, forms)
        intake.check(record, line, wrong)
    return intake.finish()


def _csv_rows(text: str, name: str) -> list[tuple[int, list[str]]]:
    """Return the rows that aren't blank, each with the line that it begins on."""
    import csv

    rows = []
    line = 1
    limit = csv.field_size_limit(len(text))  # a list of numbers in one cell may well pass the usual 128 KiB
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TaskFileError([f"{name}:{line}: malformed CSV in the row that begins here: {error}"]) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _column_mistakes(columns: list[str]) -> list[str]:
    if len(columns) == 1 and any(other in columns[0] for other in ";\t"):
        return ["columns are separated by commas, not by semicolons or tabs"]
    wrong = []
    for column, count in Counter(filter(None, columns)).items():
        if column not in KEYS and column.removeprefix(_KWARG) in (column, ""):
            wrong.append(unknown_key(column, [*KEYS, f"{_KWARG}NAME"]))
        if count > 1:
            wrong.append(f"{column}: {count} columns have this name")
    if "function" not in columns:
        wrong.append("function: no column has this name")
    return wrong


def _csv_record(columns: list[str], cells: list[str], forms: bool) -> tuple[dict[str, object], list[str]]:
    """Return the record that a row holds, blank cells being absent, and what is wrong with others."""
    from executor.call import parse_literal

    record: dict[str, object] = {}
    named: dict[str, object] = {}
    wrong: list[str] = []
    for column, cell in zip_longest(columns, cells, fillvalue=""):
        if not cell.strip():
            continue
        if not column:
            wrong.append(f"{shown(cell)} stands under no column name")
        elif column in ("function", "id"):
            record[column] = cell.strip()
        elif column in ("params", "kwargs"):
            record[column], mistakes = _json_or_mistake(cell)
            wrong += [f"{column}: {mistake}" for mistake in mistakes]
        elif column in KEYS:
            record[column] = parse_literal(cell)
        else:
            named[column.removeprefix(_KWARG)] = parse_literal(cell)
    if forms:
        record = _read_back(record, wrong)
    if named:
        kwargs = record.get("kwargs") or {}
        if isinstance(kwargs, dict):
            wrong += [f"{_KWARG}{key}: stands in the cell under kwargs too" for key in named if key in kwargs]
            record["kwargs"] = kwargs | named
    return record, wrong


def _read_back(record: dict[str, object], wrong: list[str]) -> dict[str, object]:
    """Return the record with what the forms in its arguments stand for; add what is amiss to `wrong`."""
    record = record.copy()  # in YAML, two tasks may be one object
    for key in ("params", "kwargs"):
        try:
            record[key] = _meant(record.get(key), MAX_DEPTH)
        except ValueError as error:
            record[key] = None
            wrong.append(f"{key}: {error}")
    return record


def _meant(value: object, room: int) -> object:
    """Return a value with what the forms in it stand for; what YAML has besides JSON stays as it is.

    Raises:
        ValueError: a form is wrong.
    """
    if not isinstance(value, list | dict) or not room:
        return value  # with no room left, it is refused when it is hashed
    if isinstance(value, list):
        return [_meant(item, room - 1) for item in value]
    if "$npy" in value or (len(value) == 1 and str(next(iter(value))).startswith("$")):
        return from_json(value)
    return {key: _meant(item, room - 1) for key, item in value.items()}


def _text(file: BinaryIO, name: str) -> str:
    raw = file.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TaskFileError([f"{name}:{line}: {_not_utf8(error)}"]) from error


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8 text (byte 0x{error.object[error.start]:02x}); save it as UTF-8"


def _json_or_mistake(text: str) -> tuple[object, list[str]]:
    try:
        return jsontext.load(text)
    except ValueError as error:
        return None, [jsontext.malformed(error)]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking a growing list of tasks time and again, to find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_READERS: dict[str, Callable[[BinaryIO, str], list[Task]]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".csv": _read_csv,
}
