from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import CannotTravel
from executor.task import Result, Task, content_hash, identify

TASKS = st.lists(
    st.builds(
        Task,
        function=st.sampled_from(["min", "max"]),
        params=st.lists(st.sampled_from([1, 1.0, True, "1", [1], {"a": 1}]), max_size=2),
        resources=st.integers(1, 2),
    )
)


def test_fields_are_the_names_of_the_files() -> None:
    assert {*Task.__struct_fields__} == {
        *("id", "function", "params", "kwargs", "resources", "timeout", "retries", "memory"),
    }
    assert Result.__struct_fields__ == (
        *("id", "function", "params", "kwargs", "resources", "status", "value", "error", "attempt", "worker"),
        *("host", "cores", "submitted", "started", "finished", "stdout", "stderr"),
    )


def test_only_the_function_is_required() -> None:
    task = Task(function="min")
    assert (task.params, task.kwargs, task.resources) == ([], {}, 1)
    assert (task.timeout, task.retries, task.memory) == (None, None, None)
    task.params.append(1)
    assert Task(function="min").params == []


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="resource"):
        msgspec.json.decode(b'{"function": "min", "resource": 2}', type=Task)


def test_a_result_leaves_out_what_was_not_printed() -> None:
    result = Result(id="a", function="min", params=[], kwargs={}, resources=1, status="ok")
    assert list(msgspec.to_builtins(result)) == [*Result.__struct_fields__[:-2]]


@given(TASKS)
def test_ids_are_the_content_and_its_occurrence(tasks: list[Task]) -> None:
    identify(tasks)
    hashes = [content_hash(task) for task in tasks]
    for place, (task, digest) in enumerate(zip(tasks, hashes, strict=True)):
        assert re.fullmatch("[0-9a-f]{16}", digest)
        assert task.id == f"{digest}-{hashes[:place].count(digest)}"


@given(TASKS)
def test_ids_are_the_same_in_every_run(tasks: list[Task]) -> None:
    again = [Task(function=t.function, params=t.params, resources=t.resources) for t in tasks]
    identify(tasks)
    identify(again)
    assert [task.id for task in tasks] == [task.id for task in again]


def test_given_ids_stay_and_do_not_count() -> None:
    tasks = [Task(function="min", id="mine"), Task(function="min")]
    identify(tasks)
    assert [task.id for task in tasks] == ["mine", f"{content_hash(tasks[0])}-0"]


def test_the_hash_is_of_what_is_computed_not_of_how_it_is_run() -> None:
    task = Task(function="f", params=[1], kwargs={"a": 1, "b": 2})
    digest = content_hash(task)
    how = Task(function="f", params=[1], kwargs={"b": 2, "a": 1}, id="x", timeout=3, retries=1, memory=10**9)
    assert content_hash(how) == digest
    for other in (
        Task(function="g", params=[1], kwargs={"a": 1, "b": 2}),
        Task(function="f", params=[1.0], kwargs={"a": 1, "b": 2}),
        Task(function="f", params=[1], kwargs={"a": 1}),
        Task(function="f", params=[1], kwargs={"a": 1, "b": 2}, resources=2),
    ):
        assert content_hash(other) != digest


def test_a_parameter_that_cannot_travel_has_no_hash() -> None:
    with pytest.raises(CannotTravel):
        content_hash(Task(function="f", params=[object()]))
