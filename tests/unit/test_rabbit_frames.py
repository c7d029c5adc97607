from __future__ import annotations

import itertools
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import codec
from executor.errors import BadFrame
from executor.messages import NIL, Beat, Item, Report, Reports, decode, encode
from executor.packed import pack as packed
from executor.task import tries_again
from transports.rabbitmq.frames import (
    BODY_BYTES,
    Call,
    beyond,
    body_of,
    calls,
    fate,
    in_bodies,
    pack,
    report_of,
    unpack,
)


def call(
    place: int = 0, attempt: int = 1, *, retries: int | None = None, lone: bool = False, size: int = 0
) -> Call:
    head, *buffers = codec.encode(["jobs.echo", [b"x" * size], {}])
    item = Item(place, attempt, 1, None, None, msgspec.Raw(head), len(buffers), retries, lone)
    return Call(item, buffers)


# -- bodies


@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_frame_comes_out_of_its_body(parts: list[bytes]) -> None:
    found = unpack(pack(parts))
    assert [bytes(part) for part in found] == parts
    assert all(isinstance(part, bytearray) for part in found[1:]), "arrays that come back can be written to"


@given(parts=st.lists(st.binary(max_size=9), min_size=1, max_size=3), data=st.data())
def test_a_body_that_is_cut_or_longer_is_none(parts: list[bytes], data: st.DataObject) -> None:
    body = pack(parts)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(BadFrame):
        unpack(body[:cut])
    with pytest.raises(BadFrame):
        unpack(body + b"\0")


@given(body=st.binary(max_size=60))
def test_whatever_comes_is_a_frame_or_a_bad_one(body: bytes) -> None:
    try:
        parts = unpack(body)
    except BadFrame:
        return
    assert pack(parts) == body


@pytest.mark.parametrize(
    "body",
    [
        struct.pack("<I", 0),
        struct.pack("<I", 2**32 - 1),
        struct.pack("<I", 2**32 - 1) + bytes(99),
        struct.pack("<IQ", 1, 2**64 - 1),
        struct.pack("<IQQ", 2, 2**63, 2**63),
    ],
    ids=["none", "parts that are not there", "lengths that are not there", "too long", "long enough to wrap"],
)
def test_a_stranger_gets_no_memory(body: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack(body)


@given(sizes=st.lists(st.sampled_from([0, 1, 70_000, 200_000]), max_size=5))
def test_calls_come_out_of_a_message_with_their_buffers(sizes: list[int]) -> None:
    some = [call(place, size=size) for place, size in enumerate(sizes)]
    run, found = calls(body_of("a run", iter(some)))
    assert run == "a run"
    assert [each.item for each in found] == [each.item for each in some]
    assert [codec.decode([each.item.call, *each.buffers])[1] for each in found] == [[b"x" * s] for s in sizes]
    assert [each.size for each in found] == [each.size for each in some]
    assert all(each.size >= size for each, size in zip(found, sizes, strict=True))


def test_reports_come_out_of_a_message() -> None:
    head, *buffers = codec.encode([b"y" * 70_000])
    reports = [Report(3, 2, "ok", msgspec.Raw(head), len(buffers)), Report(4, 1, "crashed", NIL)]
    message, found = decode(unpack(report_of("a run", packed(reports, buffers))))
    assert message == Reports("a run", 0, reports)
    assert codec.decode([message.items[0].value, *found]) == [b"y" * 70_000]


@pytest.mark.parametrize("parts", [[b"garbage"], encode(Beat()), encode(Reports("r", 0, []))])
def test_what_holds_no_calls_is_said_to(parts: list[bytes]) -> None:
    with pytest.raises(BadFrame):
        calls(pack(parts))


@given(sizes=st.lists(st.integers(0, 12), max_size=30), most=st.integers(1, 20))
def test_bodies_are_as_few_as_their_bound_allows(sizes: list[int], most: int) -> None:
    slices = list(in_bodies(iter(sizes), most))
    parts = [sizes[each] for each in slices]
    assert [size for part in parts for size in part] == sizes, "each once, in order"
    assert all(part for part in parts)
    for part in parts:
        assert sum(part) <= most or sum(size > 0 for size in part) == 1, "but for one that is larger alone"
    for part, following in itertools.pairwise(parts):
        assert sum(part) + following[0] > most, "the next would have fitted in"


def test_a_body_has_room_for_many_small_calls() -> None:
    assert [len(range(10_000)[each]) for each in in_bodies([100] * 10_000)] == [10_000]
    assert len(list(in_bodies([BODY_BYTES, 1, BODY_BYTES + 1, 1]))) == 4


# -- what becomes of calls that came back

ITEMS = st.builds(
    lambda place, attempt, retries, lone: call(place, attempt, retries=retries, lone=lone),
    st.integers(0, 99), st.integers(1, 5), st.none() | st.integers(0, 4), st.booleans(),
)  # fmt: skip


@given(some=st.lists(ITEMS, min_size=1, max_size=5), begun=st.booleans())
def test_every_call_that_came_back_has_its_fate(some: list[Call], begun: bool) -> None:
    before = [msgspec.structs.replace(each.item) for each in some]
    again, lost = fate(some, begun=begun, worker="w on h")
    assert [each.item for each in some] == before, "it comes again if this message does"
    assert sorted([each.item.place for each in again] + [each.place for each in lost]) == sorted(
        item.place for item in before
    )
    charged = begun or len(some) == 1
    returned = iter(again)
    reported = iter(lost)
    for item in before:
        if charged and not tries_again("lost", item.attempt, item.retries):
            report = next(reported)
            assert (report.place, report.attempt, report.status) == (item.place, item.attempt, "lost")
            assert report.error == ("Lost", "its worker w on h vanished", "")
            continue
        after = next(returned).item
        assert after.attempt == item.attempt + charged
        last = charged and not tries_again("lost", after.attempt, item.retries)
        assert after.lone == (item.lone or last), "its last attempt has a worker to itself"
        expected = msgspec.structs.replace(item, attempt=after.attempt, lone=after.lone)
        assert after == expected, "nothing else of it changes"


def attempts(first: Call, **how: Any) -> list[tuple[int, bool]]:
    """The attempts, and whether alone, that a call gets whose every worker vanishes; the last is reported."""
    made = []
    now = first
    while True:
        made.append((now.item.attempt, now.item.lone))
        again, lost = fate([now], begun=True, worker="w")
        if lost:
            assert lost[0].attempt == now.item.attempt
            return made
        (now,) = again


def test_a_task_whose_every_worker_vanishes_is_lost_at_its_last_attempt_and_alone() -> None:
    assert attempts(call()) == [(1, False), (2, False), (3, True)]
    assert attempts(call(retries=1)) == [(1, False), (2, True)]
    assert attempts(call(retries=0)) == [(1, False)]
    assert attempts(call(retries=3)) == [(1, False), (2, False), (3, False), (4, True)]


def test_what_never_began_is_split_and_nobody_is_charged() -> None:
    again, lost = fate([call(1), call(2, 3)], begun=False, worker="")
    assert lost == []
    assert [(each.item.place, each.item.attempt, each.item.lone) for each in again] == [
        (1, 1, False),
        (2, 3, False),
    ]


def test_a_single_call_that_came_back_too_often_is_charged() -> None:
    """No worker says that it began it, and yet it may be what they vanish of."""
    (again,), lost = fate([call(1)], begun=False, worker="(unknown)")
    assert (again.item.attempt, lost) == (2, [])
    again, (report,) = fate([call(1, 3)], begun=False, worker="(unknown)")
    assert (again, report.status) == ([], "lost")


def test_what_the_broker_finds_too_large_is_the_tasks_error() -> None:
    report = beyond("the result", 7, 20_000_000, 16_777_216)
    assert (report.place, report.status) == (7, "error")
    assert report.error is not None
    kind, message, _ = report.error
    assert kind == "CannotTravel"
    assert "20,000,000 bytes" in message
    assert "16,777,216" in message
    assert "max_message_size" in message
