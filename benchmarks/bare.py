"""The least that throughput costs: frames over ZeroMQ to two workers, each with a pipe to its child.

The same way and the same processes as in a run with `--workers 2 --cores 1`, and nothing else: typed records
in frames of 100, decoded in the child, called, and each answered with a typed record, which is decoded again
where the tasks came from. No scheduling, no lease, no order, no acknowledgement, no file.

`measure` can also have each call leave the record that a run promises: a child says on a board what begins,
looks whether something was printed, and shows a report of all fields there; where the tasks came from, each
becomes a result, whose line is written to a file. That is what Python needs for the records alone.
"""

from __future__ import annotations

import operator
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import msgspec
import zmq

from executor import resultline
from executor.board import Board
from executor.messages import Report
from executor.printed import take_printed
from executor.task import Result

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
_REPORTS = msgspec.msgpack.Decoder(list[Report])
_all = msgspec.structs.astuple
_INTEGER = msgspec.msgpack.Decoder(int)


def measure(count: int, workers: int = 2, *, recorded: bool = False) -> float:
    """Run so many no-op calls; return calls a second, from the first start to the last end.

    With `recorded`, each leaves its record, the file of which is deleted.
    """
    with _served(workers, recorded=recorded) as (socket, peers):
        if not recorded:
            return _throughput(socket, peers, count)
        with tempfile.TemporaryFile() as file:
            return _throughput(socket, peers, count, file)


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
def _served(workers: int, *, recorded: bool = False) -> Iterator[tuple[zmq.Socket[bytes], list[bytes]]]:
    """Open a socket and start workers; give their names on it, when they are there."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="fe-bare-") as folder, zmq.Context() as wire:
        endpoint = f"ipc://{Path(folder)}/zmq"
        socket = wire.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(endpoint)
        processes = [context.Process(target=_work, args=(endpoint, recorded)) for _ in range(workers)]
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


def _throughput(
    socket: zmq.Socket[bytes], peers: list[bytes], count: int, file: IO[bytes] | None = None
) -> float:
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
        answers = _ANSWERS.decode(frame) if file is None else _write(_REPORTS.decode(frame), file)
        for answer in answers:
            first, last = min(first, answer.started or 0.0), max(last, answer.finished or 0.0)
        answered += len(answers)
        free.append(peer)
    return count / (last - first)


def _write(reports: list[Report], file: IO[bytes]) -> list[Result]:
    """Write the lines of some reports; return their results."""
    results = [
        Result(
            f"t{place}", "operator.add", [place, 1], {}, 1, status, _INTEGER.decode(value), None, attempt,
            "bare", "here", cores, 0.0, started, finished, out or msgspec.UNSET, err or msgspec.UNSET,
        )
        for place, attempt, status, value, _, _, cores, started, finished, out, err in map(_all, reports)
    ]  # fmt: skip
    lines = resultline.plain(results)
    assert lines is not None
    file.write(lines)
    return results


def _work(endpoint: str, recorded: bool) -> None:
    """Pass frames on between the wire and a child, until this process is terminated."""
    ours, theirs = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=_record if recorded else _call, args=(theirs,), daemon=True)
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


def _record(pipe: Connection[Any, Any]) -> None:
    """Run calls until the other end is gone, each with its record."""
    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list[Call])
    memory, out, err = (os.memfd_create(name) for name in ("board", "stdout", "stderr"))
    os.ftruncate(memory, Board.SIZE)
    board = Board(memory)
    clock, offset = time.monotonic, time.time() - time.monotonic()
    try:
        while True:
            for index, (place, name, params) in enumerate(map(_fields, decoder.decode(pipe.recv_bytes()))):
                function = _FUNCTIONS[name]
                began = clock()
                board.begin(index, began)
                value: Any = function(*params)
                finished = clock()
                printed = take_printed(out, err)
                times = began + offset, finished + offset
                board.add(encoder.encode(Report(place, 1, "ok", value, 0, None, (0,), *times, *printed)))
            pipe.send_bytes(board.shown())
            board.sent(0)
    except (EOFError, OSError):  # the parent closed the pipe: all is done
        return


def _fields(call: Call) -> tuple[int, str, list[int]]:
    return call.place, call.function, call.params
