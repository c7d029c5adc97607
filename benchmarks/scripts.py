"""The real scripts as processes, and what their results file says of the time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from benchmarks.machine import ROOT
from benchmarks.measure import Failed

#: Seconds that any run of a script may take.
LIMIT = 1800.0

#: Seconds between two looks at a process's memory.
_LOOK = 0.05


class Line(msgspec.Struct, gc=False):
    """What a benchmark reads of a line of the results file."""

    status: str
    resources: int
    worker: str | None
    started: float | None
    finished: float | None


class Ran(NamedTuple):
    """A run of the dispatcher.

    `wall` is the seconds of the whole command; `span` those from the first `started` to the last `finished`;
    `area` the core-seconds between `started` and `finished` of all tasks; `memory` the bytes that the
    dispatcher's process held at most; `workers` how many results each worker sent; `late` the seconds of the
    span that workers had before their first task, and `early` those after their last, each added up.
    """

    tasks: int
    wall: float
    span: float
    area: float
    memory: int
    workers: Mapping[str, int]
    late: float
    early: float

    @property
    def rate(self) -> float:
        """Tasks a second, within the span."""
        return self.tasks / self.span


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for task files, results and settings, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="fe-bench-") as name:
        yield Path(name)


def write_tasks(path: Path, tasks: Iterable[Mapping[str, Any]]) -> Path:
    """Write a JSON Lines file of tasks; return its path."""
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(task) + "\n")
    return path


def no_ops(path: Path, count: int) -> Path:
    """Write so many no-op calls, all different, as those of a sweep are."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f'{{"function": "operator.add", "params": [{number}, 1]}}\n')
    return path


def write_settings(path: Path, **keys: Any) -> Path:
    """Write a YAML file of a wire's settings; return its path."""
    path.write_text(json.dumps(keys), encoding="utf-8")
    return path


def dispatch(tasks: Path, count: int, *options: str | Path, results: Path) -> Ran:
    """Run `dispatcher.py` on a file of `count` tasks to its end, with its results in a file.

    Raises:
        Failed: it ended otherwise, or not every task has its result.
    """
    command = [sys.executable, str(ROOT / "dispatcher.py"), "--tasks", str(tasks), "--output", str(results)]
    command += ["--overwrite", "--quiet", *map(str, options)]
    began = time.monotonic()
    # In the repository's folder, so that tasks find the functions of `benchmarks.work`.
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with Watch(process.pid) as watch:
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate()
            raise Failed(f"{' '.join(command)} has not ended within {LIMIT:g} s") from None
    wall = time.monotonic() - began
    if process.returncode:
        raise Failed(f"{' '.join(command)} ended with {process.returncode}:\n{output.decode()[-2000:]}")
    return read_results(results, count, wall, watch.most)


def read_results(results: Path, count: int, wall: float, memory: int) -> Ran:
    """Read what a results file says of the time.

    Raises:
        Failed: a task has no result, or one that is not ok.
    """
    decoder = msgspec.json.Decoder(Line)
    tasks, area = 0, 0.0
    workers: Counter[str] = Counter()
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    with results.open("rb") as file:
        for text in file:
            line = decoder.decode(text)
            if line.status != "ok" or line.started is None or line.finished is None:
                raise Failed(f"a task ended as {line.status}: {text.decode()[:500]}")
            tasks += 1
            area += (line.finished - line.started) * line.resources
            who = line.worker or ""
            first[who] = min(line.started, first.get(who, line.started))
            last[who] = max(line.finished, last.get(who, line.finished))
            workers[who] += 1
    if tasks != count:
        raise Failed(f"{tasks:,} results of {count:,} tasks")
    begin, end = min(first.values()), max(last.values())
    late, early = sum(each - begin for each in first.values()), sum(end - each for each in last.values())
    return Ran(tasks, wall, end - begin, area, memory, workers, late, early)


def seconds_of(*command: str | Path) -> float:
    """Run one of our scripts to its end; return the seconds of the whole process.

    Raises:
        Failed: it ended with another status than 0.
    """
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}:\n{done.stderr.decode()[-2000:]}")
    return seconds


class Watch:
    """Looks at how much memory a process holds at most, as long as the context lasts."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._status = Path(f"/proc/{pid}/status")
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            try:
                self.most = max(self.most, self._held())
            except (OSError, psutil.Error):  # it has ended
                return

    def _held(self) -> int:
        """Return the most that the kernel has seen, or where it doesn't tell, what is held now."""
        if not self._status.exists():
            return self._process.memory_info().rss
        for line in self._status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
