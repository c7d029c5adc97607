"""What runs in a worker's child process: calls, one after the other, on the cores it is told.

The worker sends a batch of items in one frame and as many tokens through a pipe. The child takes a token
before each item; one that the worker took back first is not run, and the kernel decides who was first.
The worker always takes all that are left, and the tokens of later batches have another value, the epoch:
so a token never admits an item that was taken back.
Reports go back in frames of several, and meanwhile stand on the *board*, a piece of memory that the
worker shares: so it can always tell which item runs and since when, and no report is lost when the child
dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from executor import codec
from executor.arena import Arena
from executor.board import Batch, Board, Done, as_list
from executor.call import describe, function_executor, make_importable, set_argument
from executor.cgroup import Group
from executor.channel import Channel
from executor.errors import BadFrame, CannotTravel, UnknownFunction
from executor.messages import NIL, Buffer, Item, Report, rejected, share_out
from executor.task import Status

#: Seconds that reports may wait for company: short against a person's patience, long against a wake-up.
FLUSH_SECONDS = 0.002

#: Bytes kept of what a task printed: the last ones of its stdout, and of its stderr.
PRINTED_BYTES = 64 * 1024

#: Bytes of printed text that may pile up while a task runs, before its worker drops all but the end.
PRINTED_MOST = 1 << 20

#: Bytes up to which a child may grow in any case; beyond, to twice what it held after its first batch.
GROWN_LEAST = 512 << 20

#: A call that took less left no process or thread behind: to start one takes longer.
HARMLESS_SECONDS = 10e-6

#: Read by OpenMP and the BLAS libraries when they are loaded (and by NumExpr, Numba, Polars, Julia's BLAS).
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
)

#: Modules that make their threads when they are loaded, as many as the environment says, and for good.
FIXED_THREADS = frozenset({"numba", "numexpr", "polars"})


encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(Batch)


def main(descriptors: list[int], groups: Path | None) -> NoReturn:
    """Serve the worker until its end of the channel closes.

    `descriptors` are, in this order: the channel's socket, the tokens' pipe, the board, the arena, and the
    files that keep what tasks print to stdout and stderr. In the folder `groups`, if there is one, this
    process makes a cgroup of its own.
    """
    status = 1
    try:
        _Child(descriptors, groups).serve()
        status = 0
    except SystemExit as stop:  # a task called sys.exit: as it would have ended a script of its own
        if isinstance(stop.code, int):
            status = stop.code & 0xFF
        else:
            status = 0 if stop.code is None else 1
    except (OSError, KeyboardInterrupt):  # the worker is gone
        pass
    finally:
        with contextlib.suppress(BaseException):
            flush_printed()
        os._exit(status)


class _Child:
    """State of a child process between its tasks."""

    def __init__(self, descriptors: list[int], groups: Path | None) -> None:
        for descriptor in descriptors:  # not for what a task starts
            os.set_inheritable(descriptor, False)
        channel, self._tokens, board, arena, stdout, stderr = descriptors
        self._channel = Channel(socket.socket(fileno=channel), Arena(arena, child=True))
        os.close(arena)
        os.set_blocking(self._tokens, False)
        self._board = Board(board)
        os.close(board)
        self._printed = (stdout, stderr)
        self._direct_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a task must not fail over a character that it prints
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        make_importable(str(Path.cwd()))
        self._pid = os.getpid()
        self._group: Group | None = None
        if groups is not None:
            with contextlib.suppress(OSError):  # then its worker's watching must do
                group = Group(groups, self._pid)
                group.enter()
                self._group = group
        self._functions: dict[str, Callable[..., object]] = {}
        self._cores: tuple[int, ...] = ()
        self._mask: set[int] = set()
        self._width = 0
        self._threads = threading.active_count()
        self._token = -1  # a token that was read and not used
        self._spent = False  # a task left something behind: no other is run
        self._used = False  # a task ran here
        self._light = 0  # bytes held after the first batch, with its libraries loaded
        self._reports: list[bytes] = []
        self._buffers: list[Buffer] = []
        self._began: float | None = None  # when the first of these began, and the last ended
        self._ended: float | None = None
        self._first = 0
        self._sent_at = 0.0

    def serve(self) -> None:
        """Run batch after batch."""
        while (frames := self._channel.receive()) is not None:
            for frame in frames:
                batch = _batches.decode(frame[0])
                self._take_cores(batch.cores)
                buffers = share_out(batch.items, frame[1:])
                del frame[1:]  # each is let go of with its call, which need not wait for the next frame
                self._run(batch, buffers)

    def _run(self, batch: Batch, buffers: dict[int, list[Buffer]]) -> None:
        self._first = batch.first
        self._board.sent(batch.first)
        self._sent_at = time.time()
        cores = batch.cores
        for index, item in enumerate(batch.items):
            if self._spent or self._is_burdened(item.memory) or not self._admitted(batch.epoch):
                break
            self._come_back(batch.pin)
            now = time.time()
            self._board.begin(batch.first + index, time.monotonic(), now)
            if self._group is not None:
                self._group.bound(item.memory)
            report, out = self._call(item, buffers.pop(index, ()), cores, now)
            self._used = True
            self._keep(batch.first + index, report, out)
            if (report.finished or time.time()) - now > HARMLESS_SECONDS:
                self._direct_streams()
                self._spent = self._left_behind()
        self._flush(self._first + len(self._reports), last=True)

    def _come_back(self, pin: bool) -> None:
        """Go to the cores of this batch, and back to the folder, which the task before may have left."""
        os.fchdir(self._folder)
        if pin and sys.platform == "linux" and os.sched_getaffinity(0) != self._mask:
            pin_threads(self._cores)

    def _direct_streams(self) -> None:
        """Direct standard output and error to our files, whatever a task has put in their place."""
        os.dup2(self._printed[0], 1)
        os.dup2(self._printed[1], 2)

    def _take_printed(self) -> tuple[str, str]:
        """Return the end of what was printed to stdout and stderr since the last call, and forget it."""
        flush_printed()
        out, err = self._printed
        try:
            return read_printed(out), read_printed(err)
        except OSError:  # the task closed whatever was open
            return "", ""

    def _admitted(self, epoch: int) -> bool:
        """Take a token for an item of this epoch; False: the worker took the item back."""
        token = self._token
        if token < 0:
            try:
                token = os.read(self._tokens, 1)[0]
            except BlockingIOError:
                return False
        if token != epoch:  # it is for a later batch
            self._token = token
            return False
        self._token = -1
        return True

    def _call(
        self, item: Item, buffers: list[Buffer] | tuple[()], cores: tuple[int, ...], now: float
    ) -> tuple[Report, Sequence[Buffer]]:
        """Run one item; return its report and the large buffers of its value.

        It started at `now`: what it takes to import the function is its time, on its cores.
        """
        value = NIL
        out: Sequence[Buffer] = ()
        error: tuple[str, str, str] | None = None
        finished = now
        try:
            name, params, kwargs = codec.decode([item.call, *buffers])
            function = self._functions.get(name)
            if function is None:
                function, params, kwargs = set_argument(name, params, kwargs, parsed=True)
                self._functions[name] = function
            outcome = function_executor(function, params, kwargs)
            finished = outcome.finished
            if outcome.error is None:
                head, *out = codec.encode(outcome.value)
                value = msgspec.Raw(head)
            else:
                error = (outcome.error.type, outcome.error.message, outcome.error.traceback)
        except UnknownFunction as unknown:
            taken = self._take_printed()  # what the search for it imported may have printed
            return rejected(item, "UnknownFunction", str(unknown), *taken), ()
        except CannotTravel as cannot:
            error = ("CannotTravel", str(cannot), "")
        except BadFrame as bad:
            error = ("BadFrame", f"the call could not be read: {bad}", "")
        except Exception as failed:  # the import of the user's module raised
            text = describe(failed)
            finished = time.time()
            error = (text.type, text.message, text.traceback)
        if os.getpid() != self._pid:  # a copy that the task forked, and that came back from it
            os._exit(0)
        signal.alarm(0)  # one that it set, and left, would interrupt or kill whatever is called next
        status: Status = "ok" if error is None else "error"
        printed = self._take_printed()
        report = Report(
            item.place, item.attempt, status, value, len(out), error, cores, now, finished, *printed
        )
        return report, out

    def _keep(self, index: int, report: Report, buffers: Sequence[Buffer]) -> None:
        """Send a report, or let it wait a moment for others where the worker can see it."""
        try:
            encoded = encoder.encode(report)
        except UnicodeEncodeError:  # halves of characters, in an exception's message say
            if report.error is None:
                raise
            kind, message, trace = (text.encode(errors="backslashreplace").decode() for text in report.error)
            report.error = (kind, message, trace)
            encoded = encoder.encode(report)
        shown = not buffers and self._board.add(encoded)
        self._reports.append(encoded)
        self._buffers.extend(buffers)
        if report.started is not None:
            if self._began is None:
                self._began = report.started
            self._ended = report.finished
        if not shown or (report.finished or 0.0) - self._sent_at > FLUSH_SECONDS:
            self._flush(index + 1)

    def _flush(self, upto: int, *, last: bool = False) -> None:
        """Send the reports before the index `upto`; the last ones of a batch even if there are none."""
        if self._reports or last:
            worn = last and (self._spent or self._worn())
            count, reports = len(self._reports), as_list(self._reports)
            done = Done(self._first, count, last, worn, self._began, self._ended, reports)
            self._channel.send([encoder.encode(done), *self._buffers])
            self._board.sent(upto)
            self._reports, self._buffers, self._first = [], [], upto
            self._began = self._ended = None
            self._sent_at = time.time()

    def _worn(self) -> bool:
        """Whether this process should be replaced.

        A task left threads or processes behind, which end only with it, or it has grown: tasks that leak
        must not take the machine's memory in the long run.
        """
        held = resident_pages() * mmap.PAGESIZE
        if not self._light:
            self._light = max(held, GROWN_LEAST)
        elif held > 2 * self._light:
            return True
        return self._left_behind()

    def _is_burdened(self, limit: int | None) -> bool:
        """Whether earlier tasks left so much memory here that a task with a limit would be charged for it.

        Then it is for another process to run.
        """
        if limit is None or not self._used or resident_pages() * mmap.PAGESIZE < limit // 2:
            return False
        self._spent = True
        return True

    def _left_behind(self) -> bool:
        """Whether tasks left threads or processes behind, or streams that nobody can print to."""
        if threading.active_count() > self._threads:
            return True
        if any(stream is None or stream.closed for stream in (sys.stdout, sys.stderr)):
            return True
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def _take_cores(self, cores: tuple[int, ...]) -> None:
        """Give the numeric libraries as many threads as there are `cores`; `_come_back` pins them.

        Where that can't be any more, this process is spent.
        """
        if cores == self._cores:
            return
        first = not self._cores
        self._cores, self._mask = cores, set(cores)
        width = len(cores)
        if width != self._width:
            self._width = width
            for variable in THREAD_VARIABLES:
                os.environ[variable] = str(width)
            if not first:  # libraries that are loaded already don't read the environment again
                import threadpoolctl

                threadpoolctl.threadpool_limits(width)
                self._spent = not FIXED_THREADS.isdisjoint(sys.modules)


def pin_threads(cores: tuple[int, ...]) -> None:
    """Pin all threads of this process: those that a BLAS started earlier would keep their old mask."""
    if sys.platform != "linux":
        return
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - a hot path, and names are all it needs
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread), cores)


def resident_pages() -> int:
    """Return the resident size of this process in pages; 0 where the system does not tell (macOS)."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123 - once a batch
            return int(file.read(128).split()[1])
    except OSError:
        return 0


def flush_printed() -> None:
    """Write out what Python holds of standard output and error, if a task put buffers in their place."""
    for name, ours in (("stdout", sys.__stdout__), ("stderr", sys.__stderr__)):
        stream = getattr(sys, name)
        if stream is not ours:
            setattr(sys, name, ours)
            try:
                stream.flush()
            except Exception:  # closed, or not a stream at all: there is nothing to flush
                pass


def read_printed(file: int) -> str:
    """Return the last PRINTED_BYTES in a file of printed text, and empty it."""
    size = os.lseek(file, 0, os.SEEK_END)
    if not size:
        return ""
    if size > PRINTED_MOST:  # the worker may be about to drop what is now the beginning
        fcntl.lockf(file, fcntl.LOCK_EX)
    data = os.pread(file, PRINTED_BYTES, max(0, size - PRINTED_BYTES))
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    if size > PRINTED_MOST:
        fcntl.lockf(file, fcntl.LOCK_UN)
    return data.decode("utf-8", "replace")
