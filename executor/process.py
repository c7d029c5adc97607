"""A child process as its worker sees it."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence

from executor.board import Batch, Board
from executor.channel import Channel
from executor.child import PRINTED_BYTES, encoder
from executor.guardian import Guardian
from executor.messages import Buffer, Item

#: Bytes of printed text that may pile up before all but the end is dropped.
_PRINTED_MOST = 1 << 20

#: Calls in one batch at most; so many tokens fit into a pipe on every system.
BATCH_MOST = 512


class Entry:
    """An item in the pool; entries of one run are ordered by place."""

    __slots__ = ("buffers", "item", "run", "stillborn")

    def __init__(self, run: str, item: Item, buffers: Sequence[Buffer]) -> None:
        self.run = run
        self.item = item
        self.buffers = buffers
        self.stillborn = 0


class Child:
    """A child process as the pool sees it."""

    def __init__(self, guardian: Guardian, slot: int, generation: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.tokens_read, self.tokens = os.pipe()
        os.set_blocking(self.tokens_read, False)
        board, self.stdout, self.stderr = (_memory_file(name) for name in ("board", "stdout", "stderr"))
        os.ftruncate(board, Board.SIZE)
        self.board = Board(board)
        try:
            guardian.fork(slot, [theirs.fileno(), self.tokens_read, board, self.stdout, self.stderr])
        finally:
            os.close(board)
            theirs.close()
        self.channel = Channel(ours)
        self.slot = slot
        self.generation = generation
        self.pid = 0  # until the guardian says it
        self.cores: tuple[int, ...] = ()  # of the present batch; () when idle
        self.last_cores: tuple[int, ...] = ()
        self.batch: list[Entry] = []
        self.received = 0  # reports of the present batch that came
        self.peak = 0  # bytes that its present call was seen to hold
        self.ending: str | None = None  # why it is being killed: the status that its call gets
        self.kill_at = 0.0  # when SIGTERM has had its time
        self.dead = False

    @property
    def busy(self) -> bool:
        """Whether it has a batch."""
        return bool(self.cores)

    def unstarted(self) -> int:
        """How many items of the batch have not begun."""
        return len(self.batch) - 1 - self.board.running()[0] if self.batch else 0

    def take_back(self) -> list[Entry]:
        """Take what has not begun away from the child; it can't begin any more."""
        try:
            count = len(os.read(self.tokens_read, BATCH_MOST))
        except BlockingIOError:
            return []
        at = len(self.batch) - count
        back = self.batch[at:]
        del self.batch[at:]
        return back

    def send(self, entries: list[Entry], cores: tuple[int, ...], *, pin: bool) -> None:
        """Start a batch."""
        self.batch, self.cores, self.last_cores, self.received, self.peak = entries, cores, cores, 0, 0
        self.board.begin(-1, 0.0, 0.0)  # the child is idle: nobody else writes
        os.write(self.tokens, bytes(len(entries)))
        frame: list[Buffer] = [encoder.encode(Batch(cores, pin, [entry.item for entry in entries]))]
        for entry in entries:
            frame.extend(entry.buffers)
        self.channel.send(frame)

    def bound_printed(self) -> None:
        """Let go of what its call printed but for the end, if that is much."""
        for descriptor in (self.stdout, self.stderr):
            info = os.fstat(descriptor)
            if info.st_blocks * 512 > _PRINTED_MOST:
                forget(descriptor, info.st_size - PRINTED_BYTES)

    def close(self) -> None:
        """Let go of what was shared with it."""
        self.channel.close()
        self.board.close()
        for descriptor in (self.tokens, self.tokens_read, self.stdout, self.stderr):
            os.close(descriptor)


def death_in_words(status: int, *, ours: bool = False) -> str:
    """Say how a process ended, from its exit status (negative: the signal)."""
    if status >= 0:
        return f"its process exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    text = f"its process was killed by signal {-status} ({name})"
    if -status == signal.SIGKILL and not ours:
        text += ", probably out of memory"
    return text


def _memory_file(name: str) -> int:
    """Return a descriptor of an unnamed file in memory."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


#: linux/falloc.h: free the blocks of a part of a file and keep its size.
_PUNCH_HOLE = 0x02 | 0x01


def forget(descriptor: int, length: int) -> None:
    """Free the memory of the first `length` bytes of a file, which then read as zeros.

    Whoever writes to it goes on where it was. Elsewhere than on Linux nothing happens.
    """
    if sys.platform == "linux":
        import ctypes  # few tasks print so much

        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate(descriptor, _PUNCH_HOLE, ctypes.c_longlong(0), ctypes.c_longlong(length))
