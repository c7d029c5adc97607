"""Frames over a stream socket."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.channel import Channel

SIZES = st.one_of(st.integers(0, 300), st.integers(60_000, 70_000), st.just(1 << 20))


def pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return Channel(ours), Channel(theirs)


@given(st.lists(st.lists(SIZES, min_size=1, max_size=4), min_size=1, max_size=6))
def test_frames_arrive_whole_and_in_order(shapes: list[list[int]]) -> None:
    here, there = pair()
    try:
        frames = [[bytes([i % 251]) * size for i, size in enumerate(shape)] for shape in shapes]
        got: list[list[bytes]] = []
        for frame in frames:
            here.send(frame)
        while len(got) < len(frames):
            here.flush()
            received = there.receive()
            assert received is not None
            got += [[bytes(part) for part in frame] for frame in received]
        assert got == frames
        assert not here.unsent
    finally:
        here.close()
        there.close()


def test_a_blocking_end_waits_for_a_frame() -> None:
    here, there = pair()
    there.sock.setblocking(True)
    try:
        sender = threading.Thread(target=here.send, args=([b"abc"],))
        sender.start()
        assert there.receive() == [[b"abc"]]
        sender.join()
    finally:
        here.close()
        there.close()


def test_buffers_of_wider_items_are_sent_as_bytes() -> None:
    here, there = pair()
    try:
        here.send([b"head", memoryview(bytearray(16)).cast("d")])
        assert there.receive() == [[b"head", bytes(16)]]
    finally:
        here.close()
        there.close()


def test_the_end_of_the_stream() -> None:
    here, there = pair()
    here.send([b"last"])
    here.close()
    try:
        assert there.receive() == [[b"last"]]
        assert there.receive() is None
        with pytest.raises(OSError, match="Broken pipe"):
            there.send([b"x" * 100_000])
    finally:
        there.close()
