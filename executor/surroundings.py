"""What surrounds the calls in a child process: its folder, cores, threads, alarms and streams.

Each call finds them as it should, whatever the one before it did. To look at them all takes as long as a tiny
call. So it is looked after a call that took longer than such a call does, after one that used a function
which is known to change them, and otherwise every LOOK_SECONDS: what else changes them, C code say, and
returns within HARMLESS_SECONDS, may disturb the calls of so long.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import os
import signal
import sys
import time
from types import ModuleType
from typing import Any

#: A call that took less left no process or thread behind: to start one takes longer.
HARMLESS_SECONDS = 10e-6

#: Seconds of calls that took less, until it is looked whether one of them changed something all the same.
LOOK_SECONDS = 100e-6

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

#: Functions that change what surrounds the calls; they set `Surroundings.look_at`.
_CHANGING = (
    (os, "chdir"),
    (os, "fchdir"),
    (os, "sched_setaffinity"),
    (signal, "alarm"),
    (signal, "setitimer"),
)


def load() -> None:
    """Load what a process needs once its calls are of another width: 15 ms, which those forked then save."""
    import threadpoolctl

    threadpoolctl.ThreadpoolController()  # the first look takes far longer than those that follow


class Surroundings:
    """Those of this process, which prints to the files `stdout` and `stderr`."""

    def __init__(self, stdout: int, stderr: int) -> None:
        self.look_at = 0.0  # monotonic seconds, when to `look` again
        self.disturbed = False  # to be restored before another call
        self._printed = (stdout, stderr)
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pid = os.getpid()
        self._threads = _thread._count()
        self._children = _own_children(self._pid)
        self._cores: tuple[int, ...] = ()
        self._mask: set[int] | None = None  # to pin to
        self._width = 0
        self.restore()
        for owner, name in _CHANGING:
            self._notice(owner, name)

    def _notice(self, owner: ModuleType, name: str) -> None:
        """Have a function say that it was called."""
        function = getattr(owner, name, None)
        if function is None:  # not on every system
            return

        @functools.wraps(function)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            self.look_at = 0.0
            return function(*args, **kwargs)

        noticed.__module__ = owner.__name__  # where pickle finds it by its name
        for functions in (os.supports_fd, os.supports_follow_symlinks):
            if function in functions:
                functions.add(noticed)
        setattr(owner, name, noticed)

    def take_cores(self, cores: tuple[int, ...], pin: bool) -> bool:
        """Go to these cores, and give the numeric libraries as many threads.

        Return False if a library has its threads already, and can't have others any more.
        """
        able = True
        pin = pin and sys.platform == "linux"
        if cores != self._cores or pin != (self._mask is not None):
            self.disturbed = True
            first = not self._cores
            self._cores = cores
            if len(cores) != self._width:
                self._width = len(cores)
                for variable in THREAD_VARIABLES:
                    os.environ[variable] = str(self._width)
                if not first:  # libraries that are loaded already don't read the environment again
                    import threadpoolctl

                    threadpoolctl.threadpool_limits(self._width)
                    able = FIXED_THREADS.isdisjoint(sys.modules)
        self._mask = set(cores) if pin else None
        return able

    def look(self, now: float, took: float) -> None:
        """End what a call that `took` so many seconds left running: a copy of itself, an alarm."""
        # It comes back from a fork in the midst of a call, and that takes longer.
        if took > HARMLESS_SECONDS and os.getpid() != self._pid:
            os._exit(0)
        if not self.look_at:  # it may have set these
            for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
                signal.setitimer(timer, 0)
        signal.alarm(0)  # it would interrupt or kill whatever is called next
        self.look_at = now + LOOK_SECONDS
        self.disturbed = True

    def restore(self) -> None:
        """Go back to the folder and the cores, and direct standard output and error to our files."""
        self.disturbed = False
        os.fchdir(self._folder)
        if self._mask is not None and os.sched_getaffinity(0) != self._mask:
            pin_threads(self._cores)
        os.dup2(self._printed[0], 1)
        os.dup2(self._printed[1], 2)
        self.look_at = time.monotonic() + LOOK_SECONDS

    def left_behind(self) -> bool:
        """Whether calls left threads or processes behind, or streams that nobody can print to.

        After a long call the caches are cold, and what is not touched here is time that the next one has: to
        ask `threading` and to catch what `waitpid` raises took a third of the time between two calls.
        """
        if _thread._count() > self._threads:
            return True
        out, err = sys.stdout, sys.stderr
        if out is None or out.closed or err is None or err.closed:
            return True
        if self._children is not None:
            try:
                return bool(os.pread(self._children, 1, 0))
            except OSError:  # the task closed whatever was open
                self._children = None
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        return True


def _own_children(pid: int) -> int | None:
    """Open the file in which Linux lists the children of our main thread; None where there is none.

    Those that another thread started are its own while it runs, which is seen, and the main thread's then.
    Source: proc(5), /proc/pid/task/tid/children.
    """
    try:
        return os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def pin_threads(cores: tuple[int, ...]) -> None:
    """Pin all threads of this process: those that a BLAS started earlier would keep their old mask."""
    if sys.platform != "linux":
        return
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - a hot path, and names are all it needs
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(thread), cores)
