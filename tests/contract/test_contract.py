"""The contract suite on every wire."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.suite import Contract
from tests.contract.wires import WIRES, RabbitMQ, Wire
from transports.rabbitmq.frames import pack


class TestWires(Contract):
    @pytest.fixture(params=WIRES, ids=repr)
    def wire(self, request: pytest.FixtureRequest) -> Wire:
        wire: Wire = request.param
        return wire


class TestRabbitMQ(Contract):
    @pytest.fixture
    def wire(self, rabbitmq_url: str) -> Wire:
        return RabbitMQ(rabbitmq_url)

    def test_frames_of_a_stranger_are_ignored_and_said(self, wire: Wire) -> None:
        """Where a broker lies between, strangers put things into its queues."""
        assert isinstance(wire, RabbitMQ)
        place = Place(wire)
        said: list[str] = []
        with place.dispatcher_end(said.append) as end, StandIn(place) as worker:
            gathered = Gathered(end, tasks(50))
            gathered.until(lambda: gathered.results, "a result")
            with wire.channel() as channel:
                for body in (
                    b"",
                    b"garbage",
                    b"\xff" * 99,
                    pack([b"\x92\xa5tasks"]),
                    pack([b""]),
                    b"\1\0\0\0",
                ):
                    for queue in (".1", ".1.first", ".1.alone", ".returned", f".results.{gathered.run.id}"):
                        channel.basic_publish("", wire.queue + queue, body)
                    for exchange in (".control", ".presence"):
                        channel.basic_publish(wire.queue + exchange, "", body)
            results = gathered.all()
            gathered.until(lambda: any("stranger" in line for line in said), "the dispatcher says it")
            gathered.until(lambda: any("stranger" in line for line in worker.said), "the worker says it")
        assert {result.status for result in results} == {"ok"}
        assert Counter(worker.did) == Counter(range(50))
