"""What earlier runs leave for the run that continues them."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.history import EARLIER_MOST, History
from executor.run import Run
from executor.task import Task, content_hash, identify


def tasks(*params: int, **ids: int) -> list[Task]:
    made = [Task(function="f", params=[each]) for each in params]
    made += [Task(function="f", params=[value], id=name) for name, value in ids.items()]
    identify(made)
    return made


def note(
    folder: Path, some: list[Task], run: str, *, pushed: int = 0, workers: str = "", ended: bool = False
) -> None:
    history = History(folder, some)
    history.before()
    history.begin(run)
    history.workers(workers.split())
    history.pushed(pushed)
    if ended:
        history.end()
    history.close()


def test_places_follow_the_tasks(tmp_path: Path) -> None:
    old, new = tasks(1, 2, 3, a=4, b=5), tasks(3, 1, 9, b=5, a=0)
    note(tmp_path, old, "old", pushed=3)
    note(tmp_path, new, "new", pushed=1)
    before = History(tmp_path, new).before()
    run = Run(new, earlier=before.earlier)
    assert run.earlier == ["old", "new"]
    # 2 is gone, and a is another task now
    assert [run.place_of("old", place) for place in range(5)] == [1, None, 0, None, 3]
    assert [run.place_of("new", place) for place in range(5)] == [0, 1, 2, 3, 4]
    assert list(run.left("old")) == [1, 0]
    assert list(run.left("new")) == [0]
    assert len(list(tmp_path.glob("order-*"))) == 2


def test_an_order_has_a_line_for_each_task(tmp_path: Path) -> None:
    # the last but one looks like two ids that were made
    some = tasks(*range(2500), **{"mine": 4, f"{'0' * 16}-0\n{'1' * 16}-1": 5, f"{'2' * 16}-3": 6})
    note(tmp_path, some, "a")
    [order] = tmp_path.glob("order-*")
    lines = order.read_text().splitlines()
    assert lines[:2500] == [task.id for task in some[:2500]]
    assert lines[2500] == f'{content_hash(some[2500])} "mine"'
    assert lines[2501].startswith(content_hash(some[2501]))
    assert lines[2502:] == [f"{'2' * 16}-3"]


def test_an_order_is_written_once(tmp_path: Path) -> None:
    for run in "abc":
        note(tmp_path, tasks(1, 2), run)
    assert len(list(tmp_path.glob("order-*"))) == 1
    assert [each.id for each in History(tmp_path, tasks(1, 2)).before().earlier] == ["a", "b", "c"]


def test_the_workers_that_may_still_hold_something(tmp_path: Path) -> None:
    history = History(tmp_path, tasks(1))
    history.begin("a")
    history.workers(["x", "y"])
    history.workers(["y", "z", ""])
    history.close()
    assert History(tmp_path, tasks(1)).before().workers == {"y", "z"}
    history = History(tmp_path, tasks(1))
    history.begin("b")  # it died before they were back
    history.given_up(["z"])
    history.close()
    assert History(tmp_path, tasks(1)).before().workers == {"y"}
    note(tmp_path, tasks(1), "c", workers="w", pushed=1, ended=True)
    before = History(tmp_path, tasks(1)).before()
    assert before.workers == {"y"}  # it was stopped before that one was back
    assert before.earlier[-1].pushed == 0  # it removed what the broker had


def test_no_more_than_the_latest_runs(tmp_path: Path) -> None:
    for number in range(EARLIER_MOST + 2):
        note(tmp_path, tasks(1), f"run-{number}")
    earlier = History(tmp_path, tasks(1)).before().earlier
    assert len(earlier) == EARLIER_MOST
    assert earlier[-1].id == f"run-{EARLIER_MOST + 1}"


@pytest.mark.parametrize("damage", ["order gone", "order changed", "a note torn", "all zeros", "no history"])
def test_a_damaged_history_costs_no_more_than_itself(tmp_path: Path, damage: str) -> None:
    note(tmp_path, tasks(1, 2), "a")
    [order] = tmp_path.glob("order-*")
    runs = tmp_path / "runs.jsonl"
    if damage == "order gone":
        order.unlink()
    elif damage == "order changed":
        order.write_bytes(b"x\n")
    elif damage == "a note torn":
        runs.write_bytes(runs.read_bytes() + b'{"run":"a","ca')
    elif damage == "all zeros":
        runs.write_bytes(b"\0" * 500)
    else:
        runs.unlink()
    note(tmp_path, tasks(2, 1), "b")
    before = History(tmp_path, tasks(2, 1)).before()
    run = Run(tasks(2, 1), earlier=before.earlier)
    assert run.earlier[-1] == "b"
    assert bool(before.missing) == (damage != "no history")
    assert run.place_of("a", 0) == (1 if damage == "a note torn" else None)
