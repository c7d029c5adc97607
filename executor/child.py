"""What runs in a worker's child process: calls, one after the other, on the cores it is told.

The worker sends a batch of items in one frame. Before each item the child says on the *board*, a piece of
memory that it shares with the worker, that it begins, and looks there whether it still may: what the worker
took back is not run. Reports go back in frames of several, and meanwhile stand on the board: so the worker
can always tell which item runs and since when, and no report is lost when the child dies.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from executor import codec, fence
from executor.allow import Allowed
from executor.arena import Arena
from executor.board import Batch, Board, Done, as_list
from executor.bounds import LARGEST
from executor.call import attempt, describe, make_importable, resolve
from executor.cgroup import Group
from executor.channel import Channel
from executor.errors import BadFrame, CannotTravel, NotAllowed, UnknownFunction
from executor.messages import NIL, Buffer, Item, Report, rejected, share_out, too_large
from executor.printed import flush_printed, take_printed
from executor.surroundings import HARMLESS_SECONDS, Surroundings

#: Bytes up to which a child may grow in any case; beyond, to twice what it held after its first batch.
GROWN_LEAST = 512 << 20

encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(Batch)


def main(descriptors: list[int], groups: Path | None, allow: Sequence[str] | None = None) -> NoReturn:
    """Serve the worker until its end of the channel closes.

    `descriptors` are, in this order: the channel's socket, the board, the arena, and the files that keep what
    tasks print to stdout and stderr. In the folder `groups`, if there is one, this process makes a cgroup of
    its own. Only functions that match the patterns `allow` are run; None: any.
    """
    status = 1
    try:
        _Child(descriptors, groups, allow).serve()
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

    def __init__(self, descriptors: list[int], groups: Path | None, allow: Sequence[str] | None) -> None:
        for descriptor in descriptors:  # not for what a task starts
            os.set_inheritable(descriptor, False)
        channel, board, arena, stdout, stderr = descriptors
        # What its worker sends has been looked at, and may be several of the largest calls.
        self._channel = Channel(socket.socket(fileno=channel), Arena(arena, child=True), most=sys.maxsize)
        os.close(arena)
        self._board = Board(board)
        os.close(board)
        fence.register()
        self._printed = (stdout, stderr)
        self._surroundings = Surroundings(stdout, stderr)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a task must not fail over a character that it prints
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        make_importable(str(Path.cwd()))
        self._group: Group | None = None
        if groups is not None:
            with contextlib.suppress(OSError):  # then its worker's watching must do
                group = Group(groups, os.getpid())
                group.enter()
                self._group = group
        self._find = resolve if allow is None else Allowed(allow).find
        self._functions: dict[str, Callable[..., object]] = {}
        self._cores: tuple[int, ...] = ()
        self._offset = 0.0  # seconds that the epoch's clock is ahead of the monotonic one
        self._spent = False  # a task left something behind: no other is run
        self._used = False  # a task ran here
        self._light = 0  # bytes held after the first batch, with its libraries loaded
        self._first = 0  # index of the first of the reports on the board
        self._began = self._ended = 0.0  # when the first of these began, and the last ended
        self._batches = 0  # that ended since the last frame
        self._sent_at = 0.0  # monotonic seconds, as all times in here

    def serve(self) -> None:
        """Run batch after batch."""
        while (frames := self._receive()) is not None:
            for frame in frames:
                batch = _batches.decode(frame[0])
                self._cores = batch.cores
                if not self._surroundings.take_cores(batch.cores, batch.pin):
                    self._spent = True
                buffers = share_out(batch.items, frame[1:]) if len(frame) > 1 else {}
                del frame[1:]  # each is let go of with its call, which need not wait for the next frame
                self._run(batch, buffers)

    def _receive(self) -> list[list[Buffer]] | None:
        """Return the frames that have come; what is to be said is said before they are waited for."""
        if not self._channel.ready():
            self._rest()
        return self._channel.receive()

    def _run(self, batch: Batch, buffers: dict[int, list[Buffer]]) -> None:
        board, surroundings, monotonic = self._board, self._surroundings, time.monotonic
        # One look at the epoch's clock for all: when somebody sets it, durations stay right.
        self._offset = time.time() - monotonic()
        board.set_clock(self._offset)
        if not board.count:  # else they stand right before those that come now
            self._forget(batch.first)
        for index, item in enumerate(batch.items, batch.first):
            if self._spent or (item.memory is not None and self._is_burdened(item.memory)):
                break
            if surroundings.disturbed:
                surroundings.restore()
            began = monotonic()
            if not board.begin(index, began, batch.term):
                break
            if self._group is not None:
                self._group.bound(item.memory)
            report, large, finished = self._call(item, buffers.pop(index - batch.first, ()), began)
            self._used = True
            if large or not self._show(report):
                self._flush()
                self._send(1, as_list(1, report), began, finished, large)
            else:
                if board.count == 1:
                    self._began = began
                self._ended = finished
                if finished - self._sent_at <= batch.linger:
                    continue
                self._flush()
            if self._has_grown():  # it may have calls without end, and never rest
                self._spent = True
        else:
            self._batches += 1
            if monotonic() - self._sent_at > batch.linger:
                self._rest()
            return
        self._batches += 1
        self._flush()  # indices of the next batch don't follow those of the last report

    def _show(self, report: bytes) -> bool:
        """Put a report on the board, once what stands there has been sent if need be; False: too large."""
        if self._board.add(report):
            return True
        self._flush()
        return self._board.add(report)

    def _call(
        self, item: Item, given: Sequence[Buffer], began: float
    ) -> tuple[bytes, Sequence[Buffer], float]:
        """Run one item, which `began` then: what it takes to import the function is its time, on its cores.

        Return its report, encoded, the large buffers of its value, and when it ended.
        """
        value: Any = NIL
        large: Sequence[Buffer] = ()
        error: tuple[str, str, str] | None = None
        never: UnknownFunction | NotAllowed | None = None
        try:
            name, params, kwargs = codec.decode_call(item.call, given)
            function = self._functions.get(name)
            if function is None:
                function = self._functions[name] = self._find(name)
        except (UnknownFunction, NotAllowed) as failed:
            finished = seen = time.monotonic()
            never = failed
        except BadFrame as bad:
            finished = seen = time.monotonic()
            error = "BadFrame", f"the call could not be read: {bad}", ""
        except Exception as failed:  # the import of the user's module raised
            finished = time.monotonic()
            value, large, error = _packed(None, failed)
            seen = time.monotonic()
        else:
            result, raised = attempt(function, params, kwargs)
            finished = seen = time.monotonic()
            if raised is None and type(result) in codec.SCALARS:  # it becomes a part of the report as it is
                value = result
            else:
                value, large, error = _packed(result, raised)
                seen = time.monotonic()  # that may have run code of the user's
        took = seen - began
        if took > HARMLESS_SECONDS or seen > self._surroundings.look_at:
            self._surroundings.look(seen, took)
        stdout, stderr = take_printed(*self._printed)
        if took > HARMLESS_SECONDS and self._surroundings.left_behind():
            self._spent = True
        if never is not None:
            refusal = rejected(item, type(never).__name__, str(never), stdout, stderr)
            return encoder.encode(refusal), (), finished
        report = Report(
            item.place,
            item.attempt,
            "ok" if error is None else "error",
            value,
            len(large),
            error,
            self._cores,
            began + self._offset,
            finished + self._offset,
            stdout,
            stderr,
        )
        try:
            return encoder.encode(report), large, finished
        except (OverflowError, UnicodeEncodeError, msgspec.EncodeError):  # 2**64, halves of characters, 4 GB
            if report.error is None:
                report.value, _, report.error = _packed(value, None)
                report.status = "ok" if report.error is None else "error"
            else:
                kind, said, trace = (text.encode(errors="backslashreplace").decode() for text in report.error)
                report.error = kind, said, trace
            return encoder.encode(report), large, finished

    def _rest(self) -> None:
        """Say all that is to be said; then, as nobody needs to wait for this, put all back in its place."""
        self._flush()
        self._surroundings.restore()
        if self._used and not self._spent and self._is_worn():
            self._spent = True
            self._send(0, as_list(0, b""), None, None)

    def _flush(self) -> None:
        """Send what stands on the board, and which batches have ended, if there is anything to tell."""
        count = self._board.count
        if count:
            self._send(count, self._board.shown(), self._began, self._ended)
        elif self._batches:
            self._send(0, as_list(0, b""), None, None)

    def _send(
        self,
        count: int,
        reports: msgspec.Raw,
        began: float | None,
        ended: float | None,
        large: Sequence[Buffer] = (),
    ) -> None:
        """Send `count` reports, the next ones in order, and forget them."""
        if began is not None and ended is not None:
            began, ended = began + self._offset, ended + self._offset
        done = Done(self._first, count, self._batches, self._spent, began, ended, reports)
        self._channel.send([encoder.encode(done), *large])
        self._batches = 0
        self._forget(self._first + count)

    def _forget(self, upto: int) -> None:
        """All before this index has been sent: its report will be the first on the board."""
        self._first = upto
        self._board.sent(upto)
        self._sent_at = time.monotonic()

    def _is_worn(self) -> bool:
        """Whether this process should be replaced.

        A task left threads or processes behind, which end only with it, or it has grown.
        """
        return self._has_grown() or self._surroundings.left_behind()

    def _has_grown(self) -> bool:
        """Whether tasks that leak would take the machine's memory here in the long run."""
        held = resident_pages() * mmap.PAGESIZE
        if not self._light:
            self._light = max(held, GROWN_LEAST)
        return held > 2 * self._light

    def _is_burdened(self, limit: int) -> bool:
        """Whether earlier tasks left so much memory here that a task with a limit would be charged for it.

        Then it is for another process to run.
        """
        if not self._used or resident_pages() * mmap.PAGESIZE < limit // 2:
            return False
        self._spent = True
        return True


def _packed(
    result: object, raised: BaseException | None
) -> tuple[msgspec.Raw, Sequence[Buffer], tuple[str, str, str] | None]:
    """Return what a report says of a result, or of what was `raised`: value, large buffers and error."""
    if raised is not None:
        text = describe(raised)
        return NIL, (), (text.type, text.message, text.traceback)
    try:
        head, *large = codec.encode(result)
        if (size := len(head) + sum(map(len, large))) > LARGEST:
            raise CannotTravel(too_large("the result", size, LARGEST, "the most"))
    except CannotTravel as cannot:
        return NIL, (), ("CannotTravel", str(cannot), "")
    return msgspec.Raw(head), large, None


def resident_pages() -> int:
    """Return the resident size of this process in pages; 0 where the system does not tell (macOS)."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:  # noqa: PTH123 - once a batch
            return int(file.read(128).split()[1])
    except OSError:
        return 0
