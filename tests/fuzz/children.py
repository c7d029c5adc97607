"""What a worker hears of its children, in which the user's code runs: it may write whatever it likes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from random import Random

import msgspec

from executor.arena import Arena
from executor.board import Board, Done, as_list, read_done
from executor.channel import Channel
from executor.errors import BadFrame
from executor.messages import Report
from executor.packed import Packed
from tests.fuzz.choices import parts, whole
from tests.fuzz.messages import message
from tests.fuzz.mutate import NUMBERS, Mutator
from tests.fuzz.target import Target

_encode = msgspec.msgpack.encode


def _frame(random: Random) -> list[bytes]:
    count = random.randrange(4)
    reports = [
        Report(n, 1, "ok", msgspec.Raw(_encode([n])), random.random() < 0.1, started=1.0, finished=2.0)
        for n in range(count)
    ]
    listed = as_list(count, b"".join(map(_encode, reports)))
    done = Done(
        random.choice((0, 5)), count, random.choice((0, 1, 2)), random.random() < 0.1, 1.0, 2.0, listed
    )
    return [_encode(done), *(b"buffer" for each in reports if each.buffers)]


def make_done(random: Random) -> bytes:
    head, *buffers = _frame(random)
    way = random.random()
    if way < 0.5:
        head = Mutator(random).msgpack(head)
    elif way < 0.7:
        head = Mutator(random).bytes(head)
    elif way < 0.8:
        head = message(random)[0]
    return whole(head, *buffers)


def run_done(data: bytes) -> None:
    """What is taken for reports can be passed on unread, and is read at the far end."""
    frame = parts(data)
    try:
        done, reports = read_done(frame)
    except BadFrame:
        return
    packed = Packed(done.count, done.reports, frame[1:])
    assert list(packed.attempts()) == [(report.place, report.attempt) for report in reports]
    assert len(list(packed.each())) == done.count


def make_bytes(random: Random) -> bytes:
    frame = _frame(random)
    words = [len(part) for part in frame]
    if random.random() < 0.5:
        at = random.randrange(len(words))
        words[at] = random.choice((*NUMBERS, 1 << 40, 5 << 40 | 100, 256 << 40 | 1 << 17)) % 2**64
    count = len(frame) if random.random() < 0.8 else random.choice(NUMBERS) % 2**32
    data = struct.pack("<I", count) + b"".join(struct.pack("<Q", word) for word in words) + b"".join(frame)
    return Mutator(random).bytes(data) if random.random() < 0.5 else data * random.choice((1, 2))


def run_channel(data: bytes) -> None:
    """What comes is frames of parts that are not too long, or bad."""
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("arena")
    os.ftruncate(memory, Arena.SIZE)
    arena = Arena(memory, child=False)
    channel = Channel(ours, arena, most=1 << 20)
    ours.setblocking(False)
    try:
        theirs.send(data[:50_000])
        theirs.close()
        with contextlib.suppress(BadFrame):
            while (frames := channel.receive()) is not None:
                assert frames
    finally:
        channel.close()
        arena.close()
        os.close(memory)


def make_board(random: Random) -> bytes:
    words = [random.choice((0, 1, -1, 3, 2 << 32 | 20, *NUMBERS)) % 2**64 for _ in range(6)]
    reports = b"".join(map(_encode, [Report(0, 1, "ok", msgspec.Raw(b"\x07"))] * 3))
    if random.random() < 0.5:
        words[4] = random.randrange(1, 5) << 32 | len(reports)
    return struct.pack("<6Q", *words) + Mutator(random).bytes(reports)


def run_board(data: bytes) -> None:
    """A worker reads any board."""
    memory = os.memfd_create("board")
    os.ftruncate(memory, Board.SIZE)
    os.pwrite(memory, data[: Board.SIZE], 0)
    board = Board(memory)
    try:
        first, reports = board.unsent()
        assert isinstance(first, int)
        assert all(isinstance(report, Report) for report in reports)
        board.running()
        board.begun()
    finally:
        board.close()
        os.close(memory)


CHILDREN = [
    Target("child-reports", make_done, run_done),
    Target("child-channel", make_bytes, run_channel),
    Target("child-board", make_board, run_board),
]
