"""A run: which report is recorded, which calls for another attempt, and which comes too late."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import codec
from executor.errors import BadFrame, CannotTravel
from executor.messages import NIL, Report, Reports, Tasks, decode, decode_read, encode
from executor.run import Due, Earlier, Run
from executor.task import DEFAULT_RETRIES, MEMORY_LIMIT, Result, Status, Task
from executor.travel import MAX_DEPTH
from tests.unit.strategies import TEXT, VALUES

ERRORS = ("error", "crashed", "lost", "timeout", "cancelled", "rejected")


def task(place: int = 0, **how: int | float | None) -> Task:
    return Task(function="f", params=[place], id=f"id-{place}", **how)  # type: ignore[arg-type]


def report(status: Status, attempt: int = 1, place: int = 0, value: object = None) -> Report:
    if status == "ok":
        return Report(place, attempt, status, msgspec.Raw(codec.encode(value)[0]))
    return Report(place, attempt, status, NIL, error=(status.title(), "why", ""))


def attempts(run: Run, status: Status) -> Result:
    """End each attempt at the task at place 0 in the same way; return what is recorded at last."""
    alone: list[bool] = []
    for _ in range(100):
        result = run.accept(report(status, 0 if status == "lost" else run.attempt(0)))
        if result is not None:
            assert alone == [status == "lost" and left == 1 for left in range(len(alone), 0, -1)]
            return result
        (due,) = run.due
        assert (due.place, due.suspect) == (0, status == "lost")
        alone.append(due.alone)
        run.due.clear()
    raise AssertionError("no end of attempts")


def test_a_name_may_be_used_again_and_an_id_is_not() -> None:
    one, other, nameless = Run([], name="night"), Run([], name="night"), Run([])
    assert one.name == other.name == "night"
    assert one.id != other.id
    assert one.id.startswith("night.")
    assert nameless.name == nameless.id


def test_what_another_dispatcher_recorded_is_not_waited_for_nor_recorded_again() -> None:
    run = Run([task(place) for place in range(4)])
    assert run.accept(report("ok", place=3)) is not None
    assert run.skip([0, 2, 2, 3]) == 2
    assert [run.is_recorded(place) for place in range(-1, 5)] == [False, True, False, True, True, False]
    assert list(run.recorded()) == [0, 2, 3]
    assert run.unrecorded == 1
    assert run.accept(report("ok", place=0)) is None
    assert run.accept(report("ok", place=1)) is not None
    assert run.unrecorded == 0


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("own", [None, 0, 1, 4])
@pytest.mark.parametrize("for_all", [None, 0, 3])
def test_attempts_by_status(status: Status, own: int | None, for_all: int | None) -> None:
    result = attempts(Run([task(retries=own)], retries=for_all), status)
    retries = next((each for each in (own, for_all) if each is not None), DEFAULT_RETRIES.get(status, 0))
    if status not in ("error", "crashed", "lost"):
        retries = 0
    assert (result.status, result.attempt) == (status, 1 + retries)


def test_by_default_the_dead_get_two_more_attempts_and_errors_none() -> None:
    assert [attempts(Run([task()]), status).attempt for status in ("crashed", "lost", "error")] == [3, 3, 1]


def test_who_held_too_much_memory_gets_no_other_attempt() -> None:
    run = Run([task(retries=5)])
    result = run.accept(Report(0, 1, "crashed", NIL, error=(MEMORY_LIMIT, "too much", "")))
    assert result is not None
    assert (result.status, result.attempt, run.due) == ("crashed", 1, [])


def test_attempts_of_different_ends_add_up() -> None:
    run = Run([task()])
    assert run.accept(report("lost", 0)) is None
    assert run.accept(report("lost", 1)) is None  # the same, told by a broker
    assert run.accept(report("crashed", 2)) is None
    assert run.due == [Due(0, suspect=True, alone=False), Due(0, suspect=False, alone=False)]
    assert run.item(0)[0].attempt == 3
    result = run.accept(report("crashed", 3))
    assert result is not None
    assert (result.status, result.attempt) == ("crashed", 3)


def test_a_late_failure_of_an_attempt_given_up_is_ignored() -> None:
    run = Run([task()])
    run.accept(report("lost", 0))
    for status in ("error", "crashed", "timeout", "cancelled"):
        assert run.accept(report(status, 1)) is None
    assert (run.attempt(0), run.unrecorded, len(run.due)) == (2, 1, 1)


def test_a_late_success_is_taken() -> None:
    run = Run([task()])
    run.accept(report("lost", 0))
    result = run.accept(report("ok", 1, value=7))
    assert result is not None
    assert (result.value, result.attempt) == (7, 1)
    assert run.accept(report("ok", 2, value=8)) is None
    assert run.accept(report("error", 2)) is None


def test_a_late_success_that_is_unreadable_is_a_late_failure() -> None:
    run = Run([task()])
    run.accept(report("lost", 0))
    assert run.accept(Report(0, 1, "ok", msgspec.Raw(b"\xc1"))) is None
    assert run.unrecorded == 1


def test_an_attempt_that_was_not_made_uses_up_none() -> None:
    run = Run([task(retries=1)])
    for status in ("ok", *ERRORS):
        with pytest.raises(BadFrame, match="attempt 2 at place 0, after 1"):
            run.accept(report(status, 2))
    assert run.accept(report("error")) is None
    result = run.accept(report("error", 2))
    assert result is not None
    assert result.attempt == 2


def test_where_workers_try_again_by_themselves_their_count_holds() -> None:
    run = Run([task(retries=3)])
    run.tried(0, 3)
    run.tried(0, 2)
    run.tried(5, 2)  # no task of this run
    assert run.accept(report("error", 2)) is None
    assert (run.attempt(0), run.due) == (3, [])
    assert run.accept(report("error", 3)) is None
    assert run.attempt(0) == 4


def test_duplicates_are_ignored() -> None:
    run = Run([task(0), task(1)])
    assert run.accept(report("ok", place=1)) is not None
    assert run.accept(report("ok", place=1)) is None
    assert run.accept(report("lost", 0, place=1)) is None
    assert run.due == []
    assert (run.counts, run.unrecorded) == ({"ok": 1}, 1)
    assert [run.is_recorded(place) for place in (0, 1)] == [False, True]


@pytest.mark.parametrize("place", [-1, 2, 10**15])
def test_a_report_about_no_task_of_the_run_is_a_bad_frame(place: int) -> None:
    run = Run([task(0), task(1)])
    with pytest.raises(BadFrame, match="of 2"):
        run.accept(report("ok", place=place))
    assert run.unrecorded == 2


def test_a_value_that_cannot_be_read_is_the_tasks_error() -> None:
    run = Run([task()])
    result = run.accept(Report(0, 1, "ok", msgspec.Raw(b"\xc1")))
    assert result is not None
    assert result.error is not None
    assert (result.status, result.error.type, result.value) == ("error", "BadFrame", None)


def test_a_result_tells_all_that_is_known() -> None:
    run = Run([task(3, resources=2)])
    run.submitted = 1.0
    head, *buffers = codec.encode(np.arange(5000.0))
    raw = Report(
        0, 1, "ok", msgspec.Raw(head), len(buffers), cores=(4, 5), started=2.0, finished=3.5, stdout="out\n"
    )
    result = run.accept(raw, buffers, worker="w", host="h")
    assert result is not None
    assert np.array_equal(result.value, np.arange(5000.0))
    shown = msgspec.structs.asdict(result)
    del shown["value"]
    assert shown == {
        "id": "id-3", "function": "f", "params": [3], "kwargs": {}, "resources": 2, "status": "ok",
        "error": None, "attempt": 1, "worker": "w", "host": "h", "cores": (4, 5), "submitted": 1.0,
        "started": 2.0, "finished": 3.5, "stdout": "out\n", "stderr": msgspec.UNSET,
    }  # fmt: skip


def test_a_task_that_can_never_run_is_rejected_once() -> None:
    run = Run([task(), task(1)])
    result = run.reject(0, "too wide")
    assert result is not None
    assert result.error is not None
    assert (result.status, result.attempt, result.error.message) == ("rejected", 0, "too wide")
    assert (result.cores, result.started, result.finished) == ((), None, None)
    assert run.reject(0, "too wide") is None
    run.accept(report("ok", place=1))
    assert run.reject(1, "too wide") is None


def test_an_item_carries_the_call_and_its_limits() -> None:
    run = Run([task(0, timeout=2.5, memory=10**6, resources=3), task(1)], timeout=9.0)
    item, buffers = run.item(0)
    assert (item.place, item.attempt, item.width, item.timeout, item.memory) == (0, 1, 3, 2.5, 10**6)
    assert codec.decode([item.call, *buffers]) == ["f", [0], {}]
    assert run.item(1)[0].timeout == 9.0
    assert Run([task()]).item(0)[0].timeout is None


TASKS = st.builds(
    Task,
    function=st.sampled_from(["f", "math.sqrt"]),
    params=st.lists(VALUES | st.integers() | TEXT, max_size=2),
    kwargs=st.dictionaries(TEXT, st.integers() | st.lists(st.floats(), max_size=2), max_size=2),
    resources=st.integers(1, 9),
    timeout=st.none() | st.floats(0, 100),
    retries=st.none() | st.integers(0, 3),
    memory=st.none() | st.integers(1, 2**40),
)


@given(st.lists(TASKS, min_size=1, max_size=4), st.none() | st.floats(0, 9), st.none() | st.integers(0, 3))
def test_many_items_encoded_at_once_are_what_each_is_by_itself(
    tasks: list[Task], timeout: float | None, retries: int | None
) -> None:
    run = Run(tasks, timeout=timeout, retries=retries)
    run.tried(0, 3)
    places = range(len(tasks))
    items, buffers = zip(*map(run.item, places), strict=True)
    assert run.frame(places) in (None, encode(Tasks(run.id, list(items)))[0])
    assert run.frame(places) is None or not any(buffers)


def test_usual_calls_are_encoded_at_once_unless_one_is_recorded() -> None:
    run = Run([task(place) for place in range(3)])
    frame = run.frame([0, 2])
    assert frame is not None
    message, _ = decode([frame])
    assert message == Tasks(run.id, [run.item(0)[0], run.item(2)[0]])
    run.accept(report("ok", place=1))
    assert run.frame([0, 1]) is None
    assert Run([Task(function="f", params=[2**70])]).frame([0]) is None
    assert Run([Task(function="f", params=["\ud800"])]).frame([0]) is None


def test_a_call_that_cannot_travel_is_told() -> None:
    with pytest.raises(CannotTravel):
        Run([Task(function="f", params=[object()], id="x")]).item(0)


def test_large_arguments_travel_beside_the_call() -> None:
    array = np.arange(100_000.0)
    item, buffers = Run([Task(function="f", params=[array], id="a")]).item(0)
    assert item.buffers == len(buffers) == 1
    assert len(item.call) < 1000
    assert np.array_equal(codec.decode([item.call, *buffers])[1][0], array)


def test_runs_are_told_apart() -> None:
    assert len({Run([]).id for _ in range(100)}) == 100


COUNT = 3
REPORTS = st.tuples(
    st.sampled_from(["ok", *ERRORS]),
    st.integers(0, 5),
    st.integers(0, COUNT - 1),
    st.sampled_from([b"\xc0", b"\xc1"]),
)


@given(
    st.lists(REPORTS, max_size=60),
    st.none() | st.integers(0, 3),
    st.lists(st.none() | st.integers(0, 3), min_size=COUNT),
    st.booleans(),
)
def test_each_place_gets_one_result_whatever_is_reported(
    sent: list[tuple[Status, int, int, bytes]],
    for_all: int | None,
    own: list[int | None],
    by_themselves: bool,
) -> None:
    run = Run([task(place, retries=own[place]) for place in range(COUNT)], retries=for_all)
    results: list[Result] = []
    lost_retries = [
        next(each for each in (mine, for_all, DEFAULT_RETRIES["lost"]) if each is not None) for mine in own
    ]

    def accept(report: Report) -> None:
        if by_themselves:  # workers have tried again
            run.tried(report.place, report.attempt)
        before = run.attempt(report.place)
        if report.attempt > before:
            with pytest.raises(BadFrame, match="attempt"):
                run.accept(report)
            assert (run.attempt(report.place), run.due) == (before, [])
            return
        result = run.accept(report)
        if result is not None:
            results.append(result)
            assert run.is_recorded(report.place)
        repeated = run.attempt(report.place) - before
        assert repeated in (0, 1)
        assert (repeated, result is not None) != (1, True)
        assert len(run.due) == repeated
        for due in run.due:
            assert (due.place, due.suspect) == (report.place, report.status == "lost")
            spent = run.attempt(due.place) > lost_retries[due.place]
            assert due.alone == (due.suspect and spent), "it runs alone when it would be lost next time"
        run.due.clear()

    for status, attempt, place, value in sent:
        error = None if status == "ok" else (status, "", "")
        accept(Report(place, attempt, status, msgspec.Raw(value), error=error))
        assert run.unrecorded == COUNT - len(results)
    for place in range(COUNT):
        for _ in range(10):
            accept(Report(place, run.attempt(place), "crashed", NIL, error=("Crashed", "", "")))
    assert sorted(result.id for result in results) == [f"id-{place}" for place in range(COUNT)]
    assert run.unrecorded == 0
    assert run.counts == Counter(result.status for result in results)
    most = max([4, *(attempt for _, attempt, _, _ in sent)])
    assert all(run.attempt(place) <= most for place in range(COUNT))


def test_a_run_knows_where_the_tasks_of_those_that_it_continues_stand() -> None:
    tasks = [task(place) for place in range(4)]
    same, other = Earlier("same", pushed=3), Earlier("other", [3, -1, 0, 9], pushed=4)
    run = Run(tasks, earlier=[same, other])
    assert run.earlier == ["same", "other"]
    assert [run.place_of("same", place) for place in range(-1, 5)] == [None, 0, 1, 2, 3, None]
    assert [run.place_of("other", place) for place in range(-1, 5)] == [None, 3, None, 0, None, None]
    assert run.place_of(run.id, 2) == 2
    assert run.place_of("nobody's", 2) is None
    run.skip([0])
    assert list(run.left("same")) == [1, 2]
    assert list(run.left("other")) == [3]
    assert list(Run(tasks, earlier=[same], again=[1]).left("same")) == [0, 2], "the report of 1 has come"


def test_the_report_of_a_superseded_line_is_no_result_and_the_task_runs_again() -> None:
    run = Run([task()], superseded={0: {(1.0, 2.0)}})
    failed = report("error")
    failed.started, failed.finished = 1.0, 2.0
    assert run.accept(failed) is None
    assert run.due == [Due(0, suspect=False, alone=False)]
    assert run.attempt(0) == 1
    result = run.accept(report("ok", value=7))
    assert result is not None
    assert result.value == 7


#: Heads of values: plain ones, extensions, none of ours, and one that nests too deep.
HEADS = [
    codec.encode(value)[0] for value in (None, 7, -0.5, "text", [1, [2]], {"a": b"b"}, (1, {2}), 1j, 10**30)
] + [msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"")), b"\x91" * (MAX_DEPTH + 1) + b"\xc0"]

SENT = st.builds(
    Report,
    place=st.integers(0, COUNT),
    attempt=st.sampled_from([1, 1, 1, 0, 2]),
    status=st.sampled_from(["ok", "ok", "ok", *ERRORS]),
    value=st.sampled_from(HEADS).map(msgspec.Raw),
    error=st.none() | st.just(("ValueError", "why", "")),
    cores=st.sampled_from([(), (0,), (2, 3)]),
    started=st.sampled_from([None, 1.0]),
    finished=st.sampled_from([None, 2.0]),
    stdout=st.sampled_from(["", "printed"]),
    stderr=st.sampled_from(["", "warned"]),
)


@given(st.lists(st.lists(SENT, max_size=6), max_size=6), st.booleans(), st.sets(st.integers(0, COUNT - 1)))
def test_reports_that_come_together_are_taken_as_one_by_one(
    frames: list[list[Report]], sets_aside: bool, recorded: set[int]
) -> None:
    superseded = {0: {(1.0, 2.0)}} if sets_aside else None
    together, singly = (
        Run([task(place, retries=1) for place in range(COUNT)], superseded=superseded) for _ in range(2)
    )
    for run in (together, singly):
        run.submitted = 0.5
        run.skip(recorded)
    for number, frame in enumerate(frames):
        sent = encode(Reports("run", number, frame))
        read, unread = decode_read(sent)[0], decode(sent)[0]
        assert isinstance(read, Reports)
        assert isinstance(unread, Reports)
        accepted = together.accept_all(read.items, {}, worker="w", host="h")
        results, bad = [], []
        for each in unread.items:
            try:
                result = singly.accept(each, worker="w", host="h")
            except BadFrame as error:
                bad.append(str(error))
            else:
                results += [] if result is None else [result]
        assert accepted.results == results
        assert [type(result.value) for result in accepted.results] == [type(each.value) for each in results]
        assert [str(error) for error in accepted.bad] == bad
        for what in ("counts", "due", "unrecorded"):
            assert getattr(together, what) == getattr(singly, what)
        for place in range(COUNT):
            assert together.attempt(place) == singly.attempt(place)
            assert together.is_recorded(place) == singly.is_recorded(place)
