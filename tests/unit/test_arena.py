"""Large buffers between a worker and a child, in memory that they share."""

from __future__ import annotations

import gc
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.arena import CELL, CELLS, LEAST, Arena
from executor.channel import Channel
from executor.messages import Buffer

#: More than a socket takes at once: what arrives before anything is flushed has not gone through it.
LARGE = 4_000_001

#: So many of these fill what one end may lend.
MOST = (CELLS - 1) // -(-LARGE // CELL)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """A worker's end and a child's."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    with tempfile.TemporaryFile() as file:
        file.truncate(Arena.SIZE)
        arenas = Arena(file.fileno(), child=False), Arena(file.fileno(), child=True)
    worker, child = Channel(ours, arenas[0]), Channel(theirs, arenas[1])
    yield worker, child
    worker.close()
    child.close()
    for arena in arenas:
        arena.close()
        arena.close()


def letters(number: int, size: int = LARGE) -> bytes:
    return bytes([number]) * (size - 1) + b"."


def pass_on(there: Channel, here: Channel, *parts: Buffer) -> list[Buffer]:
    """Send a frame and return what arrives."""
    here.send(parts)
    while not (frames := there.receive()):
        here.flush()
    (frame,) = frames
    return frame


def test_buffers_arrive_as_they_were_both_ways(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    for here, there in ((worker, child), (child, worker)):
        parts = [b"head", letters(1), b"", letters(2, LEAST), letters(3, LEAST - 1), b"tail"]
        assert pass_on(there, here, *parts) == parts


def test_a_large_buffer_does_not_go_through_the_socket(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    worker.send([b"head", letters(1)])
    assert not worker.unsent
    child.send([b"head", memoryview(letters(2)).cast("B", (1, LARGE))])
    assert not child.unsent


def test_what_finds_no_room_goes_through_the_socket(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    sent = [letters(number) for number in range(MOST + 2)]
    assert pass_on(child, worker, *sent) == sent
    endless = bytes(Arena.SIZE)
    assert pass_on(child, worker, endless) == [endless]


def test_room_is_taken_again_only_when_nothing_refers_to_what_was_there(
    pair: tuple[Channel, Channel],
) -> None:
    worker, child = pair
    for here, there in ((worker, child), (child, worker)):
        sent = [letters(number) for number in range(MOST)]
        got = pass_on(there, here, *sent)
        kept = memoryview(got[2])[7:]
        del got[1:3]
        second = pass_on(there, here, letters(100))  # where the second was
        here.send([letters(101)])  # the third is still in use
        assert here.unsent
        while not there.receive():
            here.flush()
        assert second == [letters(100)]
        assert kept == sent[2][7:]
        assert got == [sent[0], *sent[3:]]


def test_a_child_may_change_what_it_got(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    sent = letters(1)
    (got,) = pass_on(child, worker, sent)
    memoryview(got)[:] = letters(2)
    assert pass_on(child, worker, sent) == [sent]
    assert got == letters(2)


def test_what_a_worker_got_outlives_its_child(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    (got,) = pass_on(worker, child, letters(1))
    child.close()
    worker._arena.close()  # type: ignore[union-attr]
    assert got == letters(1)


def test_a_copy_of_the_process_gives_nothing_back(pair: tuple[Channel, Channel]) -> None:
    worker, child = pair
    got = pass_on(child, worker, *[letters(1)] * MOST)
    if not (pid := os.fork()):
        got.clear()
        os._exit(0)
    os.waitpid(pid, 0)
    worker.send([letters(2)])
    assert worker.unsent
    assert got == [letters(1)] * MOST


def test_without_descriptors_to_spare_it_is_copied(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, child = pair

    def refuse(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("executor.arena._Loan", refuse)
    for number in range(2 * MOST):
        worker.send([letters(number)])
        assert not worker.unsent  # its room is free again at once
        assert child.receive() == [[letters(number)]]


@pytest.mark.parametrize("spare", [0, 1])
def test_without_descriptors_nothing_is_left_behind(spare: int, capfd: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(Arena.SIZE)
        worker, child = Arena(file.fileno(), child=False), Arena(file.fileno(), child=True)
        at = worker.put(memoryview(letters(1)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = len(list(Path("/proc/self/fd").iterdir()))
        # The next descriptor is the first number that is free.
        lowest = os.dup(file.fileno())
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
        try:
            if spare:  # for one, where an arena needs two
                with pytest.raises(OSError, match="Too many open files"):
                    Arena(file.fileno(), child=False)
            else:
                assert child.get(at, LARGE) == letters(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.collect()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        worker.close()
        child.close()
    assert capfd.readouterr().err == ""
