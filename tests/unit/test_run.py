"""A run: which report is recorded, which calls for another attempt, and which comes too late."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import codec
from executor.errors import BadFrame, CannotTravel
from executor.messages import NIL, Report
from executor.run import Run
from executor.task import MEMORY_LIMIT, Result, Task, identify


def a_run(count: int = 1, **options: Any) -> Run:
    tasks = [Task(function="operator.add", params=[i, 1]) for i in range(count)]
    identify(tasks)
    return Run(tasks, **options)


def report(
    place: int = 0, status: str = "ok", attempt: int = 1, value: object = None, kind: str = "X"
) -> Report:
    error = None if status == "ok" else (kind, "why", "")
    return Report(place, attempt, status, msgspec.Raw(codec.encode(value)[0]), error=error)


def test_a_call_travels_whole() -> None:
    run = Run(
        [Task(function="f.g", params=[1], kwargs={"a": 2}, resources=3, timeout=4.0, memory=5)], timeout=9.0
    )
    item, buffers = run.item(0)
    assert (item.place, item.attempt, item.width, item.timeout, item.memory) == (0, 1, 3, 4.0, 5)
    assert codec.decode([item.call, *buffers]) == ["f.g", [1], {"a": 2}]


def test_the_runs_timeout_is_for_tasks_without_one() -> None:
    assert a_run(timeout=7.0).item(0)[0].timeout == 7.0
    assert a_run().item(0)[0].timeout is None


def test_a_call_that_cannot_travel_is_told() -> None:
    with pytest.raises(CannotTravel):
        Run([Task(function="f", params=[object()], id="x")]).item(0)


def test_a_result_says_all_that_is_known() -> None:
    run = a_run()
    run.submitted = 1.0
    came = msgspec.structs.replace(
        report(value=3), cores=(2, 5), started=2.0, finished=3.0, stdout="said", stderr=""
    )
    result = run.accept(came, worker="w", host="h")
    assert isinstance(result, Result)
    assert (result.function, result.params, result.value) == ("operator.add", [0, 1], 3)
    assert (result.worker, result.host, result.cores, result.attempt) == ("w", "h", [2, 5], 1)
    assert (result.submitted, result.started, result.finished) == (1.0, 2.0, 3.0)
    assert result.stdout == "said"
    assert result.stderr is msgspec.UNSET
    assert run.counts == {"ok": 1}
    assert run.unrecorded == 0


@pytest.mark.parametrize(
    ("status", "attempts"),
    [("ok", 1), ("error", 1), ("crashed", 3), ("lost", 3), ("timeout", 1), ("rejected", 1), ("cancelled", 1)],
)
def test_attempts_by_default(status: str, attempts: int) -> None:
    run = a_run()
    for attempt in range(1, attempts):
        assert run.accept(report(status=status, attempt=attempt)) is None
        assert run.due == [(0, status == "lost")]
        run.due.clear()
        assert run.item(0)[0].attempt == attempt + 1
    result = run.accept(report(status=status, attempt=attempts))
    assert result is not None
    assert (result.status, result.attempt) == (status, attempts)
    assert not run.due


def test_retries_of_the_task_come_before_those_of_the_run() -> None:
    run = Run([Task(function="f", retries=1, id="a"), Task(function="f", id="b")], retries=0)
    assert run.accept(report(0, "error")) is None
    assert run.accept(report(1, "crashed")) is not None
    assert run.accept(report(0, "error", attempt=2)) is not None


def test_a_memory_limit_is_not_tried_again() -> None:
    assert a_run(retries=5).accept(report(status="crashed", kind=MEMORY_LIMIT)) is not None


def test_a_worker_that_vanished_knows_no_attempt() -> None:
    run = a_run()
    for _ in range(2):
        assert run.accept(report(status="lost", attempt=0)) is None
    result = run.accept(report(status="lost", attempt=0))
    assert result is not None
    assert result.attempt == 3


def test_a_late_failure_of_an_earlier_attempt_is_dropped_and_its_success_taken() -> None:
    run = a_run()
    run.accept(report(status="lost", attempt=0))
    assert run.accept(report(status="crashed", attempt=1)) is None
    assert run.attempt(0) == 2
    late = run.accept(report(value=1, attempt=1))
    assert late is not None
    assert (late.status, late.attempt) == ("ok", 1)
    assert run.accept(report(value=1, attempt=2)) is None


def test_a_result_that_cannot_be_read_is_its_tasks_error() -> None:
    result = a_run().accept(Report(0, 1, "ok", msgspec.Raw(b"\xc1")))
    assert result is not None
    assert result.status == "error"
    assert result.error is not None
    assert result.error.type == "BadFrame"


def test_a_rejected_task_never_started() -> None:
    run = a_run()
    result = run.reject(0, "too wide")
    assert result is not None
    assert (result.status, result.attempt, result.cores, result.started) == ("rejected", 0, [], None)
    assert run.reject(0, "too wide") is None


@pytest.mark.parametrize("place", [1, 2**40])
def test_a_report_about_no_task_of_the_run_is_bad(place: int) -> None:
    with pytest.raises(BadFrame):
        a_run().accept(report(place))


STATUSES = st.sampled_from(["ok", "error", "timeout", "crashed", "lost", "rejected", "cancelled"])


@given(st.lists(st.tuples(st.integers(0, 4), STATUSES, st.integers(0, 4))), st.none() | st.integers(0, 3))
def test_every_task_is_recorded_once_at_most(
    reports: list[tuple[int, str, int]], retries: int | None
) -> None:
    run = a_run(5, retries=retries)
    recorded: list[str] = []
    for place, status, attempt in reports:
        before = run.is_recorded(place)
        result = run.accept(Report(place, attempt, status, NIL))
        assert not (before and result is not None)
        if result is not None:
            recorded.append(result.id)
        assert run.is_recorded(place) == (run.tasks[place].id in recorded)
    assert len(recorded) == len(set(recorded)) == 5 - run.unrecorded
    assert {place for place, _ in run.due} <= set(range(5))
