from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import UsageError
from executor.ordering import ORDERS, order
from executor.task import Task

TASKS = st.lists(st.integers(1, 4)).map(
    lambda widths: [Task(function="f", params=[place], resources=width) for place, width in enumerate(widths)]
)


@given(TASKS)
def test_by_cores_widths_increase_and_equals_keep_their_order(tasks: list[Task]) -> None:
    keys = [(task.resources, task.params[0]) for task in order(tasks)]
    assert keys == sorted((task.resources, task.params[0]) for task in tasks)


@given(TASKS)
def test_by_cores_descending_widths_decrease_and_equals_keep_their_order(tasks: list[Task]) -> None:
    keys = [(-task.resources, task.params[0]) for task in order(tasks, "cores-descending")]
    assert keys == sorted((-task.resources, task.params[0]) for task in tasks)


@given(TASKS)
def test_file_leaves_the_order_as_it_is(tasks: list[Task]) -> None:
    assert order(tasks, "file") == tasks


@given(TASKS, st.sampled_from(sorted(ORDERS)))
def test_the_tasks_given_are_the_tasks_returned_in_a_list_of_its_own(tasks: list[Task], by: str) -> None:
    before = list(tasks)
    ordered = order(tasks, by)
    ordered_ids = sorted(map(id, ordered))
    ordered.clear()
    assert tasks == before
    assert ordered_ids == sorted(map(id, before))


def test_an_unknown_order_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no order 'cpu'; known are cores, cores-descending, file"):
        order([], "cpu")


def test_the_names_of_the_orders_can_be_shown_without_what_a_task_needs() -> None:
    show = "import sys, executor.ordering; print('msgspec' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", show], text=True) == "False\n"
