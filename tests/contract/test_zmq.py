"""What is special to ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import zmq

from executor.broker import AHEAD_MOST, Broker
from executor.messages import Beat, Refused, decode, encode, introduce
from executor.private import Lock
from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.proxy import Proxy, connect
from tests.contract.wires import ZeroMQ, free_addresses
from tests.e2e.scripts import Scripts, wait_until
from transports import threads, zeromq

pytestmark = pytest.mark.timeout(60)

WIRE = ZeroMQ()


def test_what_is_sent_to_nobody_is_told() -> None:
    """A ROUTER drops it in silence unless it is told to mind."""
    with Place(WIRE).dispatcher_end() as end:
        assert end._link.send(b"nobody", encode(Beat())) is False


def test_nothing_is_kept_for_a_dispatcher_that_is_not_there() -> None:
    """It would reach the next one, stale."""
    with Place(WIRE).worker_end(introduce("worker", 1)) as end:
        assert end._link.send(b"dispatcher", encode(Beat())) is False


def test_who_waits_its_turn_says_so_now_and_then(monkeypatch: pytest.MonkeyPatch, scripts: Scripts) -> None:
    monkeypatch.setattr(zeromq, "SAY_AGAIN", 0.0)
    other = Lock(scripts.runtime / "zmq.lock")
    assert other.acquire()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            other.release()

    settings = zeromq.Settings(address=f"unix:{scripts.runtime}/zmq")
    with zeromq.ZeroMQ.dispatcher_end(settings, say=say, wait=None):
        assert len(said) == 3
    assert set(said) == {
        f"another dispatcher (process {os.getpid()}) is at unix:{scripts.runtime}/zmq; waiting for its end"
    }


def test_a_socket_goes_with_its_dispatcher_and_the_next_takes_its_place(scripts: Scripts) -> None:
    path = scripts.runtime / "zmq"
    settings = zeromq.Settings(address=f"unix:{path}")
    for _ in range(2):
        with zeromq.ZeroMQ.dispatcher_end(settings, say=print, wait=None):
            assert path.is_socket()
        assert not path.exists()


def test_a_message_beyond_the_bound_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before memory is taken for it: a peer gone mad must not fill the dispatcher's."""
    monkeypatch.setattr(zeromq, "LARGEST_FRAME", 1_000_000)
    place = Place(WIRE, insecure=True)  # with keys it would not come so far
    with place.dispatcher_end() as end, StandIn(place):
        gathered = Gathered(end, tasks(50))
        with connect(place.listen[0]) as sock:
            sock.settimeout(20)
            greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
            ready = b"\5READY\x0bSocket-Type\0\0\0\6DEALER"
            sock.sendall(greeting + b"\4" + bytes([len(ready)]) + ready)
            heard = b""
            while b"READY" not in heard:
                heard += (more := sock.recv(4096))
                assert more, "it was our greeting that it took amiss"
            sock.sendall(b"\2" + struct.pack(">Q", 2_000_000) + b"x" * 100)  # so many bytes are to follow
            heard = b""
            while more := sock.recv(4096):
                heard += more
        assert heard.count(b"PING") < 4, "only because it answered no ping for ten seconds"
        assert {result.status for result in gathered.all()} == {"ok"}


def test_what_a_peer_sends_and_nobody_reads_waits_at_its_end() -> None:
    """So that one that floods takes no memory of the other end; ZeroMQ counts messages, not their bytes."""
    place = Place(WIRE, insecure=True)
    with place.dispatcher_end() as end, socket_of(place) as flood:
        flood.setsockopt(zmq.SNDTIMEO, 3000)
        sent = 0
        with contextlib.suppress(zmq.Again):
            while sent < 3000:
                flood.send(bytes(1 << 16))
                sent += 1
        assert zeromq.UNREAD <= sent < 3000
        came = 0
        while came < sent:
            wait_until(end._link.ready, "the rest")
            came += len(end._link.receive())


def test_who_was_cut_off_is_read_and_dropped() -> None:
    """A ROUTER can't hang up on one of its peers; so it costs nothing but the time to read it."""
    place = Place(WIRE, insecure=True)
    said: list[str] = []
    with place.dispatcher_end(said.append) as end, socket_of(place) as mad:
        mad.send_multipart([bytes(part) for part in encode(introduce("mad", 1))])
        wait_until(lambda: end.results(0.01) or end.workers(), "it has greeted")
        mad.send(b"junk")
        for _ in range(2000):
            mad.send(bytes(1 << 16))
            end.results(0)
        mad.send(b"junk, the last")
        wait_until(lambda: not end.results(0.01) and not end._link.ready(), "all is read")
        answers: list[Any] = []
        while mad.poll(100 if any(isinstance(each, Refused) for each in answers) else 10_000):
            answers.append(decode(mad.recv_multipart())[0])
        assert [type(each) for each in answers if not isinstance(each, Beat)] == [Refused]
        assert not end._arrived
        assert not end._roster._by_link
        assert not end.workers()
    assert len([line for line in said if "cut off worker mad" in line]) == 1
    assert not [line for line in said if "stranger" in line]


@contextlib.contextmanager
def socket_of(place: Place) -> Iterator[zmq.Socket[bytes]]:
    """A socket that connects, with room for one message."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.SNDHWM, 1)
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(f"tcp://{place.listen[0]}")
        yield sock


def test_a_close_waits_for_what_is_under_way_but_not_for_ever() -> None:
    with Place(WIRE).dispatcher_end() as end:
        linger = end._link._socket.getsockopt(zmq.LINGER)
    assert 0 < linger <= 5000


@pytest.mark.parametrize("cores", [1, 16, 128])
@pytest.mark.parametrize("widths", [[1], [1, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_credit_never_reaches_the_high_water_mark(cores: int, widths: list[int]) -> None:
    """However small the calls, and though each may travel in a frame of its own."""
    broker = Broker()
    broker.join("worker", cores)
    known = [width for width in widths if width <= cores]
    broker.push(known)
    for place, _ in enumerate(known):
        while place not in broker.held("worker"):
            broker.grants()
        broker.settle("worker", [place], 1e-9)
    broker.push(known * 20_000)
    frames = len(broker.grants())
    assert len(broker.held("worker")) <= AHEAD_MOST + cores
    assert 0 < frames < min(zeromq.HIGH_WATER, threads.HIGH_WATER) / 2


def test_a_dispatcher_takes_more_workers_than_it_had_files_for(scripts: Scripts) -> None:
    """A thousand are usual and each worker takes one; without more, the next would wait in silence."""
    (where,) = free_addresses(1)
    dispatcher = scripts.dispatcher(
        "--address", f"tcp://{where}", "--tasks", scripts.tasks({"function": "min", "params": [1, 2]}),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 4096)),
    )  # fmt: skip
    dispatcher.says("waiting for a worker")
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(where))
        worker = scripts.worker("--address", f"tcp://{where}", "--once", "--cores", "1")
        assert dispatcher.ends() == 0, dispatcher.log()
        assert worker.ends() == 0


@pytest.mark.parametrize(
    ("script", "options", "says"),
    [
        ("worker.py", ["--listen=h:1"], "--listen: is not for transport zmq; --address is"),
        ("dispatcher.py", ["--connect=h:1"], "--connect: is not for transport zmq; --address is"),
        ("dispatcher.py", ["--address=h:1"], "--address: 'h:1': write tcp://host:port, or unix:/path"),
        ("worker.py", ["--address=h"], "--address: 'h': write tcp://host:port, or unix:/path"),
        (
            "worker.py", ["--address=tcp://*:7"],
            "address: tcp://*:7 is what a dispatcher listens on (`bind`); a worker needs the name of the "
            "dispatcher's machine: tcp://HOST:7",
        ),
        (
            "dispatcher.py", ["--address=tcp://192.0.2.1:7"],
            "can't listen on tcp://192.0.2.1:7: this machine has no such address",
        ),
        (
            "dispatcher.py", ["--address=unix:/no/such/folder/x"],
            "can't listen on unix:/no/such/folder/x: No such file or directory",
        ),
    ],
)  # fmt: skip
def test_an_address_on_the_command_line_that_is_none(
    scripts: Scripts, script: str, options: list[str], says: str
) -> None:
    refused = scripts.start(script, *options)
    assert refused.ends() == 2
    assert refused.stderr == f"{script}: error: {says}\n"


def test_a_bind_of_its_own(scripts: Scripts) -> None:
    """Workers go by a name of the machine, the dispatcher listens on all its networks."""
    (where,) = free_addresses(1)
    port = where.rpartition(":")[2]
    own = scripts.folder / "wire.yml"
    own.write_text(
        json.dumps({"transport": "zmq", "address": f"tcp://localhost:{port}", "bind": f"tcp://*:{port}"})
    )
    worker = scripts.worker("--yaml", own, "--once", "--cores", "1")
    scripts.run("--yaml", own, "--tasks", scripts.tasks({"function": "min", "params": [1, 2]}))
    assert worker.ends() == 0


def test_a_connection_that_leads_nowhere_is_replaced_once_its_dispatcher_is_given_up() -> None:
    """As one does whose state a firewall has forgotten; the dispatcher could be reached all the time."""
    place = Place(WIRE, heartbeat=0.2, patience=1.0)
    with Proxy(place.listen[0]) as proxy:
        place.reach = [proxy.address]
        with place.dispatcher_end() as end, StandIn(place):
            gathered = Gathered(end, tasks(2000))
            gathered.until(lambda: len(gathered.results) > 10, "some results")
            proxy.lose()
            results = gathered.all()
    assert {result.status for result in results} == {"ok"}


@pytest.mark.parametrize("held_up", ["dispatcher", "worker"])
def test_a_connection_that_breaks_with_much_unread_does_no_harm(held_up: str) -> None:
    """An end that is held up, by a slow disk say, reads what came before, and lives."""
    program = f"from tests.contract.test_zmq import hold_up; hold_up({held_up!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "Assertion failed" not in done.stderr


def hold_up(which: str) -> None:
    """Send an end far more than is read ahead, reset its connection, and let it read after some seconds."""
    address = free_addresses(1)[0]
    dispatcher = zeromq._Listener(f"tcp://{address}", print, None, None)
    with socket.create_server(("127.0.0.1", 0)) as between:
        port = between.getsockname()[1]
        worker = zeromq._Dialer(f"tcp://127.0.0.1:{port}", print, None)
        near, _ = between.accept()
    ends = near, connect(address)
    for end in ends:
        end.setblocking(False)
    flow(ends, lambda: worker.send(b"", [b"hello"]))
    peer = flow(ends, dispatcher.receive)[0].peer
    sender, reader = (worker, dispatcher) if which == "dispatcher" else (dispatcher, worker)
    for _ in range(1000):
        assert sender.send(peer, [b"x" * 1000])
    until = time.monotonic() + 1
    flow(ends, lambda: time.monotonic() > until)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()
    time.sleep(3)  # longer than between two heartbeats, of whatever kind
    came: list[Any] = []
    wait_until(lambda: came.extend(reader.receive()) or len(came) > zeromq.UNREAD // 2)
    worker.close()
    dispatcher.close()


def flow(ends: tuple[socket.socket, socket.socket], done: Callable[[], Any]) -> Any:
    """Pass on what comes from either of two sockets to the other, until something is true; return that."""
    deadline = time.monotonic() + 10
    while not (found := done()):
        assert time.monotonic() < deadline
        for one, other in (ends, ends[::-1]):
            with contextlib.suppress(BlockingIOError):
                other.send(one.recv(1000))  # a little, so that it fits
        time.sleep(0.0005)
    return found
