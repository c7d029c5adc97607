"""The protocol's records, and bytes that are none of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    RUNNING_LEAST,
    RUNNING_MOST,
    Beat,
    Cancel,
    Item,
    Leaving,
    Message,
    Over,
    Recall,
    Recorded,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Tasks,
    Unknown,
    Welcome,
    decode,
    encode,
    introduce,
    longest,
    share_out,
)

CALL = msgspec.Raw(b"\x93\xa1f\x90\x80")
ITEM = Item(3, 1, 2, 1.5, None, CALL)
REPORT = Report(3, 1, "ok", msgspec.Raw(b"\x07"), cores=(0, 1), started=1.0, finished=2.0)
MESSAGES: list[Message] = [
    introduce("w", 4), Welcome(PROTOCOL, "r", 1.0, 5.0), Refused("why"), Unknown(), Tasks("r", [ITEM, ITEM]),
    Recall("r", 3), Returned("r", [1, 2]), Cancel("r"), Cancel("r", [1]), Reports("r", 1, [REPORT]),
    Recorded("r", 9), Over("r"), Leaving(), Beat(),
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_there_and_back(message: Message) -> None:
    back, buffers = decode([bytes(part) for part in encode(message)])
    assert encode(back) == encode(message)
    assert buffers == []


def test_buffers_belong_to_their_items() -> None:
    items = [Item(i, 1, 1, None, None, CALL, buffers=count) for i, count in enumerate([0, 2, 0, 1])]
    message, buffers = decode(encode(Tasks("r", items), [b"a", b"b", b"c"]))
    assert isinstance(message, Tasks)
    assert share_out(message.items, buffers) == {1: [b"a", b"b"], 3: [b"c"]}


@pytest.mark.parametrize("buffers", [[], [b"a"], [b"a", b"b", b"c"]])
def test_too_few_or_too_many_buffers_are_bad(buffers: list[bytes]) -> None:
    with pytest.raises(BadFrame):
        decode(encode(Tasks("r", [Item(0, 1, 1, None, None, CALL, buffers=2)]), buffers))


@pytest.mark.parametrize(
    "item",
    [
        Item(-1, 1, 1, None, None, CALL),
        Item(0, 1, 0, None, None, CALL),
        Item(0, 1, 1, None, None, CALL, buffers=-1),
    ],
)
def test_numbers_that_make_no_sense_are_bad(item: Item) -> None:
    with pytest.raises(BadFrame):
        decode(encode(Tasks("r", [item])))


def test_an_unknown_status_is_bad() -> None:
    with pytest.raises(BadFrame):
        decode(encode(Reports("r", 1, [Report(0, 1, "splendid", NIL)])))  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_a_strangers_bytes_are_bad_and_nothing_worse(frame: list[bytes]) -> None:
    with pytest.raises(BadFrame):
        decode(frame)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from(["hello", "welcome", "tasks", "reports", "returned", "cancel", "recall"]),
    st.lists(PLAIN, max_size=8),
)
def test_fields_that_are_not_of_their_types_are_bad_and_nothing_worse(tag: str, fields: list[object]) -> None:
    try:
        message, buffers = decode([msgspec.msgpack.encode([tag, *fields])])
    except BadFrame:
        return
    assert encode(*decode(encode(message, buffers))) == encode(message, buffers)


@given(st.sampled_from(MESSAGES), st.integers(0, 200))
def test_half_a_message_is_bad(message: Message, length: int) -> None:
    whole = bytes(encode(message)[0])
    with pytest.raises(BadFrame):
        decode([whole[: length % len(whole)]])
    with pytest.raises(BadFrame):
        decode([whole + b"\xc0"])


def test_a_bottomless_message_is_bad() -> None:
    with pytest.raises(BadFrame):
        decode([b"\x91" * 100_000])
    with pytest.raises(BadFrame):
        decode([b"\x93\xa5tasks\xa1r\x91\x96\x00\x01\x01\xc0\xc0" + b"\x91" * 100_000])


def test_a_message_of_buffers_alone_is_bad() -> None:
    with pytest.raises(BadFrame, match="empty"):
        decode([])
    with pytest.raises(BadFrame, match="1 buffers"):
        decode([*encode(Beat()), b"stray"])


@given(st.sampled_from(MESSAGES), st.data())
def test_a_broken_message_is_bad_or_another_message(message: Message, data: st.DataObject) -> None:
    head = bytearray(encode(message)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode([bytes(head)])
    except BadFrame:
        pass


def test_of_each_run_a_few_are_told_that_run_longest() -> None:
    many = [Running("r", place, 2.0 + place) for place in range(3 * RUNNING_MOST)]
    short = Running("r", 99, RUNNING_LEAST / 2)
    other = Running("other", 0, RUNNING_LEAST)
    told = longest([short, other, *many])
    assert told == [*reversed(many[-RUNNING_MOST:]), other]
    assert decode(encode(Beat(told))) == (Beat(told), [])
    assert longest([short]) == []
