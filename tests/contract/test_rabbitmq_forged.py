"""What others put into our queues and exchanges, be it made up or copied, is taken for nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pika
import pytest

from executor import codec, keys
from executor.keys import Keys
from executor.messages import Cancel, Halt, Item, Over, Pushed, Refused, Report, encode, introduce
from executor.packed import pack as packed
from executor.sealing import Seal
from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import wait_until
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.frames import Call, body_of, headers, pack, report_of
from transports.rabbitmq.topology import Topology

pytestmark = pytest.mark.timeout(120)

#: A place that no task of a test has.
STRANGE = 7_777

#: Puts a body into an envelope for an exchange and a routing key.
Envelope = Callable[[str, str, dict[str, Any], bytes], bytes]


class Recorded(NamedTuple):
    """A message as it was on its way."""

    exchange: str
    key: str
    told: dict[str, Any]
    message_id: str
    sealed: bytes

    @property
    def kind(self) -> str:
        return self.key or self.exchange


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """All that both ends have sent to the broker so far."""
    recorded: list[Recorded] = []
    close = Envelopes.close

    def closing(
        self: Envelopes, exchange: str, key: str, told: dict[str, Any], body: bytes, message_id: str = ""
    ) -> bytes:
        sealed = close(self, exchange, key, told, body, message_id)
        recorded.append(Recorded(exchange, key, dict(told), message_id, sealed))
        return sealed

    monkeypatch.setattr(Envelopes, "close", closing)
    return recorded


def in_the_clear(other: Keys, names: Topology) -> Envelope:
    return lambda exchange, key, told, body: body


def with_other_keys(other: Keys, names: Topology) -> Envelope:
    return Envelopes(Seal(other), names).close


@pytest.fixture
def wire(rabbitmq_url: str) -> RabbitMQ:
    return RabbitMQ(rabbitmq_url)


@pytest.fixture
def names(wire: RabbitMQ) -> Topology:
    return Topology(wire.queue, 5.0, 1800.0)


def forged_calls(run: str) -> bytes:
    call, *_ = codec.encode(("operator.add", ["forged"], {}))
    item = Item(STRANGE, 1, 1, None, None, msgspec.Raw(bytes(call)))
    return body_of(run, [Call(item, ())])


def forged_report(run: str, places: range) -> bytes:
    value, *_ = codec.encode("forged")
    return report_of(run, packed([Report(place, 1, "ok", msgspec.Raw(bytes(value)), 0) for place in places]))


@pytest.mark.parametrize("how", [in_the_clear, with_other_keys])
def test_what_is_made_up_without_the_keys_is_taken_for_nothing(
    how: Callable[[Keys, Topology], Envelope], wire: RabbitMQ, names: Topology, record: list[Recorded],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Calls, reports, words to all and greetings, each in every place where it would do something."""
    envelope = how(keys.load(tmp_path / "other"), names)
    go, said = threading.Event(), list[str]()
    hello = introduce("rightful", 1)
    with ExitStack() as stack:
        end = stack.enter_context(Place(wire).dispatcher_end(said.append))
        gathered = Gathered(end, tasks(100))
        worker = StandIn(Place(wire), hello=hello, waits=lambda params: params[0] >= 20 and not go.is_set())
        stack.enter_context(worker)
        gathered.until(lambda: len(gathered.results) == 20, "a part of the results")
        run, instance = gathered.run.id, hello.instance
        lines = [names.line(1), names.first(1), names.alone(1), names.returned]
        told = headers(worker="rightful", host="here")
        with wire.channel() as channel:

            def put(exchange: str, key: str, body: bytes, message_id: str = "") -> None:
                sealed = envelope(exchange, key, told, body)
                channel.basic_publish(
                    exchange, key, sealed, pika.BasicProperties(headers=told, message_id=message_id)
                )

            for queue in [*lines, names.held(instance), names.orphaned(instance)]:
                for whose in (run, "0123456789abcdef"):
                    put("", queue, forged_calls(whose))
            for message_id in {copy.message_id for copy in record if copy.key == names.held(instance)}:
                put("", names.held(instance), forged_calls(run), message_id)
            put("", names.results(run), forged_report(run, range(100)))
            for message in (Cancel(run), Over(run), Halt(run), Pushed([1]), Refused("no", instance)):
                put(names.control, "", pack(encode(message)))
            put(names.presence, "", pack(encode(introduce("stranger", 64))))
        gathered.until(lambda: strange(said, "results") and strange(said, "dispatcher"), "it is said")
        for place in ("worker", "held", "orphaned"):
            gathered.until(lambda place=place: strange(worker.said, place), f"a stranger in {place} is said")
        assert len(gathered.results) == 20
        gathered.until(end.workers, "the worker")
        assert [view.name for view in end.workers()] == ["rightful"]
        go.set()
        results = gathered.all()
        assert [result.value for result in results] == list(range(100))
        gathered.until(
            lambda: not any(map(wire.waiting, ("1", "1.first", "1.alone", "returned"))), "all read"
        )
    assert sorted(worker.did) == list(range(100))
    assert set(worker.runs) == {run}


def strange(said: list[str], where: str) -> bool:
    return any("stranger" in line and (f".{where}." in line or f".{where}:" in line) for line in said)


def test_what_was_copied_says_nothing_where_it_was_nor_elsewhere(
    wire: RabbitMQ, names: Topology, record: list[Recorded]
) -> None:
    """Calls, copies of them, reports, words to all and greetings: again in their places, and elsewhere."""
    go, said = threading.Event(), list[str]()
    hello = introduce("rightful", 1)
    with ExitStack() as stack:
        end = stack.enter_context(Place(wire).dispatcher_end(said.append))
        gathered = Gathered(end, tasks(60))
        worker = StandIn(Place(wire), hello=hello, waits=lambda params: params[0] >= 20 and not go.is_set())
        stack.enter_context(worker)
        gathered.until(lambda: len(gathered.results) == 20, "a part of the results")
        second = stack.enter_context(Place(wire).dispatcher_end(said.append))
        other = Gathered(second, tasks(10, resources=2))  # for which there is no worker yet
        wait_until(lambda: other.turn(0.05) or wire.waiting("2"), "calls in the broker")
        run, copies = gathered.run.id, list(record)
        places = {
            ("", names.results(run)),
            ("", names.results(other.run.id)),
            *((r.exchange, r.key) for r in copies),
        }
        places |= {("", names.orphaned(hello.instance)), ("", names.first(1)), ("", names.alone(1))}
        assert {kind.removeprefix(wire.queue).split(".")[1] for kind in (r.kind for r in copies)} >= {
            "1", "2", "held", "results", "control", "presence",
        }  # fmt: skip
        with wire.channel() as channel:
            for copied in copies:
                died = {"x-first-death-queue": copied.key, "x-death": []}
                for exchange, key in places:
                    here = (exchange, key) == (copied.exchange, copied.key)
                    if here or not copied.kind.endswith((".presence", ".control")):  # many, and all alike
                        for more in ({}, died) if here else ({},):
                            properties = pika.BasicProperties(
                                headers={**copied.told, **more}, message_id=copied.message_id
                            )
                            channel.basic_publish(exchange, key, copied.sealed, properties)
        gathered.until(lambda: strange(said, "results") and strange(said, "dispatcher"), "it is said")
        gathered.until(lambda: strange(worker.said, "held"), "it is said")
        assert len(gathered.results) == 20
        go.set()
        assert [result.value for result in gathered.all()] == list(range(60))
        other.turn()
        assert not other.results
        lines = ("1", "1.first", "1.alone", "returned")
        gathered.until(lambda: not any(map(wire.waiting, lines)), "all is looked at by who had it")
        assert sorted(worker.did) == list(range(60))
        wide = stack.enter_context(StandIn(Place(wire), cores=2))
        assert [result.value for result in other.all()] == list(range(10))
        assert set(wide.runs) == {other.run.id}


def test_who_takes_messages_away_reads_and_runs_none(
    wire: RabbitMQ, names: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker and a dispatcher with other keys, which somebody has made look into our queues."""
    ours, other = Keys.short.fget(keys.load(keys.place())), str(keys.load(tmp_path / "other").folder)  # type: ignore[attr-defined]
    monkeypatch.setattr(Keys, "short", ours)
    soon = {"heartbeat": 0.2, "patience": 0.5}
    rightful, strangers = Place(wire, **soon), Place(wire, **soon, keys=other)
    with rightful.dispatcher_end() as end:
        gathered = Gathered(end, tasks(20))
        gathered.until(lambda: wire.waiting("1"), "calls in the broker")  # nobody can tell it of them
        with StandIn(strangers, work=lambda params: "forged") as mad:
            gathered.until(lambda: not wire.waiting("1"), "that all is taken away")
            gathered.until(lambda: strange(mad.said, "1"), "it is said")
        assert not mad.took
        assert not end.workers()
        with StandIn(rightful) as worker, strangers.dispatcher_end() as strange_end:
            lured = Gathered(strange_end, tasks(5))
            assert {result.status for result in gathered.all()} == {"ok"}
            lured.turn()
            assert not lured.results
            assert not strange_end.workers()
            assert set(worker.runs) == {gathered.run.id}
