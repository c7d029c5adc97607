"""What is special to RPyC."""

from __future__ import annotations

import contextlib
import errno
import gc
import socket
import struct
import threading
from typing import Any

import pytest
import rpyc
from rpyc.core import consts

from executor import keys
from executor.certificates import Context, Identity
from executor.errors import BadFrame
from executor.messages import introduce
from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.proxy import connect
from tests.contract.wires import Served
from tests.e2e.scripts import wait_until
from transports.rpyc_wire import tls
from transports.rpyc_wire.stream import Stream
from transports.rpyc_wire.talk import Talk

pytestmark = pytest.mark.timeout(60)

WIRE = Served("rpyc")


@pytest.fixture
def stranger() -> Any:
    """A plain RPyC client of a worker that lets anybody in."""
    place = Place(WIRE, insecure=True)
    with StandIn(place) as worker:
        host, _, port = place.listen[0].rpartition(":")
        connection = rpyc.connect(host, int(port), config={"sync_request_timeout": 5})
        yield connection, worker
        connection._channel.close()


def test_nothing_is_offered_but_frames(stranger: Any) -> None:
    connection, _ = stranger
    root = connection.root
    for name in ("_link", "run", "end", "peer", "on_disconnect", "__class__", "__init__", "__dict__"):
        with pytest.raises((AttributeError, KeyError)):
            connection.sync_request(consts.HANDLE_GETATTR, root, name)
        with pytest.raises(AttributeError):
            connection.sync_request(consts.HANDLE_CALLATTR, root, name, ())
    for request in (
        (consts.HANDLE_PICKLE, root, 2), (consts.HANDLE_SETATTR, root, "peer", b"x"),
        (consts.HANDLE_DIR, root), (consts.HANDLE_REPR, root),
        (consts.HANDLE_DELATTR, root, "peer"), (consts.HANDLE_CALL, root, ()),
    ):  # fmt: skip
        with pytest.raises(KeyError):
            connection.sync_request(*request)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("introduce", ("../../etc",)),
        ("introduce", (7,)),
        ("pieces", ((((b"early",), False, True),),)),
        ("pieces", ((("not bytes", False, True),),)),
        ("pieces", ("not pieces",)),
        ("introduce", (print,)),  # objects of its own: each look at one would be a call back
        ("introduce", (("0123456789abcdef", [object()]),)),
    ],
)
def test_who_does_not_keep_to_the_protocol_is_hung_up_on(
    stranger: Any, method: str, arguments: tuple[Any, ...]
) -> None:
    connection, worker = stranger
    connection.async_request(consts.HANDLE_CALLATTR, connection.root, method, arguments)
    wait_until(lambda: any("hung up on a stranger" in line for line in worker.said), "a stranger", 10)


def test_who_sends_without_end_and_takes_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends is read while we write, else two that both send would wait for ever; but not all."""
    monkeypatch.setattr("transports.rpyc_wire.stream._READ_AHEAD_MOST", 8 << 20)
    ours, theirs = socket.socketpair()
    stream = Stream(ours)

    def flood() -> None:
        with contextlib.suppress(OSError):
            for _ in range(100):
                theirs.sendall(bytes(1 << 20))
        theirs.close()

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with pytest.raises(BadFrame, match="takes nothing"):
            stream.write(bytes(32 << 20))
        assert len(stream._read_ahead) < 16 << 20
    finally:
        stream.close()
        thread.join()


class Own:
    """A class that the other side doesn't know."""


def serve_to_the_end(connection: Any) -> None:
    while True:
        connection.serve(1)


@pytest.mark.parametrize(
    "piece",
    [((b"x", "text"), False, True), ((b"x",), 0, 1), (([],), False, True), ((Own(),), False, True), b"xyz"],
)
def test_a_dispatcher_sends_bytes_and_nothing_else(stranger: Any, piece: Any) -> None:
    """Objects of its own least of all: each look at one would be a call back to it."""
    connection, _ = stranger
    asked: list[Any] = []
    connection._HANDLERS = connection._HANDLERS | {
        consts.HANDLE_INSPECT: lambda _, id_pack: asked.append(id_pack) or ()
    }
    for method, values in (
        ("introduce", ("0123456789abcdef",)),
        ("pieces", ((((b"",), False, False), piece),)),
    ):
        connection.async_request(consts.HANDLE_CALLATTR, connection.root, method, values)
    with pytest.raises(EOFError):
        serve_to_the_end(connection)
    assert [each[0] for each in asked if "VoidService" not in each[0]] == []  # that is our root


@pytest.mark.parametrize("insecure", [False, True])
def test_a_connection_that_says_nothing_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, insecure: bool
) -> None:
    for module in ("talk", "tls"):
        monkeypatch.setattr(f"transports.rpyc_wire.{module}.SYNC_TIMEOUT", 0.3)
    place = Place(WIRE, insecure=insecure)
    with StandIn(place) as worker, connect(place.listen[0]) as sock:
        sock.settimeout(20)
        while sock.recv(4096):  # without protection it asks for our root, in vain
            pass
        wait_until(lambda: any("stranger" in line for line in worker.said), "a stranger", 10)


@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 100,
        b"\0\0\0\5\0abcde\n",
        b"",
        b"\0\0\0\x0d\1x\x9c\x4b\x4c\x4a\x06\0\2\x4d\1\x27\n",  # compressed: a bomb would grow
        b"\x7f\xff\xff\xff\0x",  # two gigabytes are to follow
        b"\0\x10\0\0\0" + b"\x0f\xff\0\0" * 262144 + b"\n",  # a tuple of tuples, a million deep
    ],
)
def test_bytes_that_are_not_rpyc_are_said(garbage: bytes, insecure: bool) -> None:
    place = Place(WIRE, insecure=insecure)
    with StandIn(place) as worker:
        with connect(place.listen[0]) as sock:
            sock.sendall(garbage)
            if not garbage:
                sock.close()
            wait_until(lambda: len(worker.said) > insecure, "a stranger", 10)
        assert worker.said[-1].startswith("hung up on a stranger from 127.0.0.1: ")


@pytest.mark.parametrize("server", [False, True])
def test_who_resets_a_connection_before_tls_begins_leaves_no_socket(server: bool) -> None:
    """An unclosed one is a warning, and so fails the test."""
    context = Context(Identity(keys.load(keys.place()), "worker" if server else "dispatcher"), server=server)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        with pytest.raises(OSError, match="hung up"):
            tls.secure(near, context, server=server)
        assert near.fileno() == -1
        gc.collect()


def test_a_dispatcher_that_came_and_went_is_no_stranger() -> None:
    place = Place(WIRE)
    with StandIn(place) as worker:
        for _ in range(2):
            with place.dispatcher_end() as end:
                assert len(Gathered(end, tasks(3)).all()) == 3
        wait_until(lambda: len(worker.left) == 2, "both have gone", 10)
    assert worker.said == []


@pytest.mark.parametrize("insecure", [False, True])
def test_something_else_that_listens_is_said(insecure: bool) -> None:
    place = Place(WIRE, insecure=insecure)
    host, _, port = place.listen[0].rpartition(":")
    with socket.create_server((host, int(port))) as other:
        said: list[str] = []
        with place.dispatcher_end(said.append) as end:
            accepted, _ = other.accept()
            with accepted:
                accepted.sendall(b"220 mail.example ESMTP\r\n")
                wait_until(lambda: end.results(0.1) or len(said) > insecure, "what listens there", 10)
    assert said[-1].startswith(f"{place.listen[0]} doesn't answer as a worker ")


def test_small_frames_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY is set on both sides."""
    seen: list[int] = []
    lock = threading.Lock()
    plain = socket.socket.setsockopt

    class Watched(socket.socket):
        def setsockopt(self, *arguments: Any) -> None:
            with lock:
                seen.append(arguments[1])
            plain(self, *arguments)

    monkeypatch.setattr(socket, "socket", Watched)
    place = Place(WIRE, insecure=True)  # over TLS a class that knows nothing of ours is in its place
    with place.worker_end(introduce("worker", 1)) as worker, place.dispatcher_end() as end:
        wait_until(lambda: worker.pull(0.05) or end.results(0.05) or end.workers(), "each other", 10)
    assert seen.count(socket.TCP_NODELAY) >= 2


@pytest.mark.parametrize("dispatcher", [True, False])
def test_who_has_no_descriptor_left_for_a_moment_connects_later(
    monkeypatch: pytest.MonkeyPatch, dispatcher: bool
) -> None:
    failed = threading.Event()

    def talk(link: Any, sock: socket.socket, peer: bytes | None) -> Talk:
        if (peer is not None) == dispatcher and not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return Talk(link, sock, peer)

    monkeypatch.setattr("transports.rpyc.Talk", talk)
    place = Place(WIRE)
    with StandIn(place), place.dispatcher_end() as end:
        results = Gathered(end, tasks(3)).all()
    assert failed.is_set()
    assert {result.status for result in results} == {"ok"}
