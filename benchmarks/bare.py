"""The least that throughput costs: frames over ZeroMQ to two workers, each with a pipe to its child.

The same way and the same processes as in a run with `--workers 2 --cores 1`, and nothing else: typed records
in frames of 100, decoded in the child, called, and each answered with a typed record, which is decoded again
where the tasks came from. No scheduling, no lease, no order, no acknowledgement, no file.
"""

from __future__ import annotations

import operator
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import zmq

#: Tasks in a frame.
FRAME = 100

#: Frames that a worker has at most.
CREDIT = 8

#: Milliseconds without a frame after which it is over.
_LIMIT = 30_000

_FUNCTIONS = {"operator.add": operator.add}


class Call(msgspec.Struct, array_like=True, gc=False):
    """A task on its way."""

    place: int
    function: str
    params: list[int]


class Answer(msgspec.Struct, array_like=True, gc=False):
    """A result on its way."""

    place: int
    status: str
    value: int
    started: float
    finished: float


_CALLS = msgspec.msgpack.Encoder()
_ANSWERS = msgspec.msgpack.Decoder(list[Answer])


def measure(count: int, workers: int = 2) -> float:
    """Run so many no-op calls; return calls a second, from the first start to the last end."""
    with _served(workers) as (socket, peers):
        return _throughput(socket, peers, count)


def one_by_one(count: int) -> list[float]:
    """Make one no-op call after the other, each in a frame of its own; return the seconds that each took."""
    seconds = []
    with _served(2) as (socket, peers):
        for number in range(count):
            began = time.perf_counter()
            socket.send_multipart([peers[0], _CALLS.encode([Call(number, "operator.add", [number, 1])])])
            (answer,) = _ANSWERS.decode(_receive(socket)[1])
            seconds.append(time.perf_counter() - began)
            assert answer.value == number + 1
    return seconds


@contextmanager
def _served(workers: int) -> Iterator[tuple[zmq.Socket[bytes], list[bytes]]]:
    """Open a socket and start workers; give their names on it, when they are there."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fe-bare-") as folder, zmq.Context() as wire:
        endpoint = f"ipc://{Path(folder)}/zmq"
        socket = wire.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        processes = [context.Process(target=_work, args=(endpoint,)) for _ in range(workers)]
        for process in processes:
            process.start()
        try:
            yield socket, [_receive(socket)[0] for _ in range(workers)]
        finally:
            socket.close()
            for process in processes:
                process.terminate()
                process.join()


def _receive(socket: zmq.Socket[bytes]) -> list[bytes]:
    if not socket.poll(_LIMIT):
        raise TimeoutError("the bare loop stands still")
    return socket.recv_multipart()


def _throughput(socket: zmq.Socket[bytes], peers: list[bytes], count: int) -> float:
    sent = answered = 0
    first, last = float("inf"), 0.0
    free = peers * CREDIT
    while answered < count:
        while free and sent < count:
            upto = min(count, sent + FRAME)
            calls = [Call(place, "operator.add", [place, 1]) for place in range(sent, upto)]
            socket.send_multipart([free.pop(), _CALLS.encode(calls)])
            sent = upto
        peer, frame = _receive(socket)
        answers = _ANSWERS.decode(frame)
        for answer in answers:
            first, last = min(first, answer.started), max(last, answer.finished)
        answered += len(answers)
        free.append(peer)
    return count / (last - first)


def _work(endpoint: str) -> None:
    """Pass frames on between the wire and a child, until this process is terminated."""
    ours, theirs = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=_call, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    with zmq.Context() as wire:
        socket = wire.socket(zmq.DEALER)
        socket.connect(endpoint)
        socket.send(b"")
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(ours.fileno(), zmq.POLLIN)
        while True:
            for ready, _ in poller.poll():
                if ready is socket:
                    ours.send_bytes(socket.recv())
                else:
                    socket.send(ours.recv_bytes())


def _call(pipe: Connection[Any, Any]) -> None:
    """Run calls until the other end is gone."""
    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list[Call])
    clock = time.time
    try:
        while True:
            answers = []
            for place, name, params in map(_fields, decoder.decode(pipe.recv_bytes())):
                function = _FUNCTIONS[name]
                started = clock()
                value = function(*params)
                answers.append(Answer(place, "ok", value, started, clock()))
            pipe.send_bytes(encoder.encode(answers))
    except (EOFError, OSError):  # the parent closed the pipe: all is done
        return


def _fields(call: Call) -> tuple[int, str, list[int]]:
    return call.place, call.function, call.params
