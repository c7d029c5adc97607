"""What a results file says of tasks, and how it is made ready for the run that continues it."""

from __future__ import annotations

import datetime
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor import resume
from executor.errors import OutputFailed, UsageError
from executor.journal import Journal
from executor.output import Target
from executor.resume import FAILED, UNFINISHED, Past
from executor.task import Error, Result, Task, identify


def tasks(*names: str, **fields: Any) -> list[Task]:
    made = [Task(**{"function": "f", "params": [name], "id": name, **fields}) for name in names]
    identify(made)
    return made


def result(task: Task, status: Any = "ok", **fields: Any) -> Result:
    error = None if status == "ok" else Error("E", "no")
    known: dict[str, Any] = {"attempt": 1, "started": 1.5, "finished": 2.25}
    return Result(
        id=task.id, function=task.function, params=task.params, kwargs=task.kwargs,
        resources=task.resources, status=status, error=error, **{**known, **fields},
    )  # fmt: skip


def write(path: Path, *results: Result) -> None:
    with Target(str(path), "resume") as target:
        journal = Journal(target)
        for each in results:
            journal.write([each])
        journal.close()


def go_on(path: Path, some: Sequence[Task], again: Any = UNFINISHED) -> tuple[Past, list[str]]:
    said: list[str] = []
    with Target(str(path), "resume") as target:
        found = resume.look(target, some, again, said.append)
        return resume.make_ready(target, some, found, said.append), said


def ids(path: Path) -> list[str]:
    data = path.read_bytes() if path.exists() else b""
    assert data == b"" or data.endswith(b"\n")
    return [msgspec.json.decode(line)["id"] for line in data.splitlines() if line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.jsonl"


@pytest.fixture
def aside(path: Path) -> Path:
    return path.with_name("r.jsonl.d") / "superseded.jsonl"


def test_what_runs_again(path: Path, aside: Path) -> None:
    statuses = ["ok", "error", "timeout", "crashed", "rejected", "cancelled", "lost"]
    some = tasks(*statuses, "new")
    others = tasks("other")
    write(path, *map(result, some, statuses), result(others[0], "error"))
    before = path.stat()
    path.chmod(0o640)
    past, said = go_on(path, some)
    assert [some[place].id for place in past.recorded] == statuses[:5]
    assert past.counts == Counter(statuses[:5])
    assert past.superseded == {5: {(1.5, 2.25)}, 6: {(1.5, 2.25)}}
    assert ids(path) == [*statuses[:5], "other"]
    assert ids(aside) == ["cancelled", "lost"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_ino != before.st_ino
    assert said == [
        f"{path}: 5 of 8 tasks recorded before (4 not ok), 3 to run",
        "1 line of tasks that are not among these: left as they are",
        f"of those to run 2 ran before; their lines are now in {path}.d/superseded.jsonl",
    ]
    past, said = go_on(path, some, FAILED)
    assert [some[place].id for place in past.recorded] == ["ok"]
    assert ids(path) == ["ok", "other"]
    assert ids(aside) == ["cancelled", "lost", *statuses[1:5]]
    assert set(past.superseded) == set(range(1, 7))


def test_nothing_there_just_starts(path: Path) -> None:
    past, _ = go_on(path, tasks("a"))
    assert (list(past.recorded), past.counts, past.superseded) == ([], {}, {})
    assert path.read_bytes() == b""
    assert go_on(path, tasks("a"))[1] == [f"{path}: 0 of 1 task recorded before, 1 to run"]


@pytest.mark.parametrize("zeros", [b"", b"\0", b"\0" * 5000])
def test_a_torn_last_line_is_cut_wherever_it_was_torn(path: Path, zeros: bytes) -> None:
    some = tasks("a", "b")
    write(path, *map(result, some))
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end] + zeros)
        past, said = go_on(path, some)
        if end == len(whole) - 1:  # it lacks its line end alone
            assert path.read_bytes() == whole
            assert list(past.recorded) == [0, 1]
        else:
            assert path.read_bytes() == whole[:start]
            assert list(past.recorded) == [0]
        cut = len(zeros) + (0 if end == len(whole) - 1 else end - start)
        assert [line for line in said if ": cut " in line] == (
            [f"{path}: cut {resume.plural(cut, 'byte')} of a last line that was not written to its end"]
            if cut
            else []
        )


@pytest.mark.parametrize(
    "bad",
    [
        b'\xef\xbb\xbf{"id":["x"],"function":"f","params":[],"kwargs":{},"resources":1,"status":"ok","started":null,"finished":null}\n',
        b"a diary\n", b"{}\n", b'{"id":"a"}\n', b"\0\0\0\n", b"[1]\n", b'{"id":"b","fun\n',
        b'{"id":"b","function":"f","params":[],"kwargs":{},"resources":1,"status":"fine","started":null,"finished":null}\n',
        b"a diary", b'{"id":"b","function":"f"}', b'{"function":"f","para',
    ],
)  # fmt: skip
def test_a_line_that_is_no_result_is_refused_and_nothing_changed(path: Path, aside: Path, bad: bytes) -> None:
    some = tasks("a", "b")
    write(path, result(some[0], "lost"))
    lines = path.read_bytes() + bad
    if bad.endswith(b"\n"):
        lines += path.read_bytes()
    path.write_bytes(lines)
    with pytest.raises(UsageError, match=r"r\.jsonl:2: is no result of a run: .*nothing was changed"):
        go_on(path, some)
    assert path.read_bytes() == lines
    assert not aside.exists()


def test_two_lines_of_one_id(path: Path, aside: Path) -> None:
    some = tasks("a", "b")
    lines = [
        result(some[0]),
        result(some[1]),
        result(some[0], "error"),
        result(tasks("x")[0]),
        result(tasks("x")[0], "lost"),
    ]
    write(path, *lines)
    past, said = go_on(path, some)
    assert list(past.recorded) == [0, 1]
    assert past.counts == {"ok": 2}
    assert ids(path) == ["a", "b", "x"]
    assert ids(aside) == ["a", "x"]
    assert f"2 lines with the id of an earlier line: now in {path}.d/superseded.jsonl" in said


class Crash(BaseException):
    pass


@pytest.mark.parametrize("steps", range(8))
def test_a_crash_at_any_step_moves_no_line_twice_and_loses_none(
    path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    some = tasks("a", "b", "c", "d")
    write(path, *map(result, some, ["ok", "lost", "error", "lost"]))
    left = steps
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def step(*arguments: Any, real: Any = real, **options: Any) -> Any:
            nonlocal left
            if not left:
                raise Crash
            left -= 1
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, step)
    try:
        go_on(path, some)
    except Crash:
        pass
    finally:
        monkeypatch.undo()
    assert {*ids(path), *ids(aside)} == {"a", "b", "c", "d"}
    past, _ = go_on(path, some)
    assert list(past.recorded) == [0, 2]
    assert ids(path) == ["a", "c"]
    assert ids(aside) == ["b", "d"]


def test_no_room_for_the_new_files_is_said_and_nothing_changed(
    path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tasks("a", "b")
    write(path, *map(result, some, ["ok", "lost"]))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Target(str(path), "resume") as target, monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputFailed, match="No space left on device; no result is lost"):
            resume.make_ready(target, some, resume.look(target, some, UNFINISHED, print), print)
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.rglob("*")} == {"r.jsonl", "r.jsonl.d", "lock"}


# --- Is it what it was? -----------------------------------------------------------------------------------


def test_changed_tasks_are_refused_with_both_shown(path: Path) -> None:
    write(path, *map(result, tasks("a", "b", "c")))
    before = path.read_bytes()
    changed = [
        *tasks("a"),
        Task(function="g", params=[2], id="b"),
        Task(function="f", params=["c"], id="c", resources=2),
    ]
    with pytest.raises(UsageError) as caught:
        go_on(path, changed)
    first, second, third = str(caught.value).splitlines()
    assert first == "2 tasks are not what was recorded under their ids:"
    assert second == f"{path}:2: task b was f('b') and now is g(2)"
    assert third.startswith(
        f"{path}:3: task c was f('c') on 1 core and now is f('c') on 2 cores; give what is new another id"
    )
    assert path.read_bytes() == before
    many, other = tasks(*map(str, range(10))), path.with_name("many.jsonl")
    write(other, *map(result, many))
    with pytest.raises(UsageError, match="and 5 more"):
        go_on(other, [Task(function="g", id=each.id) for each in many])


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.dates()
    | st.binary(max_size=9) | st.text(st.characters(exclude_categories=()), max_size=9)
    | st.integers(2000, 2001).map(np.arange)
)  # fmt: skip
KEYS = st.text(max_size=3) | st.integers()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(value=VALUES, name=st.sampled_from(["", "given", "\udcff"]))
def test_a_task_is_what_it_was_whatever_its_arguments(
    tmp_path_factory: pytest.TempPathFactory, value: Any, name: str
) -> None:
    path = tmp_path_factory.mktemp("resume") / "r.jsonl"
    some = [Task(function="f", params=[value], kwargs={"b": value, "a": 1}, id=name)]
    identify(some)
    write(path, result(some[0], value=value))
    assert list(go_on(path, some)[0].recorded) == [0]
    turned = Task(function="f", params=[value], kwargs={"a": 1, "b": value}, id=some[0].id)
    assert list(go_on(path, [turned])[0].recorded) == [0]
    for other in ([value, 0], [[value]], []):
        with pytest.raises(UsageError, match="now is"):
            go_on(path, [Task(function="f", params=other, kwargs={"b": value, "a": 1}, id=some[0].id)])


@pytest.mark.parametrize(
    ("was", "now"),
    [
        *((1, 1.0), (1, True), (0, False), ("1", 1), (None, False), (10**30, 10**30 + 1)),
        # what another writer of JSON would make look alike
        *(("aGk=", b"hi"), (None, math.nan), ("2024-02-29", datetime.date(2024, 2, 29)), ({"1": 2}, {1: 2})),
    ],
)
def test_types_tell(path: Path, was: Any, now: Any) -> None:
    write(path, result(Task(function="f", params=[was], id="a")))
    with pytest.raises(UsageError, match="now is"):
        go_on(path, [Task(function="f", params=[now], id="a")])


def test_arrays_in_files(path: Path) -> None:
    array = np.arange(3000.0)
    write(path, result(Task(function="f", params=[array], id="a")))
    assert list(go_on(path, [Task(function="f", params=[array.copy()], id="a")])[0].recorded) == [0]
    other = array.copy()
    other[-1] = 0
    for each in (other, array.astype("f4"), array.reshape(2, 1500), 3):
        with pytest.raises(UsageError, match="now is"):
            go_on(path, [Task(function="f", params=[each], id="a")])
    path.with_name("r.jsonl.d").joinpath("a.npy").unlink()  # to save room
    assert list(go_on(path, [Task(function="f", params=[array], id="a")])[0].recorded) == [0]


@pytest.mark.parametrize("damage", [b"", b"\0" * 3000])
def test_arrays_that_are_gone_or_damaged(path: Path, damage: bytes) -> None:
    array = np.arange(3000.0)
    one, other = Task(function="f", params=[array], id="a"), Task(function="f", id="b")
    text = {"looks": '{"$npy":"none.npy"}'}
    write(path, result(one, value=[array, array]), result(other, value=text))
    some = [one, other]
    assert len(go_on(path, some)[1]) == 1
    for file in path.with_name("r.jsonl.d").glob("*.npy"):
        file.write_bytes(damage)
    past, said = go_on(path, some)
    assert list(past.recorded) == [0, 1]
    gone = "1 line names an array that is gone, r.jsonl.d/a.2.npy in line 1"
    assert said[1:] == ([] if damage else [f"{gone}; take such a line out to run its task again"])


def test_a_link_to_a_file_lies_elsewhere_than_its_folder(path: Path) -> None:
    some = tasks("a")
    write(path, result(some[0], "lost"))
    link = path.parent / "elsewhere" / "link.jsonl"
    link.parent.mkdir()
    link.symlink_to(path)
    assert go_on(link, some)[1][-1].endswith(f"now in {path}.d/superseded.jsonl")
    assert list(link.parent.iterdir()) == [link]


def test_a_dry_run_with_what_is_no_file_or_can_not_be_read(path: Path) -> None:
    path.mkdir()
    with pytest.raises(UsageError, match="is no file, so there is nothing to go on with"):
        resume.left(str(path), tasks("a"), UNFINISHED, print)
    loop = path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UsageError, match=f"--output {loop}: "):
        resume.left(str(loop), tasks("a"), UNFINISHED, print)


def test_what_failed_is_said_to_be_retried_by_the_other_option(path: Path) -> None:
    some = tasks("a", "b")
    write(path, *map(result, some, ["ok", "error"]))
    line = f"{path}: 2 of 2 tasks recorded before (1 not ok), nothing to run"
    assert go_on(path, some)[1] == [f"{line}; --retry-failed runs that one again"]


def test_how_a_task_is_run_may_change(path: Path) -> None:
    write(path, result(tasks("a")[0]))
    assert list(go_on(path, tasks("a", timeout=3, retries=5, memory=10**9))[0].recorded) == [0]


def test_equal_tasks_without_ids_are_counted(path: Path) -> None:
    some = [Task(function="f", params=[1]) for _ in range(3)]
    identify(some)
    write(path, result(some[1]))
    assert list(go_on(path, some)[0].recorded) == [1]


def test_a_dry_run_changes_nothing(path: Path, aside: Path) -> None:
    some = tasks("a", "b", "c")
    write(path, *map(result, some, ["ok", "lost", "error"]))
    path.write_bytes(path.read_bytes() + b'{"id":"x')
    before = path.read_bytes()
    said: list[str] = []
    assert [each.id for each in resume.left(str(path), some, UNFINISHED, said.append)] == ["b"]
    assert said == [f"{path}: 2 of 3 tasks recorded before (1 not ok), 1 to run"]
    assert path.read_bytes() == before
    assert not aside.exists()
    assert resume.left(str(path) + "x", some, UNFINISHED, said.append) == some


def test_reports_that_never_ran_are_none_that_come_again(path: Path) -> None:
    some = tasks("a")
    write(path, result(some[0], "rejected", started=None, finished=None))
    past, _ = go_on(path, some, FAILED)
    assert past.superseded == {}
