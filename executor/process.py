"""A child process as its worker sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence

from executor.arena import Arena
from executor.board import Batch, Board
from executor.cgroup import Group
from executor.channel import Channel
from executor.child import encoder
from executor.fence import fence
from executor.guardian import Guardian
from executor.line import Entry
from executor.messages import NIL, Buffer, Report
from executor.printed import PRINTED_BYTES, PRINTED_MOST, read_printed
from executor.task import MEMORY_LIMIT, Status
from executor.words import size

#: What a call ends as that is being killed for this reason.
STATUS_OF: dict[str | None, Status] = {
    "timeout": "timeout",
    "cancelled": "cancelled",
    "memory": "crashed",
    "foreign": "crashed",  # it sent what is none of ours
}


class Child:
    """A child process as the pool sees it."""

    def __init__(self, guardian: Guardian, slot: int) -> None:
        """Have the guardian make one.

        Raises:
            ConnectionError: the guardian is gone.
            OSError: the system has no more descriptors.
        """
        with contextlib.ExitStack() as made, contextlib.ExitStack() as lent:
            ours, theirs = socket.socketpair()
            made.callback(ours.close)
            lent.callback(theirs.close)
            ours.setblocking(False)
            self.stdout, self.stderr = (_memory_file(made, name) for name in ("stdout", "stderr"))
            board = _memory_file(lent, "board")
            for descriptor in (self.stdout, self.stderr):  # whoever writes to it writes at its end
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
            _fix(board, Board.SIZE)
            self.board = Board(board)
            made.callback(self.board.close)
            self.board.begin(-1, 0.0)
            arena = _memory_file(lent, "arena")
            _fix(arena, Arena.SIZE)
            shared = Arena(arena, child=False)
            made.callback(shared.close)
            self.channel = Channel(ours, shared)
            made.callback(self.channel.close)
            guardian.fork(slot, [theirs.fileno(), board, arena, self.stdout, self.stderr])
            self._made = made.pop_all()
        self.slot = slot
        self.run: str | None = None  # that it serves, from its first batch on
        self.pid = 0  # until the guardian says it
        self.group: Group | None = None  # that bounds its memory, where such a thing can be
        self.cores: tuple[int, ...] = ()  # that it has now; () when idle
        self.last_cores: tuple[int, ...] = ()
        self.entries: dict[int, Entry] = {}  # given and not reported, by index, in order
        self.batches = 0  # that have not ended
        self.peak = 0  # bytes that its present call was seen to hold
        self.weighed: Entry | None = None  # the call that this is about
        self.weigh_at = 0.0  # when to look again
        self.ending: str | None = None  # why it is being killed: the status that its call gets
        self.condemned: Sequence[Entry] = ()  # those of its entries that it is being killed for
        self.kill_with: int = signal.SIGTERM
        self.kill_at = 0.0  # when SIGTERM has had its time
        self.dead = False  # there is nothing more to be heard from it
        self.worn = False  # its tasks left something behind: it must be replaced
        self._given = 0  # entries ever, which is the index of the next
        self._kept = 0  # the index before which nothing waits any more
        self._ends: deque[int] = deque()  # of the batches that have not ended, the index behind each
        self._term = 0

    @property
    def busy(self) -> bool:
        """Whether it has cores."""
        return bool(self.cores)

    def unstarted(self) -> int:
        """How many of its entries have not begun."""
        # What the board says may be anything: the user's code could write there.
        most = len(self.entries)
        return max(0, min(most, self._given - max(self._kept, self.board.begun() + 1))) if most else 0

    def current(self) -> tuple[Entry, float, float] | None:
        """Return the entry that runs, and since when (monotonic and epoch seconds); None if none does."""
        index, since, epoch = self.board.running()
        entry = self.entries.get(index)
        return None if entry is None else (entry, since, epoch)

    def take_back(self) -> list[Entry]:
        """Take what has not begun away from the child; it can't begin any more."""
        if not self.unstarted():
            return []
        self._term += 1
        self.board.set_term(self._term)
        fence()
        count = self.unstarted()
        self._kept = self._given
        back = [self.entries.popitem()[1] for _ in range(count)]
        back.reverse()
        return back

    def end_batch(self) -> list[Entry]:
        """Take note that it is done with a batch; return what of it has no report.

        It had ended early, or said that a call begins and then saw that it was to begin no more.
        """
        self.batches -= 1
        end = self._ends.popleft()
        self._kept = max(self._kept, end)
        back: list[Entry] = []
        while self.entries and (index := next(iter(self.entries))) < end:
            back.append(self.entries.pop(index))
        return back

    def send(self, entries: list[Entry], cores: tuple[int, ...], *, pin: bool, linger: float) -> None:
        """Give it a batch, to run when it is done with what it has; `cores` change only when it is idle.

        While it has more to run, reports wait up to `linger` seconds for others.
        """
        self.run = entries[0].run
        self.cores = self.last_cores = cores
        self.batches += 1
        first = self._given
        self._given += len(entries)
        self._ends.append(self._given)
        self.entries.update(enumerate(entries, first))
        batch = Batch(first, self._term, cores, pin, linger, [entry.item for entry in entries])
        frame: list[Buffer] = [encoder.encode(batch)]
        for entry in entries:
            frame.extend(entry.buffers)
        self.channel.send(frame)

    def obituary(
        self, entry: Entry, began: tuple[float, float] | None, status: int, *, starved: bool | None = False
    ) -> Report:
        """Return the report of a call that this process did not survive.

        It `began` then, on the monotonic clock and in epoch seconds; None if it did not. `status` is how
        the process ended, and `starved` as in `death_in_words`.
        """
        item = entry.item
        kind: Status = "crashed"
        name, text = "Crashed", death_in_words(status, starved=starved)
        epoch = None if began is None else began[1]
        if entry in self.condemned:
            kind = STATUS_OF[self.ending]
            name, text = self.sentence(entry, 0.0 if began is None else time.monotonic() - began[0])
        return Report(
            item.place,
            item.attempt,
            kind,
            NIL,
            error=(name, text, ""),
            cores=self.cores,
            started=epoch,
            finished=None if epoch is None else time.time(),
            stdout=read_printed(self.stdout),
            stderr=read_printed(self.stderr),
        )

    def sentence(self, entry: Entry, had: float) -> tuple[str, str]:
        """Return the error's type and message of one of the `condemned`, which ran for `had` seconds."""
        if self.ending == "foreign":
            return "Crashed", "killed because its process sent its worker what is no report"
        if self.ending == "memory":
            held, limit = size(self.peak), size(entry.item.memory or 0)
            return MEMORY_LIMIT, f"killed because it held {held}; its limit is {limit}"
        if self.ending == "timeout":
            # No more digits than make a difference: a summary groups failures by their messages.
            text = f"{had:.1f}" if had >= 1 else f"{had:.1g}"
            return "Timeout", f"killed after {text} s; its timeout is {entry.item.timeout:g} s"
        return "Cancelled", "killed because its run was cancelled"

    def convict(self) -> None:
        """Take note, when it is dead, if the kernel killed it for the memory of its present call."""
        current = self.current()
        if current is None or self.group is None or not self.group.exceeded():
            return
        self.ending, self.condemned = "memory", (current[0],)
        self.peak = current[0].item.memory or 0  # it never got more

    def bound_printed(self) -> bool:
        """Let go of what its call printed but for the end, if that is much; return whether it is."""
        much = False
        for file in (self.stdout, self.stderr):
            if os.fstat(file).st_blocks * 512 <= PRINTED_MOST:
                continue
            much = True
            with contextlib.suppress(BlockingIOError):  # its call has ended, and it empties the file itself
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                forget(file, os.fstat(file).st_size - PRINTED_BYTES)
                fcntl.lockf(file, fcntl.LOCK_UN)
        return much

    def close(self) -> None:
        """Let go of what was shared with it, when it is dead."""
        self._made.close()
        if self.group is not None:
            self.group.remove()


def death_in_words(status: int, *, starved: bool | None = False) -> str:
    """Say how a process ended, from its exit status (negative: the signal).

    `starved` is whether the kernel killed for want of memory at that time; None if nobody knows.
    """
    if status >= 0:
        return f"its process exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    text = f"its process was killed by signal {-status} ({name})"
    if -status == signal.SIGKILL and starved is not False:
        text += ", probably out of memory"
    return text


def _memory_file(made: contextlib.ExitStack, name: str) -> int:
    """Return a descriptor of an unnamed file in memory, which `made` closes."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    made.callback(os.close, descriptor)
    return descriptor


def _fix(descriptor: int, size: int) -> None:
    """Give a file in memory its size, for good where the system can see to that.

    Else a task that truncates it would take its worker's pages away, and the worker die of its next look.
    """
    os.ftruncate(descriptor, size)
    if hasattr(fcntl, "F_ADD_SEALS"):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)


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
