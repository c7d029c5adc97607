"""The results file: whole lines, nothing doubled, nothing lost, however writing fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor import journal
from executor.errors import OutputFailed, UsageError
from executor.journal import Journal
from executor.output import Target
from executor.task import Result


def result(name: str, value: Any = None) -> Result:
    return Result(
        id=name, function="f", params=[], kwargs={}, resources=1, status="ok", value=value, attempt=1
    )


def ids(path: Path) -> list[str]:
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [msgspec.json.decode(line)["id"] for line in data.splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


@pytest.fixture
def opened(path: Path) -> Iterator[Journal]:
    with Target(str(path)) as target:
        each = Journal(target)
        yield each
        each.close()


class Faults:
    """Stands in for the system's calls that write, and lets them fail when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None  # bytes that may still be written
        self.truncates = True
        self.syncs = True
        self.synced: list[str] = []
        write, truncate, fsync = os.write, os.ftruncate, os.fsync

        def write_(descriptor: int, data: bytes) -> int:
            if self.room is None:
                return write(descriptor, data)
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count = write(descriptor, bytes(data)[: min(self.room, 7)])
            self.room -= count
            return count

        def truncate_(descriptor: int, size: int) -> None:
            if not self.truncates:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            truncate(descriptor, size)

        def fsync_(descriptor: int) -> None:
            if not self.syncs:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            fsync(descriptor)

        monkeypatch.setattr(os, "write", write_)
        monkeypatch.setattr(os, "ftruncate", truncate_)
        monkeypatch.setattr(os, "fsync", fsync_)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 900), st.booleans())))
def test_every_result_is_one_whole_line_however_writing_fails(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int | None, bool]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "r.jsonl"
    taken, cuts = 0, True
    with pytest.MonkeyPatch.context() as patch, Target(str(path)) as target:
        faults, opened = Faults(patch), Journal(target)
        for count, faults.room, faults.truncates in steps:
            cuts = cuts and faults.truncates
            for _ in range(count):
                opened.write([result(f"task-{taken}")])
                taken += 1
            failed = False
            try:
                opened.flush()
            except OutputFailed:
                failed = True
            assert failed == (opened.unwritten > 0)
            if failed and cuts:  # then no torn line is left behind either
                assert ids(path) == [f"task-{n}" for n in range(len(ids(path)))]
        faults.room = None
        opened.close()
    assert ids(path) == [f"task-{n}" for n in range(taken)]


def test_what_is_written_is_synced_within_a_second_also_when_nothing_follows(
    path: Path, opened: Journal, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: now)
    opened.write([result("a")])
    opened.flush()
    opened.tick()
    assert faults.synced == []
    now += journal.SYNC_AFTER
    opened.tick()
    assert faults.synced == ["r.jsonl"]
    now += 100
    opened.tick()
    assert len(faults.synced) == 1  # nothing new
    opened.write([result("b")])
    opened.flush()
    opened.close()
    assert faults.synced[1:] == ["r.jsonl"]


def test_an_array_is_safe_before_the_line_that_names_it_is_written(
    path: Path, opened: Journal, faults: Faults
) -> None:
    opened.write([result("a", np.zeros(2000))])
    faults.syncs = False
    with pytest.raises(OutputFailed):
        opened.flush()
    assert ids(path) == []
    faults.syncs, faults.room = True, 0
    with pytest.raises(OutputFailed):
        opened.flush()
    assert faults.synced == ["a.npy", "r.jsonl.d"]
    faults.room = None
    opened.flush()
    assert ids(path) == ["a"]


def test_what_a_sync_failed_for_is_written_again_at_its_place(
    path: Path, opened: Journal, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.write([result("a")])
    opened.flush()
    opened.sync()
    opened.write([result("b")])
    opened.flush()
    faults.syncs = False
    with pytest.raises(OutputFailed):
        opened.sync()
    whole = path.read_bytes()
    with path.open("r+b") as file:  # as the system may drop what it could not write
        file.seek(len(whole) // 2)
        file.write(b"\0" * (len(whole) - len(whole) // 2))
    opened.write([result("c")])
    opened.flush()
    faults.syncs = True
    opened.sync()
    assert ids(path) == ["a", "b", "c"]


def test_a_result_whose_array_cannot_be_written_is_not_written(path: Path, opened: Journal) -> None:
    folder = path.with_name("r.jsonl.d")
    (folder / "a.npy").mkdir()
    opened.write([result("a", np.arange(2000))])
    opened.write([result("b")])
    with pytest.raises(OutputFailed, match=r"a\.npy: can't be written: Is a directory"):
        opened.flush()
    assert ids(path) == []
    assert opened.unwritten == 2
    (folder / "a.npy").rmdir()
    opened.flush()
    assert ids(path) == ["a", "b"]
    assert np.array_equal(np.load(folder / "a.npy"), np.arange(2000))


def test_no_two_tasks_share_an_arrays_file(path: Path, opened: Journal) -> None:
    opened.write([result("a", [np.full(2000, 1), np.full(2000, 2)])])
    opened.write([result("a.1", np.full(2000, 3))])
    opened.flush()
    lines = [msgspec.json.decode(line)["value"] for line in path.read_bytes().splitlines()]
    stored = [np.load(path.parent / each["$npy"])[0] for each in [*lines[0], lines[1]]]
    assert stored == [1, 2, 3]


def test_not_even_where_capitals_are_the_same(path: Path, opened: Journal) -> None:
    for name in ("Run-1", "run-1", "RUN-1"):
        opened.write([result(name, np.zeros(2000))])
    opened.flush()
    names = [each.name for each in path.with_name("r.jsonl.d").glob("*.npy")]
    assert len({name.lower() for name in names}) == 3
    assert "run-1.npy" in names


def test_one_at_a_time(path: Path) -> None:
    with Target(str(path)):
        with pytest.raises(UsageError, match=f"another dispatcher .process {os.getpid()}. writes it"):
            Target(str(path))
        link = path.with_name("link.jsonl")
        link.symlink_to(path)
        with pytest.raises(UsageError, match="another dispatcher"):
            Target(str(link), "resume")
    Target(str(path)).close()


def test_a_file_that_holds_something_is_refused_and_nothing_made_beside_it(path: Path) -> None:
    path.write_text("a diary")
    with pytest.raises(UsageError, match=r"7 bytes already; --resume .*--retry-failed .*--overwrite"):
        Target(str(path))
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "a diary"


def test_what_overwrite_removes(path: Path) -> None:
    path.write_text("old")
    folder = path.with_name("r.jsonl.d")
    folder.mkdir()
    ours = ["a.npy", "runs.jsonl", "superseded.jsonl", "order-0123456789abcdef"]
    for name in (*ours, "mine.txt"):
        (folder / name).touch()
    with Target(str(path), "resume"):
        assert {each.name for each in folder.iterdir()} == {*ours, "mine.txt", "lock"}
    with Target(str(path), "overwrite") as target:
        assert path.read_bytes() == b"old"  # who can't begin has changed nothing
        target.begin()
        assert path.read_bytes() == b""
        assert {each.name for each in folder.iterdir()} == {"mine.txt", "lock"}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_nothing_lies_beside_a_pipe_or_a_device(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    with Target(str(path)) as target:
        assert target.folder is None
    with pytest.raises(UsageError, match="is no file, so there is nothing to go on with"):
        Target(str(path), "resume")
    assert list(path.parent.iterdir()) == [path]


def test_what_is_in_the_way_is_named(path: Path) -> None:
    folder = path.with_name("r.jsonl.d")
    folder.touch()
    with pytest.raises(UsageError, match=rf"--output {path}: {folder}: File exists"):
        Target(str(path))
    folder.unlink()
    (folder / "lock").mkdir(parents=True)
    with pytest.raises(UsageError, match=rf"--output {path}: {folder}/lock: Is a directory"):
        Target(str(path))
    with pytest.raises(UsageError, match=rf"there is no folder {path.parent}/none$"):
        Target(str(path.parent / "none" / "r.jsonl"))


def test_a_reader_that_went_away_is_for_good(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with Target(f"/dev/fd/{writing}") as target:
        opened = Journal(target)
    assert target.folder is None
    os.close(reading)
    opened.write([result("a")])
    with pytest.raises(OutputFailed) as caught:
        opened.flush()
    assert caught.value.for_good
    assert opened.drop() == 1
    opened.close()
    os.close(writing)
