"""What a folder ``FILE.d`` tells of the runs that wrote the results file, for the run that continues them.

``runs.jsonl`` is only ever appended to. Its lines are notes about a run:

    {"run": ID, "at": 1795471738.99, "order": "order-0123456789abcdef"}   it begins
    {"run": ID, "came": [...]}  {"run": ID, "gone": [...]}                workers, by their instances
    {"run": ID, "pushed": N}      so many of its tasks, from the first on, are safe with a broker
    {"run": ID, "ended": true}    it said goodbye to all that it met, who so keep nothing of it

The file that "order" names holds the tasks' ids by place, one on each line. An id that was given by the user
stands there as JSON behind the hash of what the task computed then, and a blank.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from array import array
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from executor import content, jsonform
from executor.output import ORDER, RUNS, sync_file, sync_folder
from executor.run import Earlier
from executor.task import Task, content_hash

#: Runs that are continued at most, the latest ones.
EARLIER_MOST = 50

#: An id that is made of what the task computes, and lines of such.
_OWN_ID = re.compile(r"[0-9a-f]{16}-\d+")
_OWN_IDS = re.compile(rf"(?:{_OWN_ID.pattern}\n)*+")
#: So many ids are looked at in one go.
_TOGETHER = 1000


class _Note(msgspec.Struct, omit_defaults=True, gc=False):
    run: str
    at: float | None = None
    order: str | None = None
    came: list[str] = []
    gone: list[str] = []
    pushed: int | None = None
    ended: bool = False


class Before(NamedTuple):
    """The runs that another continues, the oldest first, and the instances of workers that may still have
    something of them; `missing` are the files and lines that can't be read."""

    earlier: list[Earlier]
    workers: frozenset[str]
    missing: list[str]


class History:
    """Notes what a run of these tasks does, in `folder`.

    Notes that can't be written are left out: without them only more is run again.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        self._folder = folder
        self._tokens = b"".join(_tokens(tasks))
        self._order = ORDER + hashlib.blake2b(self._tokens, digest_size=8).hexdigest()
        self._run = ""
        self._descriptor = -1
        self._workers: set[str] = set()
        self._pushed = 0

    def before(self) -> Before:
        """Read what earlier runs left."""
        runs: dict[str, tuple[str, int]] = {}
        workers: set[str] = set()
        met: dict[str, set[str]] = {}
        missing: list[str] = []
        for note in self._notes(missing):
            workers.difference_update(note.gone)
            workers.update(note.came)
            met.setdefault(note.run, set()).update(note.came)
            order, pushed = runs.get(note.run, ("", 0))
            if note.ended:  # whom it has not met may still have something of a run before
                workers.difference_update(met[note.run])
                pushed = 0
            runs[note.run] = (note.order or order, pushed if note.pushed is None else note.pushed)
        places: dict[str, array[int] | None] = {self._order: None}
        earlier = []
        for run, (order, pushed) in list(runs.items())[-EARLIER_MOST:]:
            if order not in places:
                try:
                    places[order] = self._places(order)
                except (OSError, ValueError):
                    missing.append(order or "an order")
                    places[order] = array("q")  # none of its tasks is known
            earlier.append(Earlier(run, places[order], pushed))
        return Before(earlier, frozenset(workers), missing)

    def begin(self, run: str) -> None:
        """Note that a run begins, safe against a power cut before the first of its tasks is handed out."""
        self._run = run
        with contextlib.suppress(OSError):
            order = self._folder / self._order
            if not order.exists():
                new = self._folder / f"{self._order}.new"
                new.write_bytes(self._tokens)
                sync_file(new)
                new.rename(order)
            self._tokens = b""
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._folder / RUNS, flags, 0o666)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":  # a note that was cut short
                os.write(self._descriptor, b"\n")
            self._note(_Note(run, at=time.time(), order=self._order))
            os.fsync(self._descriptor)
            sync_folder(self._folder)

    def workers(self, present: Collection[str]) -> None:
        """Note which workers came and went, by their instances."""
        now = {instance for instance in present if instance}
        if now != self._workers:
            came, gone = sorted(now - self._workers), sorted(self._workers - now)
            self._workers = now
            self._note(_Note(self._run, came=came, gone=gone))

    def given_up(self, instances: Collection[str]) -> None:
        """Note that these workers of earlier runs did not come back."""
        if instances:
            self._note(_Note(self._run, gone=sorted(instances)))

    def pushed(self, count: int) -> None:
        """Note how many tasks, from the first on, are safe with a broker."""
        if count != self._pushed:
            self._pushed = count
            self._note(_Note(self._run, pushed=count))

    def end(self) -> None:
        """Note that nobody keeps anything of this run."""
        self._note(_Note(self._run, ended=True))

    def close(self) -> None:
        """Let go of the file. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _note(self, note: _Note) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, msgspec.json.encode(note) + b"\n")

    def _notes(self, missing: list[str]) -> Iterator[_Note]:
        bad = 0
        decoder = msgspec.json.Decoder(_Note)
        try:
            with (self._folder / RUNS).open("rb") as file:
                for line in file:
                    try:
                        yield decoder.decode(line)
                    except (msgspec.MsgspecError, UnicodeDecodeError):
                        bad += not line.isspace()
        except FileNotFoundError:
            pass
        except OSError:
            missing.append(RUNS)
        if bad:
            missing.append(f"{bad:,} of the lines of {RUNS}")

    def _places(self, order: str) -> array[int]:
        """Return the places here of the tasks of another order, by their places there; -1: not among these.

        Raises:
            OSError, ValueError: there is no such order, or it is not what it was.
        """
        if not re.fullmatch(f"{ORDER}[0-9a-f]{{16}}", order):
            raise ValueError(order)
        data = (self._folder / order).read_bytes()
        if order != ORDER + hashlib.blake2b(data, digest_size=8).hexdigest():
            raise ValueError(order)
        here = {token: place for place, token in enumerate(self._tokens.splitlines())}
        return array("q", (here.get(token, -1) for token in data.splitlines()))


def _tokens(tasks: Sequence[Task]) -> Iterator[bytes]:
    """Yield the lines of the file of an order, many at once where that is quick."""
    for start in range(0, len(tasks), _TOGETHER):
        some = tasks[start : start + _TOGETHER]
        ids = "".join([f"{task.id}\n" for task in some])
        if _OWN_IDS.fullmatch(ids) and ids.count("\n") == len(some):
            yield ids.encode()
            continue
        plain = jsonform.are_plain([part for task in some for part in (task.params, task.kwargs)])
        canonical = content.canonical_json if plain else content.canonical
        for task in some:
            if _OWN_ID.fullmatch(task.id):
                yield task.id.encode() + b"\n"
            else:
                yield content_hash(task, canonical).encode() + b" " + jsonform.encode_line(task.id) + b"\n"
