"""A connection to a broker that stands and leaves something unanswered. A stand-in speaks as much AMQP."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pika import frame, spec

from executor import keys
from executor.sealing import Seal
from transports.base import wait_readable
from transports.rabbitmq import overdue
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import NO_ANSWER, Found, Lost, Opened
from transports.rabbitmq.overdue import Kind
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker

pytestmark = pytest.mark.timeout(60)

#: Seconds that anything here may take; the machine may be busy.
LIMIT = 30.0


def answer(asked: Any) -> Any:
    """Return what a broker answers, None: nothing."""
    if isinstance(asked, spec.Connection.StartOk):
        return spec.Connection.Tune(0, 131072, 0)
    if isinstance(asked, spec.Queue.Declare):
        return spec.Queue.DeclareOk(asked.queue, 7, 0)
    answers = {
        spec.Connection.Open: spec.Connection.OpenOk, spec.Connection.Close: spec.Connection.CloseOk,
        spec.Channel.Open: spec.Channel.OpenOk, spec.Channel.Close: spec.Channel.CloseOk,
        spec.Confirm.Select: spec.Confirm.SelectOk,
    }  # fmt: skip
    made = answers.get(type(asked))
    return made() if made is not None else None


class StandIn:
    """A broker, which leaves unanswered what `silent` says, on the first connection to it."""

    def __init__(self, silent: Callable[[Any], bool]) -> None:
        self.connections = 0
        self._silent = silent
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        for sock in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(LIMIT)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                self._sockets.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        number, unread = self.connections, b""
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                unread += data
                while True:
                    used, came = frame.decode_frame(unread)
                    if came is None:
                        break
                    unread = unread[used:]
                    self._obey(sock, came, silent=number == 1)

    def _obey(self, sock: socket.socket, came: Any, *, silent: bool) -> None:
        if isinstance(came, frame.ProtocolHeader):
            able = {"publisher_confirms": True, "basic.nack": True}
            start = spec.Connection.Start(0, 9, {"capabilities": able}, "PLAIN", "en_US")
            sock.sendall(frame.Method(0, start).marshal())
        elif isinstance(came, frame.Method) and not (silent and self._silent(came.method)):
            made = answer(came.method)
            if made is not None:
                sock.sendall(frame.Method(came.channel_number, made).marshal())


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[StandIn, Connection]]]:
    """Start a broker that is silent as told, and connect to it; a look or two are long enough to wait."""
    for kind in Kind:
        monkeypatch.setitem(overdue.LOOKS, kind, 1)
    with contextlib.ExitStack() as stack:

        def started(silent: Callable[[Any], bool]) -> tuple[StandIn, Connection]:
            broker = StandIn(silent)
            stack.callback(broker.close)
            envelopes = Envelopes(Seal(keys.load(keys.place())), Topology("q", 60.0, 60.0))
            to = Broker(f"amqp://{broker.address}/?connection_attempts=1")
            connection = Connection(to, envelopes, name="test", heartbeat=60)
            stack.callback(connection.close)
            return broker, connection

        yield started


def until(connection: Connection, kind: type) -> list[Any]:
    """Return what is told, up to the first event of a kind."""
    told: list[Any] = []
    deadline = time.monotonic() + LIMIT
    while not (told and isinstance(told[-1], kind)):
        assert time.monotonic() < deadline, told
        wait_readable(connection.fileno(), 0.1)
        told += connection.take(1)
    return told


Start = Callable[..., tuple[StandIn, Connection]]


def test_whether_a_queue_exists_is_asked_anew_over_another_connection(start: Start) -> None:
    _, connection = start(lambda asked: isinstance(asked, spec.Queue.Declare))
    until(connection, Opened)
    connection.look_for("q")
    assert [event.why for event in until(connection, Lost)] == [NO_ANSWER]
    until(connection, Opened)
    connection.look_for("q")
    assert until(connection, Found)[-1] == Found("q", 7)


@pytest.mark.parametrize("what", [spec.Channel.Open, spec.Confirm.Select])
def test_a_connection_whose_channels_do_not_open_is_made_anew(start: Start, what: type) -> None:
    broker, connection = start(lambda asked: isinstance(asked, what))
    first, *_ = until(connection, Opened)
    assert isinstance(first, Lost)
    assert first.why == NO_ANSWER
    assert broker.connections == 2


@pytest.mark.parametrize("what", [spec.Channel.Close, spec.Connection.Close])
def test_a_connection_that_does_not_end_is_cut(start: Start, what: type) -> None:
    broker, connection = start(lambda asked: isinstance(asked, what))
    until(connection, Opened)
    connection.break_off("a test")
    until(connection, Opened)
    assert broker.connections == 2
