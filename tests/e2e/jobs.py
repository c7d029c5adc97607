"""Functions for the tests to call by name; a copy of this file lies in each test's working folder."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def _wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} has not come")
        time.sleep(0.005)


def _say_that_it_runs(name: str) -> None:
    """Make NAME.runs with the process id in it, which others may do at the same time."""
    new = Path(f"{name}.{os.getpid()}.new")
    new.write_text(str(os.getpid()))
    new.rename(f"{name}.runs")


def hold(name: str) -> str:
    """Say that it runs by a file, NAME.runs with its process id, and run until there is a file NAME.go."""
    _say_that_it_runs(name)
    _wait_for(Path(f"{name}.go"))
    return name


def hold_once(name: str) -> str:
    """The first attempt runs until it is killed, the next one returns at once."""
    if Path(f"{name}.runs").exists():
        return name
    return hold(name)


def hold_each(name: str) -> int:
    """Say when it begins for the n-th time by a file NAME.n.runs, run until there is NAME.n.go; return n."""
    number = 1
    while True:
        try:
            Path(f"{name}.{number}.runs").touch(exist_ok=False)
            break
        except FileExistsError:
            number += 1
    _wait_for(Path(f"{name}.{number}.go"))
    return number


def meet(count: int, name: str = "meet") -> dict[str, Any]:
    """Return where it ran, as soon as `count` of these run at the same time."""
    Path(f"{name}.{os.getpid()}.here").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob(f"{name}.*.here"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} met")
        time.sleep(0.005)
    return where()


def where() -> dict[str, Any]:
    """What a task sees of its surroundings."""
    return {
        "pid": os.getpid(),
        "cwd": str(Path.cwd()),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": [os.getenv(f"{name}_NUM_THREADS") for name in ("OMP", "OPENBLAS", "MKL")],
    }


def blas_threads() -> list[int]:
    """How many threads NumPy's own libraries use, and the cores that each of them may run on."""
    import numpy as np
    import threadpoolctl

    square = np.ones((300, 300))
    square @ square
    return [info["num_threads"] for info in threadpoolctl.threadpool_info()]


def thread_cores() -> list[list[int]]:
    """On which cores each thread of this process may run, BLAS threads included."""
    blas_threads()
    return [sorted(os.sched_getaffinity(int(thread.name))) for thread in Path("/proc/self/task").iterdir()]


def unpin() -> None:
    """Leave the cores that it was given."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def leave_folder() -> None:
    os.chdir("/")


def read_stdin() -> str:
    return sys.stdin.read()


def noisy(text: str) -> None:
    print(text)
    print(text.upper(), file=sys.stderr)
    os.write(1, b"from os.write\n")
    ctypes.CDLL(None).puts(b"from C")
    os.system("echo from a child")


def noisy_crash(text: str) -> None:
    print(text, end="")
    os.abort()


def echo(value: Any) -> Any:
    return value


def values() -> dict[str, Any]:
    """Values that JSON lacks."""
    import datetime

    return {
        "nan": float("nan"), "inf": float("-inf"), "complex": 1 + 2j, "bytes": b"\0\xff", "tuple": (1, (2,)),
        "set": {3, 1, 2}, "date": datetime.date(2026, 1, 2), "big": 2**100, "map": {1: "a", (2, 3): "b"},
        "none": None, "surrogate": "a\udcffb",
    }  # fmt: skip


def ones(*shape: int) -> Any:
    import numpy as np

    return np.arange(np.prod(shape), dtype="f8").reshape(shape)


def fail(text: str = "as asked", seconds: float = 0.0) -> None:
    time.sleep(seconds)
    raise ValueError(text)


def flaky(name: str, seconds: float = 0.0) -> str:
    """Fail at the first attempt, after so many seconds."""
    time.sleep(seconds)
    if Path(name).exists():
        return name
    Path(name).touch()
    raise ValueError("the first attempt")


def exit_(code: int) -> None:
    os._exit(code)


def kill_itself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def segfault() -> None:
    ctypes.string_at(0)


class Odd(BaseException):
    pass


def odd() -> None:
    raise Odd("no Exception at all")


def unsendable() -> object:
    return threading.Lock()


def hold_the_gil(name: str) -> None:
    """Wait in C for good, hold the GIL and ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _say_that_it_runs(name)
    ctypes.PyDLL(None).sleep(600)


def family(name: str) -> None:
    """Start descendants of all kinds that all ignore SIGTERM, and wait for good."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper = "import time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    command = [sys.executable, "-c", sleeper]
    here = subprocess.Popen(command)
    away = subprocess.Popen(command, start_new_session=True)
    # One whose parent is dead already, in a session of its own: a daemon.
    script = f"{sys.executable} -c '{sleeper}' & echo $!"
    daemon = subprocess.run(
        ["sh", "-c", script + " >daemon.pid"], start_new_session=True, stdout=subprocess.DEVNULL, check=True
    )
    assert daemon.returncode == 0
    _wait_for(Path("daemon.pid"))
    import multiprocessing

    pool = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    pool.start()
    pids = [os.getpid(), here.pid, away.pid, int(Path("daemon.pid").read_text()), pool.pid]
    Path(f"{name}.new").write_text(" ".join(map(str, pids)))
    Path(f"{name}.new").rename(f"{name}.runs")
    time.sleep(600)


def end_slowly(name: str, seconds: float) -> None:
    """When told to end, take so long to put things in order, and say so by a file NAME.saved."""

    def save(number: int, frame: object) -> None:
        time.sleep(seconds)
        Path(f"{name}.saved").touch()
        sys.exit()

    signal.signal(signal.SIGTERM, save)
    hold(name)


def grow(size: int) -> int:
    """Hold so many bytes for good."""
    held = b"x" * size
    time.sleep(600)
    return len(held)


def leave_behind() -> int:
    """Return while a process that it started lives on."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


def spawn_many() -> list[int]:
    """A task may use multiprocessing."""
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def nap(seconds: float) -> None:
    time.sleep(seconds)


def kill_worker(bystanders: int = 0) -> None:
    """Kill the worker that runs this, as a task does that takes its machine down, once others run, too."""
    import psutil

    while len(list(Path().glob("*.beside"))) < bystanders:
        time.sleep(0.005)
    for process in psutil.Process().parents():
        if "worker.py" in " ".join(process.cmdline()):
            Path("struck").touch()
            process.kill()
    time.sleep(60)


def stand_by(name: str, seconds: float) -> None:
    """Run until `kill_worker` has struck once, and so many seconds longer."""
    Path(f"{name}.beside").touch()
    _wait_for(Path("struck"))
    time.sleep(seconds)


def count(name: str, seconds: float) -> int:
    """Sleep; return how often this was begun."""
    with Path(name).open("a") as file:
        file.write("begun\n")
    time.sleep(seconds)
    return Path(name).read_text().count("begun\n")


def page(name: str, size: int) -> str:
    """Note that this was begun; return a text of that size."""
    count(name, 0.0)
    return "x" * size


def surroundings() -> dict[str, Any]:
    """Return what a call finds around it in its process, as far as that is the same in each."""
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    ctypes.CDLL(None).puts(b"said in C")
    return {
        "argv": sys.argv,
        "path": sys.path,
        "main": sorted(
            name for name in vars(sys.modules["__main__"]) if name not in ("sys", "beginning", "guardian")
        ),
        "ours": sorted(name for name in sys.modules if name in ("transports", "zmq", "executor.keys")),
        "streams": {
            name: [stream.encoding, stream.errors, stream.fileno(), name != "stdin" and stream.write_through]
            for name, stream in streams.items()
        },
        "originals": [getattr(sys, f"__{name}__") is stream for name, stream in streams.items()],
        "descriptors": sorted(_leads_to(path) for path in Path("/proc/self/fd").iterdir()),
        "signals": [
            str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ],
        "session": os.getsid(0) == os.getppid(),
        "terminal": _opens("/dev/tty"),
        "threads": threading.active_count(),
        "mask": sorted(os.sched_getaffinity(0)),
        "parent": Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")[0].decode(),
    }


def _leads_to(path: Path) -> str:
    """Return what a descriptor of this process is of, without the numbers in its name."""
    try:
        return re.sub(r"\d+", "N", str(path.readlink()))
    except OSError:  # it was the one that the folder was read with
        return ""


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    return True
