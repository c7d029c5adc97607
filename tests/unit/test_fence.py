"""Two processes that race for the same items never both get one, and lose none."""

from __future__ import annotations

import mmap
import os
import random
import signal
from collections.abc import Callable
from typing import NoReturn

import pytest

from executor import fence
from executor.board import Board

#: Items of one round.
COUNT = 30

#: Words of the rounds' memory: the round that has begun, and the one that the child is done with.
BEGUN, DONE = range(2)


def work(board: Board, rounds: memoryview, ran: mmap.mmap) -> NoReturn:
    """Be the child: begin the items of round after round, until it is refused one."""
    fence.register()
    now = 0
    while True:
        while rounds[BEGUN] == now:
            os.sched_yield()
        now += 1
        for index in range(now * COUNT, (now + 1) * COUNT):
            if not board.begin(index, 0.0, 2 * now):
                break
            ran[index] += 1
        rounds[DONE] = now


def race(count: int) -> None:
    """Be the worker: take back what has not begun, at moments of chance."""
    descriptor = os.memfd_create("board")
    os.ftruncate(descriptor, Board.SIZE)
    board = Board(descriptor)
    rounds = memoryview(mmap.mmap(-1, 64)).cast("q")
    ran = mmap.mmap(-1, (count + 1) * COUNT)
    chance = random.Random(4)
    child = os.fork()
    if child == 0:
        try:
            work(board, rounds, ran)
        finally:
            os._exit(1)
    try:
        for now in range(1, count + 1):
            first, end = now * COUNT, (now + 1) * COUNT
            board.set_term(2 * now)
            rounds[BEGUN] = now
            for _ in range(chance.randrange(200)):
                pass
            board.set_term(2 * now + 1)
            fence.fence()
            kept = max(board.begun() + 1, first)
            while rounds[DONE] < now:
                os.sched_yield()
            assert not any(ran[kept:end]), "it ran although it was taken back"
            # The last one it may have been refused: then it says so, and its worker gives it elsewhere.
            assert set(ran[first : kept - 1]) <= {1}, "it was neither run nor taken back"
            assert ran[kept - 1] <= 1 or kept == first
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(descriptor)


needs_memfd = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")


@needs_memfd
def test_each_item_is_run_or_taken_back() -> None:
    race(5000)


@needs_memfd
def test_without_the_system_call_it_is_waited_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_membarrier", lambda: None)
    race(100)


@pytest.mark.parametrize("answer", [-1, 0, 1 << 1, 1 << 2])
def test_a_system_that_lacks_a_part_of_it_is_not_asked(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    find: Callable[[], object] = fence._membarrier.__wrapped__
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: type("C", (), {"syscall": lambda *_: answer}))
    assert find() is None
