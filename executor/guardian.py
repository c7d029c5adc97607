"""The guardian: a small process of each worker that makes its children and sees to it that they end.

It is a fork server of our own. It has one thread, loads neither NumPy nor a wire, and therefore forks
safely and in about a millisecond; and it is the parent and subreaper of all that tasks start, so that it
can end them whatever they did. It ends everything when a child's time has come, and when the worker is
gone, however that died: then its control socket reads end-of-file.

Worker and guardian exchange fixed-size records over a stream socket:

    FORK slot        (with the child's descriptors)  ->  FORKED slot pid, or minus errno
    SIGNAL pid number, to the child's process group
                                                         DIED pid status, after all of its descendants

What a child leaves behind is killed when it dies. But after SIGTERM, which ends a Python that does not
handle it at once, the rest of its process group has until SIGKILL comes: so a program that the task waited
for can put its things in order.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from executor.beginning import Begun, spawn
from executor.memory import children_of

FORK, SIGNAL, FORKED, DIED = range(1, 5)

#: (what, first number, second number)
_RECORD = struct.Struct("<iqq")

#: Of the settings, in JSON, that come before all records.
_LENGTH = struct.Struct("<I")

#: linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: Added to a child's badness when the kernel must kill for want of memory, in thousandths of the memory that
#: there is: rather a task, which is one result, than its worker, or the dispatcher with everybody's results.
_OOM_SCORE = 500

#: Seconds to wait for what a dead child left behind to die of SIGKILL. Usually it takes one millisecond; what
#: waits in the kernel for a dead file server may take for ever, and must not keep the cores that long.
_LINGER_SECONDS = 1.0

#: Seconds to wait likewise for the guardian itself, when the worker ends.
_FAREWELL_SECONDS = 10.0


class Guardian:
    """The worker's end: starts the process and speaks to it. Not for use by several threads."""

    def __init__(
        self,
        groups: Path | None = None,
        allow: Sequence[str] | None = None,
        *,
        widest: int = 1,
        begun: Begun | None = None,
    ) -> None:
        """Start it, or go on with one that has `begun`; its children have cgroups of their own in `groups`.

        They run only functions that match the patterns `allow` (None: any), on up to `widest` cores.
        """
        # Whoever uses this may have children of its own, which are none of ours to end.
        self._others = frozenset(children_of(os.getpid()) if sys.platform == "linux" else ())
        self.sock, self._process = begun or spawn()
        self._inbox = b""
        settings = json.dumps([None if groups is None else str(groups), allow, widest]).encode()
        with contextlib.suppress(OSError):  # it is gone already, which is heard next
            self.sock.sendall(_LENGTH.pack(len(settings)) + settings)
        # If the guardian is killed, what it looked after comes to this process, which then ends it.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def fork(self, slot: int, descriptors: list[int]) -> None:
        """Ask for a new child that owns `descriptors`; FORKED with `slot` answers.

        Raises:
            ConnectionError: the guardian is gone.
        """
        if self.sock.fileno() < 0:  # and no other could be made
            raise ConnectionError("closed")
        socket.send_fds(self.sock, [_RECORD.pack(FORK, slot, 0)], descriptors)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to the process group of the child `pid`, if it lives.

        Raises:
            OSError: the guardian is gone.
        """
        self.sock.sendall(_RECORD.pack(SIGNAL, pid, number))

    def receive(self) -> list[tuple[int, int, int]] | None:
        """Return the records that came, at least one; None when the guardian is gone."""
        try:
            data = self.sock.recv(_RECORD.size * 256)
        except OSError:  # as at the end of its stream
            return None
        if not data:
            return None
        self._inbox += data
        whole = len(self._inbox) // _RECORD.size * _RECORD.size
        records = list(_RECORD.iter_unpack(self._inbox[:whole]))
        self._inbox = self._inbox[whole:]
        return records

    def close(self) -> None:
        """End all children and the guardian itself, and wait for that, but not for ever.

        It does so itself, unless somebody killed it: then its descendants are this process's.
        """
        self.sock.close()
        try:
            self._process.wait(_FAREWELL_SECONDS)
        except subprocess.TimeoutExpired:  # it goes on alone, and ends when the last of them is dead
            return
        deadline = time.monotonic() + _LINGER_SECONDS
        # A death may bring others.
        while (left := _strangers() - self._others) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(OSError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.001)


def _strangers() -> set[int]:
    """Return the children of this process in other sessions than its own, such as a guardian's."""
    found = set()
    for pid in children_of(os.getpid()) if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if os.getsid(pid) != os.getsid(0):
                found.add(pid)
    return found


def main(control: socket.socket) -> NoReturn:
    """Serve the worker at the other end of a socket, until it is gone."""
    # Loaded once here, shared by every child that is forked.
    from executor import child, surroundings

    # Collections in the children, and here, need not look at what is here, nor copy its pages. None goes
    # before it either: that would copy all that is shared with the worker, and find next to nothing.
    gc.freeze()
    settings = _receive_exactly(control, *_LENGTH.unpack(_receive_exactly(control, _LENGTH.size)))
    folder, allow, widest = json.loads(settings)
    groups = None if folder is None else Path(folder)
    if widest > 1:
        surroundings.load()
    gc.freeze()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker alone decides when this ends
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    nursery = _Nursery(control)
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    while True:
        poll.register(control, select.POLLIN | select.POLLOUT if nursery.untold else select.POLLIN)
        ready = dict(poll.poll(nursery.patience()))
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):  # it is empty by now
                os.read(wake_read, 4096)
        nursery.bury()
        nursery.tell()
        if ready.get(control.fileno(), 0) & ~select.POLLOUT:
            try:
                data, descriptors, _, _ = socket.recv_fds(control, _RECORD.size, 8)
                while data and len(data) < _RECORD.size:
                    data += control.recv(_RECORD.size - len(data))
            except OSError:  # the worker is gone, as at the end of its stream
                data = b""
            if not data:
                nursery.end_all()
                os._exit(0)
            what, first, second = _RECORD.unpack(data)
            if what == FORK:
                if nursery.fork(first, descriptors) == 0:
                    signal.set_wakeup_fd(-1)
                    for descriptor in (control.fileno(), wake_read, wake_write):
                        os.close(descriptor)
                    child.main(descriptors, groups, allow)
            elif what == SIGNAL:
                nursery.signal(first, second)


def _receive_exactly(control: socket.socket, size: int) -> bytes:
    """Return the next `size` bytes and take no more, as descriptors may come with what follows.

    If the worker is gone this process ends: it has no children yet.
    """
    data = b""
    while len(data) < size:
        try:
            more = control.recv(size - len(data))
        except OSError:  # it is gone, as at the end of its stream
            more = b""
        if not more:
            os._exit(0)
        data += more
    return data


class _Nursery:
    """The children that live, and those that died and have not been told yet, in the guardian's process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pids: set[int] = set()
        self._dead: dict[int, tuple[int, float]] = {}  # exit status, and since when its rest is to be dead
        self._warned: set[int] = set()  # whose group had SIGTERM and may take its time until SIGKILL comes
        self._own_pid = os.getpid()
        self._untold = bytearray()  # records that the worker has not taken yet

    @property
    def untold(self) -> bool:
        """Whether `tell` has more to tell as soon as the worker reads."""
        return bool(self._untold)

    def patience(self) -> float | None:
        """Return after how many milliseconds `bury` must be called even if nobody dies."""
        return 100.0 if self._dead else None

    def fork(self, slot: int, descriptors: list[int]) -> int:
        """Fork; return 0 in the child, which then leads a process group of its own."""
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or too little memory
            pid = -(error.errno or 1)
        if pid == 0:
            os.setpgid(0, 0)
            # Each child adopts what its own descendants abandon, so that they stay below it.
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._own_pid:  # it died before prctl took effect
                os._exit(0)
            _be_chosen_first()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            return 0
        if pid > 0:
            with contextlib.suppress(
                OSError
            ):  # whichever of the two comes first; the child may be gone already
                os.setpgid(pid, pid)
            self._pids.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        self._note(FORKED, slot, pid)
        return pid

    def signal(self, pid: int, number: int) -> None:
        """Signal a child's process group; nothing happens if all of it is dead already."""
        if pid in self._dead:
            self._dead[pid] = (self._dead[pid][0], time.monotonic())
        elif pid not in self._pids:
            return
        (self._warned.discard if number == signal.SIGKILL else self._warned.add)(pid)
        self._signal_group(pid, number)
        if number == signal.SIGKILL and pid in self._pids:  # a task may have put it into another group
            os.kill(pid, number)

    def _signal_group(self, pid: int, number: int) -> None:
        # While a group has members, the kernel gives its number to nobody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)

    def bury(self) -> None:
        """Take note of the dead, end what they left behind, and tell the worker of those that left none."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._pids:
                self._pids.discard(pid)
                self._dead[pid] = (os.waitstatus_to_exitcode(status), time.monotonic())
                if pid not in self._warned:
                    self._signal_group(pid, signal.SIGKILL)
        if not self._dead:
            return
        waiting, dying = self._end_orphans()
        for pid, (status, since) in list(self._dead.items()):
            if pid in waiting or (dying and time.monotonic() - since < _LINGER_SECONDS):
                continue
            del self._dead[pid]
            self._warned.discard(pid)
            self._note(DIED, pid, status)

    def _end_orphans(self) -> tuple[set[int], bool]:
        """Kill what dead children left to this process, their sessions of their own included.

        Return which groups may take their time, and were let live; and whether anything was killed, whose
        deaths are still to come and may bring others.
        """
        waiting: set[int] = set()
        dying = False
        for pid in children_of(self._own_pid):
            if pid in self._pids:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                group = os.getpgid(pid)
                if group in self._dead and group in self._warned:
                    waiting.add(group)
                else:
                    dying = True
                    os.kill(pid, signal.SIGKILL)
        return waiting, dying

    def end_all(self) -> None:
        """Kill every descendant, and return when none is left."""
        for pid in (*self._pids, *self._dead):
            self._signal_group(pid, signal.SIGKILL)
        self._pids.clear()
        self._dead.clear()
        while True:  # each death may hand us orphans; killed in turn, until there is nobody
            self._end_orphans()
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return

    def _note(self, what: int, first: int, second: int) -> None:
        self._untold += _RECORD.pack(what, first, second)
        self.tell()

    def tell(self) -> None:
        """Tell the worker what happened, as far as that goes without waiting.

        A worker of many hundreds of cores asks for as many children before it reads an answer, and would
        wait for us while we wait for it: a socket holds no more than a few hundred records.
        """
        try:
            sent = self._control.send(self._untold, socket.MSG_DONTWAIT) if self._untold else 0
            del self._untold[:sent]
        except BlockingIOError:
            pass
        except OSError:  # the worker is gone: the main loop reads that next
            self._untold.clear()


def _be_chosen_first() -> None:
    """Let the kernel choose this process before the worker, should it have to kill for want of memory."""
    try:
        with open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:  # noqa: PTH123 - once a child
            if int(file.read(16)) < _OOM_SCORE:
                file.write(b"%d" % _OOM_SCORE)
    except (OSError, ValueError):  # not Linux, or a sandbox that has no such thing
        pass


def _prctl(option: int, value: int) -> None:
    """Call prctl(2); without it (macOS) process groups and end-of-file on the pipes must do."""
    if sys.platform == "linux":
        import ctypes  # 10 ms that the worker itself need not spend

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
