"""Lines that were taken out of a results file, as their tasks are run again.

They stand in ``superseded.jsonl`` in the folder beside it. First that file is replaced by one with the old
and the new lines, then the results file by one without them: so a crash between the two leaves a line in
both, and the next resume sees that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from executor.output import SUPERSEDED, sync_folder
from executor.resultline import parse
from executor.run import Span
from executor.task import Task

#: Bytes read at once.
_BLOCK = 1 << 20


def move(path: Path, folder: Path, numbers: Collection[int], end: int) -> None:
    """Move lines to the superseded ones."""
    aside = folder / SUPERSEDED
    moved = set(numbers)
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
        for number, line in _lines(path, end):
            if number in moved and _digest(line) not in known:  # else moved before a crash
                new.write(line)
    with _replacing(path) as new:
        for number, line in _lines(path, end):
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


def spans_of(path: Path, tasks: Sequence[Task]) -> dict[int, set[Span]]:
    """Return what tells the reports of superseded lines, by place. Those that never ran have none."""
    spans: dict[int, set[Span]] = {}
    if not path.exists():
        return spans
    places = {task.id: place for place, task in enumerate(tasks)}
    with contextlib.suppress(OSError), path.open("rb", buffering=_BLOCK) as file:
        for raw in file:
            try:
                line = parse(raw)
            except ValueError:
                continue
            place = places.get(line.id)
            if place is not None and line.started is not None and line.finished is not None:
                spans.setdefault(place, set()).add((line.started, line.finished))
    return spans
