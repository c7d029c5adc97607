"""What others at a broker can do with our frames: nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import keys, sealing
from executor.errors import BadFrame
from executor.sealing import OVERHEAD, Seal
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.topology import Topology

OURS = keys.Keys(Path(), b"o" * 32)
OTHER = keys.Keys(Path(), b"x" * 32)
NAMES = Topology("q", 5.0, 1800.0)


@given(st.binary(max_size=1000), st.binary(max_size=50))
def test_who_has_the_keys_reads_what_another_sealed(frame: bytes, place: bytes) -> None:
    sealed = Seal(OURS).seal(frame, place)
    assert len(sealed) == len(frame) + OVERHEAD
    assert Seal(OURS).open(sealed, place) == frame


def test_one_frame_sealed_twice_is_never_the_same() -> None:
    seal = Seal(OURS)
    assert len({seal.seal(b"frame", b""), seal.seal(b"frame", b""), Seal(OURS).seal(b"frame", b"")}) == 3


@given(st.data())
def test_what_was_changed_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(Seal(OURS).seal(b"frame", b"place"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadFrame, match="not sealed with our keys"):
        Seal(OURS).open(bytes(sealed), b"place")


@given(st.binary(max_size=200))
def test_what_was_never_sealed_does_not_open(body: bytes) -> None:
    with pytest.raises(BadFrame, match="not sealed"):
        Seal(OURS).open(body, b"")


def test_other_keys_and_other_places_open_nothing() -> None:
    sealed = Seal(OURS).seal(b"frame", b"here")
    for seal, place in ((Seal(OTHER), b"here"), (Seal(OURS), b"there")):
        with pytest.raises(BadFrame, match="not sealed with our keys"):
            seal.open(sealed, place)


def test_what_comes_again_is_known() -> None:
    sealed, seal = Seal(OURS).seal(b"frame", b"here"), Seal(OURS)
    assert seal.open(sealed, b"here") == b"frame"
    with pytest.raises(BadFrame, match="came before"):
        seal.open(sealed, b"here")
    assert seal.open(sealed, b"here", again=True) == b"frame"


def test_strangers_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_PROCESSES_MOST", 10)
    monkeypatch.setattr(sealing, "_REMEMBERED", 10)
    seal = Seal(OURS)
    for _ in range(100):
        seal.open(Seal(OURS).seal(b"", b""), b"")
        with pytest.raises(BadFrame):
            seal.open(Seal(OTHER).seal(b"", b""), b"")
    assert len(seal._others) == len(seal._seen) == 10


def delivered(key: str, exchange: str = "", *, redelivered: bool = False, **more: Any) -> tuple[Any, Any]:
    method = SimpleNamespace(exchange=exchange, routing_key=key, redelivered=redelivered)
    return method, SimpleNamespace(headers=more, message_id=more.pop("id", None))


@pytest.mark.parametrize(
    ("queue", "method", "opens"),
    [
        ("q.1", delivered("q.1", protocol=1), True),
        ("q.1", delivered("q.1", protocol=2), False),
        ("q.1", delivered("q.1", protocol=1, id="another"), False),
        ("q.2", delivered("q.2", protocol=1), False),
        ("q.1", delivered("q.1", "another", protocol=1), False),
        ("q.returned", delivered("q.returned", protocol=1, **{"x-first-death-queue": "q.1"}), True),
        ("q.2", delivered("q.2", protocol=1, **{"x-first-death-queue": "q.1"}), False),
        ("q.orphaned.w", delivered("q.orphaned.w", protocol=1, **{"x-first-death-queue": "q.1"}), False),
    ],
)
def test_a_message_opens_only_where_it_was_sent_to_or_passed_on(
    queue: str, method: tuple[Any, Any], opens: bool
) -> None:
    sealed = Envelopes(Seal(OURS), NAMES).close("", "q.1", {"protocol": 1}, b"body")
    assert Envelopes(Seal(OURS), NAMES).open(queue, *method, sealed) == (b"body" if opens else b"")


@pytest.mark.parametrize(
    ("queue", "method", "opens"),
    [
        ("q.1", delivered("q.1"), False),
        ("q.1", delivered("q.1", **{"x-first-death-queue": "q.1"}), False),
        ("q.1", delivered("q.1", **{"x-first-death-queue": "q.held.w"}), False),
        ("q.1", delivered("q.1", redelivered=True), True),
        ("q.returned", delivered("q.returned", **{"x-first-death-queue": "q.1"}), True),
    ],
)
def test_a_message_opens_again_only_if_the_broker_may_bring_it_again(
    queue: str, method: tuple[Any, Any], opens: bool
) -> None:
    envelopes = Envelopes(Seal(OURS), NAMES)
    sealed = envelopes.close("", "q.1", {}, b"body")
    assert envelopes.open("q.1", *delivered("q.1"), sealed) == b"body"
    assert envelopes.open(queue, *method, sealed) == (b"body" if opens else b"")


def test_what_a_worker_held_comes_back_to_it_or_to_all() -> None:
    assert NAMES.passes_on("q.held.w", "q.orphaned.w")
    assert NAMES.passes_on("q.held.w", "q.returned")
    assert NAMES.passes_on("q.1.first", "q.returned")
    assert not NAMES.passes_on("q.held.w", "q.orphaned.other")
    assert not NAMES.passes_on("q.results.r", "q.returned")
    assert not NAMES.passes_on("other.1", "q.returned")
    assert not NAMES.passes_on("q.1", "q.2")
