"""How a worker's guardian begins: forked from the worker at its start, or spawned, a Python of its own.

What is forked need not start a Python and load once more what the worker has, which is a third of all that
is computed until a worker's first call begins. It can be done only as long as the worker has one thread,
and has loaded no wire and no keys. When a guardian was killed, another is spawned. Calls find the same around
them either way.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn, Protocol

from executor import cgroup

#: Seconds between two looks whether it has ended.
_LOOK_SECONDS = 0.001

_ROOT = Path(__file__).resolve().parent.parent

#: stdio.h
_UNBUFFERED = 2


class Process(Protocol):
    """A guardian's process, as far as its worker needs it."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status.

        Raises:
            subprocess.TimeoutExpired: it still lives after so many seconds.
        """


class Begun(NamedTuple):
    """A guardian that has been started, and waits at the other end of a socket for its settings."""

    sock: socket.socket
    process: Process


def spawn() -> Begun:
    """Start a guardian as a Python of its own."""
    ours, theirs = socket.socketpair()
    program = (
        f"import sys; sys.path[:0] = [{str(_ROOT)!r}]; from executor import beginning, guardian; "
        "guardian.main(beginning.inherited(sys.argv.pop()))"
    )
    # -P: the folder one stands in must not shadow our own modules; the children add it themselves.
    # -u: what a task prints, in Python or in C, is written at once and so never in its neighbour's name.
    # A session of its own keeps the terminal's Ctrl-C away from running tasks.
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", program, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a task prints must never mix with a script's own output
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    return Begun(ours, process)


def fork() -> Begun | None:
    """Fork a guardian; return None where none can be forked: then one is to be spawned."""
    if sys.platform != "linux":  # elsewhere the system's own libraries may have threads
        return None
    import ctypes  # noqa: F401 - what it needs, and this process, too

    from executor import child, guardian, surroundings  # noqa: F401

    cgroup.delegated()  # this process must be alone in its group to get others
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - no names; some sitecustomize started threads
        return None
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:  # no process to be had just now: the pool starts its own, or says that it can't
        ours.close()
        theirs.close()
        return None
    if pid == 0:
        _serve(theirs)
    theirs.close()
    return Begun(ours, _Forked(pid))


class _Forked:
    """The process of a forked guardian."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status.

        Raises:
            subprocess.TimeoutExpired: it still lives after so many seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._status is None:
            try:
                pid, status = os.waitpid(self._pid, 0 if deadline is None else os.WNOHANG)
            except ChildProcessError:  # somebody else in this process took it
                self._status = 0
                break
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("guardian", timeout or 0.0)
            else:
                time.sleep(_LOOK_SECONDS)
        return self._status


def _serve(control: socket.socket) -> NoReturn:
    """Be a guardian, in the process that was forked."""
    try:
        from executor import guardian

        _be_fresh(control.fileno())
        guardian.main(control)
    except BaseException:  # nothing above us may go on as if it were the worker
        with contextlib.suppress(BaseException):  # with stderr gone there is nowhere left to say it
            traceback.print_exc()
    finally:
        os._exit(1)


def inherited(descriptor: str) -> socket.socket:
    """Return the socket of a guardian that was spawned, which the worker left open for it."""
    return socket.socket(fileno=int(descriptor))


def _be_fresh(control: int) -> None:
    """Leave what is the worker's, and be as ``python -P -u -c ...`` in a session of its own is."""
    os.setsid()  # keeps the terminal's Ctrl-C away from running tasks
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what a task prints must never mix with a script's own output
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - `os.closerange` may try a million
        if number > 2 and number != control:
            with contextlib.suppress(OSError):  # that of the folder itself
                os.close(number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # before anything else that takes long
    # What a task prints, in Python or in C, is written at once and so never in its neighbour's name.
    sys.stdout, sys.stderr = _unbuffered(1, "stdout"), _unbuffered(2, "stderr")
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    _be_called(sys.executable, "-c", "executor.guardian")
    sys.argv = ["-c"]
    # A task may look there, or start processes that load what is there.
    sys.modules["__main__"] = main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})


def _be_called(*words: str) -> None:
    """Show a command line of its own to ps(1) and pkill(1): who signals each worker.py means no guardian."""
    import ctypes

    with contextlib.suppress(OSError, ValueError, IndexError):  # a system that does not tell where it is
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # proc(5), of which the first two were cut off
        if start < end:
            shown = os.fsencode("\0".join(words))[: end - start - 1]
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, shown, len(shown))


def _unbuffered(descriptor: int, name: str) -> io.TextIOWrapper:
    """Return a stream of Python that writes at once, and have C's of that name do so."""
    import ctypes

    libc = ctypes.CDLL(None)
    with contextlib.suppress(ValueError):  # no such name: some other C library
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, name), None, _UNBUFFERED, 0)
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
