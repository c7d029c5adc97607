"""Frames over a stream socket."""

from __future__ import annotations

import resource
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.bounds import LARGEST_FRAME
from executor.channel import Channel
from executor.errors import BadFrame

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


@given(st.lists(st.lists(st.binary(max_size=50), max_size=5), min_size=1, max_size=30))
def test_many_small_frames_arrive_together(frames: list[list[bytes]]) -> None:
    here, there = pair()
    try:
        for frame in frames:
            here.send(frame)
        assert not here.unsent
        assert there.receive() == frames
        assert there.receive() == []
    finally:
        here.close()
        there.close()


def test_what_does_not_go_at_once_waits_for_its_turn() -> None:
    here, there = pair()
    here.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    parts = [bytes([number]) * 300_001 for number in range(4)]
    try:
        here.send([parts[0], b"", parts[1]])
        assert here.unsent
        here.send([b"in between"])
        here.send([parts[2], bytearray(parts[3]), b""])
        got: list[list[bytes]] = []
        while here.unsent or len(got) < 3:
            here.flush()
            received = there.receive()
            assert received is not None
            got += [[bytes(part) for part in frame] for frame in received]
        assert got == [[parts[0], b"", parts[1]], [b"in between"], [parts[2], parts[3], b""]]
    finally:
        here.close()
        there.close()


@pytest.mark.parametrize("repeats", [300, 20_000, 100_000])
def test_a_large_part_arrives_in_memory_of_its_own(repeats: int) -> None:
    here, there = pair()
    sent = bytes(range(256)) * repeats
    try:
        here.send([b"head", sent, b"tail"])
        frames: list[list[object]] = []
        while not frames:
            here.flush()
            frames += there.receive() or []
        (frame,) = frames
        assert frame == [b"head", sent, b"tail"]
        part = memoryview(frame[1])
        assert not part.readonly
        assert part.nbytes == len(part.obj)  # nothing else lies there
    finally:
        here.close()
        there.close()


def virtual_bytes() -> int:
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_a_part_takes_memory_as_its_bytes_come_and_not_as_it_says() -> None:
    ours, theirs = socket.socketpair()
    there = Channel(theirs)
    theirs.setblocking(False)
    before = virtual_bytes()
    try:
        ours.sendall(struct.pack("<IQ", 1, LARGEST_FRAME) + bytes(100_000))
        assert there.receive() == []
        assert virtual_bytes() - before < 64 << 20
    finally:
        ours.close()
        there.close()


@pytest.mark.parametrize("lengths", [[1001], [500, 501], [1] * 1001])
def test_a_frame_of_more_bytes_than_may_be_is_bad_before_they_come(lengths: list[int]) -> None:
    ours, theirs = socket.socketpair()
    there = Channel(theirs, most=1000)
    try:
        ours.sendall(struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths))
        with pytest.raises(BadFrame, match="a frame of 1,001 bytes"):
            there.receive()
    finally:
        ours.close()
        there.close()


@pytest.mark.parametrize("cut", [1, 4, 11, 12, 13, 100, 70_000, 100_000])
def test_a_stream_that_ends_within_a_frame_is_at_its_end(cut: int) -> None:
    ours, theirs = socket.socketpair()
    there = Channel(theirs)
    whole = struct.pack("<IQ", 1, 110_000) + bytes(110_000)
    try:
        ours.sendall(whole[:cut])
        ours.close()
        assert there.receive() is None
        assert there.receive() is None
    finally:
        there.close()


@given(st.lists(st.integers(1, 40_000), max_size=12))
def test_bytes_may_come_in_any_pieces(cuts: list[int]) -> None:
    frames = [[b"a" * 10, b""], [b"b" * 70_000], [], [b"c", b"d" * 20_000]]
    stream = b"".join(
        struct.pack("<I", len(frame))
        + b"".join(struct.pack("<Q", len(part)) for part in frame)
        + b"".join(frame)
        for frame in frames
    )
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    there = Channel(theirs)
    got: list[list[bytes]] = []
    try:
        for size in [*cuts, len(stream)]:
            ours.sendall(stream[:size])
            stream = stream[size:]
            received = there.receive()
            assert received is not None
            got += [[bytes(part) for part in frame] for frame in received]
        while len(got) < len(frames):
            got += there.receive() or []
        assert got == frames
    finally:
        ours.close()
        there.close()


def test_what_was_not_sent_is_dropped_at_the_close() -> None:
    here, there = pair()
    here.send([bytes(10_000_000)])
    assert here.unsent
    here.close()
    assert not here.unsent
    try:
        while (frames := there.receive()) is not None:
            assert frames == []
    finally:
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


def test_a_frame_goes_whole_though_signals_interrupt_it() -> None:
    """A send that a signal cuts short has sent a part: nobody would ever ask for the rest."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that it waits in the midst of it
    here, there = Channel(ours), Channel(theirs)
    main = threading.get_ident()
    came: list[list[list[bytes]] | None] = []

    def read() -> None:
        for _ in range(100):
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0.001)
        came.append(there.receive())

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        reader = threading.Thread(target=read)
        reader.start()
        here.send([b"x" * 60_000])
        ours.shutdown(socket.SHUT_WR)
        reader.join()
        assert came == [[[b"x" * 60_000]]]
    finally:
        signal.signal(signal.SIGUSR1, before)
        here.close()
        there.close()


def test_buffers_of_wider_items_are_sent_as_bytes() -> None:
    here, there = pair()
    try:
        wide = memoryview(bytearray(16)).cast("d")
        here.send([b"head", wide])
        here.send([wide])
        assert there.receive() == [[b"head", bytes(16)], [bytes(16)]]
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
