"""Who lacks the key gets no task, sends none, and sends no result; the run of the rightful ones goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import transports
from executor import keys
from executor.certificates import Identity
from executor.errors import ConfigError
from executor.messages import introduce
from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.proxy import Proxy, connect
from tests.contract.wires import WIRES, Wire
from transports.base import DispatcherEnd

pytestmark = pytest.mark.timeout(120)

on_every_wire = pytest.mark.parametrize("wire", WIRES, ids=repr)
over_tls = pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.workers_listen], ids=repr)

#: Seconds for which a stranger tries: some attempts of each wire, and a greeting has long been answered.
TRYING = 2.0


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Another user's keys."""
    return str(keys.load(tmp_path / "other").folder)


#: What a stranger has in its YAML: no key, which is a link in the clear, or another user's.
STRANGERS: list[Callable[[str], dict[str, Any]]] = [
    lambda other: {"insecure": True},
    lambda other: {"keys": other},
]
IDS = ["in the clear", "with other keys"]


def place_with(place: Place, more: dict[str, Any]) -> Place:
    """Return the same addresses with other settings."""
    there = Place(place.wire, **more)
    there.listen, there.reach = place.listen, place.reach
    return there


@contextmanager
def tried(place: Place, more: dict[str, Any], said: list[str]) -> Iterator[tuple[DispatcherEnd, Gathered]]:
    with place_with(place, more).dispatcher_end(said.append) as end:
        yield end, Gathered(end, tasks(20))


@pytest.mark.parametrize("stranger", STRANGERS, ids=IDS)
@on_every_wire
def test_a_worker_without_the_key_gets_no_task(wire: Wire, stranger: Any, other: str) -> None:
    """Where workers listen, one stands at the second address of the dispatcher's list."""
    place = Place(wire, workers=2)
    said: list[str] = []
    with ExitStack() as stack:
        end = stack.enter_context(place.dispatcher_end(said.append))
        gathered = Gathered(end, tasks(200))
        mad = stack.enter_context(
            StandIn(place_with(place, stranger(other)), 1, work=lambda params: "forged")
        )
        until = time.monotonic() + TRYING
        gathered.until(
            lambda: time.monotonic() > until and is_said(said, mad.said), "that the stranger has tried"
        )
        assert not gathered.results
        assert not end.workers()
        rightful = stack.enter_context(StandIn(place, 0))
        results = gathered.all()
        assert {result.status for result in results} == {"ok"}
        assert {result.worker for result in results} == {"stand-in-0"}
        assert not mad.took
        assert not mad.runs
        assert len(rightful.runs) == 1


@pytest.mark.parametrize("stranger", STRANGERS, ids=IDS)
@on_every_wire
def test_a_dispatcher_without_the_key_runs_nothing(wire: Wire, stranger: Any, other: str) -> None:
    place = Place(wire)
    said: list[str] = []
    with ExitStack() as stack:
        worker = stack.enter_context(StandIn(place))
        with tried(place, stranger(other), said) as (end, gathered):
            until = time.monotonic() + TRYING
            gathered.until(
                lambda: time.monotonic() > until and is_said(said, worker.said), "that the stranger has tried"
            )
            assert not gathered.results
            assert not end.workers()
        assert not worker.took
        assert not worker.runs
        results = Gathered(stack.enter_context(place.dispatcher_end()), tasks(50)).all()
        assert {result.status for result in results} == {"ok"}


def is_said(*heard: list[str]) -> bool:
    """Whether somebody says that the keys are not the same."""
    return any("stranger" in line or "same keys" in line for said in heard for line in said)


@pytest.mark.parametrize("expired", ["dispatcher", "worker"])
@over_tls
def test_an_expired_certificate_is_a_strangers(
    wire: Wire, expired: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(wire)
    said: list[str] = []
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            if expired == "worker":
                patch.setattr(Identity.__init__, "__defaults__", (-60.0,))
            worker = stack.enter_context(StandIn(place))
        with monkeypatch.context() as patch:
            if expired == "dispatcher":
                patch.setattr(Identity.__init__, "__defaults__", (-60.0,))
            end = stack.enter_context(place.dispatcher_end(said.append))
        gathered = Gathered(end, tasks(20))
        until = time.monotonic() + TRYING
        gathered.until(lambda: time.monotonic() > until, "that it has tried")
        assert not gathered.results
        assert not worker.took
        assert not worker.runs


@on_every_wire
def test_what_was_recorded_on_the_way_says_nothing_when_it_is_sent_again(wire: Wire) -> None:
    """From who connected: a worker's greeting and results on ZeroMQ, a dispatcher's calls elsewhere."""
    place = Place(wire)
    with Proxy(place.listen[0], records=True) as proxy:
        place.reach = [proxy.address]
        said: list[str] = []
        with ExitStack() as stack:
            stand_in = StandIn(place)
            if wire.workers_listen:
                stack.enter_context(stand_in)
            end = stack.enter_context(place.dispatcher_end(said.append))
            if not wire.workers_listen:
                stack.enter_context(stand_in)
            gathered = Gathered(end, tasks(200))
            gathered.until(lambda: len(gathered.results) > 50, "half of the results")
            record = bytes(max(proxy.recorded, key=len))  # a copy: it grows meanwhile
            for _ in range(3):
                with connect(place.listen[0]) as sock, contextlib.suppress(OSError):
                    sock.sendall(record)
                    sock.settimeout(1.0)
                    while sock.recv(1 << 16):
                        pass
            results = gathered.all()
            assert {result.status for result in results} == {"ok"}
            assert sorted(stand_in.took) == list(range(200))
            assert len(stand_in.runs) == 1
            assert len(end.workers()) == 1
            heard = stand_in.said if wire.workers_listen else said
            if wire.says_garbage:
                gathered.until(lambda: any("stranger" in line for line in heard), "a stranger is said")


@on_every_wire
def test_an_insecure_link_is_said_at_each_start(wire: Wire) -> None:
    place = Place(wire, insecure=True)
    said: list[str] = []
    with place.dispatcher_end(said.append) as end, StandIn(place) as worker:
        assert len(Gathered(end, tasks(3)).all()) == 3
        assert said[0].startswith("insecure: nothing protects ")
        assert worker.said[0].startswith("insecure: nothing protects ")


@on_every_wire
def test_a_socket_that_others_could_reach_is_refused(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    where = f"unix:{tmp_path / 'open' / 'socket'}"
    transport = transports.load(wire.transport)
    values = {"workers": [where], "listen": where} if wire.workers_listen else {"address": where}
    settings = msgspec.convert({"transport": wire.transport, **values}, transport.Settings)
    with pytest.raises(ConfigError, match="others may enter"):
        transport.worker_end(settings, introduce("worker", 1), say=print)
    with pytest.raises(ConfigError, match="others may enter"):
        transport.dispatcher_end(settings, say=print, wait=1.0)
