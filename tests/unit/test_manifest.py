from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import VALUES, assert_same

from executor import codec
from executor.errors import ConfigError
from executor.manifest import RECORD_BYTES, RECORD_TASKS, note, read, records
from executor.task import Task
from executor.travel import MAX_DEPTH

NAME = "night-7"


def tasks(count: int, **fields: Any) -> list[Task]:
    return [Task(id=f"t{number}", function="jobs.echo", params=[number], **fields) for number in range(count)]


def of(some: list[Task], retries: int | None = None, timeout: float | None = None) -> list[bytes]:
    return list(records(some, retries, timeout, 1_700_000_000.5))


NAMES = st.text(max_size=10)
TASKS = st.builds(
    Task, id=NAMES, function=NAMES, params=st.lists(VALUES, max_size=3),
    kwargs=st.dictionaries(NAMES, VALUES, max_size=2), resources=st.integers(1, 2**40),
    timeout=st.none() | st.floats(0.001, 1e9), retries=st.none() | st.integers(0, 99),
    memory=st.none() | st.integers(1, 2**50),
)  # fmt: skip


@given(
    some=st.lists(TASKS, max_size=4),
    retries=st.none() | st.integers(0, 9),
    timeout=st.none() | st.floats(0.001, 1e9),
    notes=st.lists(st.sets(st.integers(0, 3)), max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_what_was_left_is_what_is_found(
    some: list[Task], retries: int | None, timeout: float | None, notes: list[set[int]], order: random.Random
) -> None:
    """In whatever order the broker gives its records back, and if it took one of them twice."""
    found = [*of(some, retries, timeout), *map(note, notes)]
    found += order.sample(found, order.randint(0, len(found)))
    order.shuffle(found)
    kept = read(NAME, found)
    assert kept[1:4] == (retries, timeout, 1_700_000_000.5)
    assert kept.collected == {place for each in notes for place in each if place < len(some)}
    assert len(kept.tasks) == len(some)
    for one, other in zip(some, kept.tasks, strict=True):
        assert_same(msgspec.structs.asdict(one), msgspec.structs.asdict(other))


def test_many_tasks_are_few_records_and_none_is_large() -> None:
    count = 2 * RECORD_TASKS + 7
    found = of(tasks(count))
    assert len(found) == 4
    assert [task.params for task in read(NAME, found).tasks] == [[number] for number in range(count)]


def test_no_record_is_longer_than_a_broker_likes_it() -> None:
    some = tasks(40)
    for number, task in enumerate(some):
        task.params = ["x" * random.Random(number).randint(0, RECORD_BYTES // 4)]
    some[17].params = [b"y" * (5 * RECORD_BYTES // 2)]  # such go in pieces
    some[30].params = [np.arange(RECORD_BYTES // 4)]
    some[39].params = ["z" * RECORD_BYTES]
    found = of(some)
    assert max(map(len, found)) < RECORD_BYTES + 4096
    random.Random(1).shuffle(found)
    for one, other in zip(some, read(NAME, found).tasks, strict=True):
        assert_same(one.params, other.params)


def test_what_nests_as_deep_as_a_call_may_is_kept() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 3):  # itself, the parameters, and the call are lists
        deep = [deep]
    codec.encode(["jobs.echo", [deep], {}])
    with pytest.raises(Exception, match="deep"):
        codec.encode(["jobs.echo", [[deep]], {}])
    assert read(NAME, of([Task(function="jobs.echo", params=[deep])])).tasks[0].params == [deep]


def test_the_notes_of_several_collectors_are_united() -> None:
    found = [*of(tasks(5)), note([0, 2]), note([]), note([2, 4]), note([4, 99])]
    assert read(NAME, found).collected == {0, 2, 4}
    assert read(NAME, of(tasks(5))).collected == set()


def test_a_note_is_small() -> None:
    assert len(note(range(100_000, 100_100))) < 600


@pytest.mark.parametrize("without", range(3), ids=["first tasks", "last tasks", "head"])
def test_a_run_without_one_of_its_records_was_not_pushed_to_its_end(without: int) -> None:
    found = of(tasks(RECORD_TASKS + 1))
    del found[without]
    with pytest.raises(
        ConfigError, match=r"^run night-7 was never pushed to its end; --cancel night-7 removes"
    ):
        read(NAME, [*found, note([0])])


def test_a_task_without_one_of_its_pieces_is_none() -> None:
    found = of([Task(function="jobs.echo", params=["x" * 3 * RECORD_BYTES])])
    for index in range(len(found) - 1):
        with pytest.raises(ConfigError, match="never pushed"):
            read(NAME, found[:index] + found[index + 1 :])


def test_nothing_was_pushed() -> None:
    with pytest.raises(ConfigError, match="never pushed"):
        read(NAME, [])
    assert read(NAME, of([])).tasks == []


def test_a_strangers_bytes_among_them_do_no_harm() -> None:
    strangers = [b"", b"garbage", b"\xff" * 99, b"\xc1", msgspec.msgpack.encode(["tasks", -1, []])]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(of(tasks(3)), strangers, fillvalue=note([1])))
    kept = read(NAME, list(mixed))
    assert len(kept.tasks) == 3
    assert kept.collected == {1}


@pytest.mark.parametrize(
    "wrong",
    [
        ["head", 1, None, None],
        ["head", 1, "two", None, 0.0],
        ["tail", 1],
        {"head": 1},
    ],
)
def test_records_of_another_version_are_said_to_be(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"^run night-7 was pushed by another version \(.*--cancel night-7"):
        read(NAME, [*of(tasks(1))[:-1], msgspec.msgpack.encode(wrong)])


@pytest.mark.parametrize(
    "wrong",
    [
        b"garbage",
        msgspec.msgpack.encode([b"\xc1"]),
        msgspec.msgpack.encode(codec.encode("no fields")),
        msgspec.msgpack.encode(codec.encode(["id", "function"])),
        msgspec.msgpack.encode(codec.encode(["id", "f", [], {}, "many", None, None, None])),
        msgspec.msgpack.encode(codec.encode(["id", "f", [], {}, 1, None, None, None, "more"])),
    ],
)
def test_tasks_of_another_version_are_said_to_be(wrong: bytes) -> None:
    head = of(tasks(1))[-1]
    with pytest.raises(ConfigError, match=r"^run night-7 was pushed by another version"):
        read(NAME, [msgspec.msgpack.encode(["tasks", 0, [wrong]]), head])


@given(found=st.lists(st.binary() | st.sampled_from(of(tasks(2))), max_size=4))
def test_whatever_is_found_is_a_run_or_a_line_that_says_why_not(found: list[bytes]) -> None:
    if set(of(tasks(2))) <= set(found):
        assert len(read(NAME, found).tasks) == 2
    else:
        with pytest.raises(ConfigError, match=NAME):
            read(NAME, found)
