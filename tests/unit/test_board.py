"""The memory that a child shares with its worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import msgspec
import pytest

from executor.board import Board
from executor.messages import NIL, Report

_encode = msgspec.msgpack.Encoder().encode


def report(place: int) -> bytes:
    return _encode(Report(place, 1, "ok", NIL))


@pytest.fixture
def board() -> Iterator[Board]:
    descriptor = os.memfd_create("board") if hasattr(os, "memfd_create") else pytest.skip("needs memfd")
    os.ftruncate(descriptor, Board.SIZE)
    shared = Board(descriptor)
    os.close(descriptor)
    shared.begin(-1, 0.0)
    yield shared
    shared.close()


def test_it_says_what_runs_and_what_was_not_sent(board: Board) -> None:
    assert board.running() == (-1, 0.0, 0.0)
    assert board.unsent() == (0, [])
    board.set_clock(1.0)
    assert board.begin(7, 1.5)
    assert board.running() == (7, 1.5, 2.5)
    board.sent(7)
    assert board.add(report(7))
    assert board.add(report(8))
    first, reports = board.unsent()
    assert (first, [each.place for each in reports]) == (7, [7, 8])
    board.sent(9)
    assert board.unsent() == (9, [])


def test_what_has_no_room_is_not_shown(board: Board) -> None:
    large = _encode(Report(1, 1, "ok", NIL, stdout="x" * 60_000))
    assert [board.add(large) for _ in range(3)] == [True, True, False]
    assert len(board.unsent()[1]) == 2


def test_what_is_read_is_never_of_two_pieces(board: Board) -> None:
    """A child writes as fast as it can; whatever the worker sees belongs together."""
    writer = os.fork()
    if writer == 0:
        try:
            first = 0
            while True:
                board.sent(first)
                for place in range(first, first + 3):
                    board.begin(place, place)
                    board.add(report(place))
                first += 203  # so that several bytes of a word change at once
        finally:
            os._exit(1)
    try:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            index, since, epoch = board.running()
            assert index <= since <= epoch + 203
            first, reports = board.unsent()
            assert [each.place for each in reports] == list(range(first, first + len(reports)))
        assert board.running()[0] > 1000
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
