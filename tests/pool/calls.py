"""Functions for the pool's tests to call by name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

MB = 10**6

_kept: list[object] = []

#: What OpenMP would have found, had it been loaded by this module.
_WHEN_IMPORTED = os.environ.get("OMP_NUM_THREADS")


def set_alarm(seconds: float, timer: int) -> int:
    """Return before an alarm goes off that it set."""
    signal.setitimer(timer, seconds)
    return os.getpid()


def compute(seconds: float) -> int:
    """Use a core for so long."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return os.getpid()


def place() -> list[object]:
    """Where it runs: the folder, the cores, and the seconds until an alarm, which it stops."""
    return [str(Path.cwd()), affinity(), signal.alarm(0)]


def change_in_c(folder: str) -> None:
    ctypes.CDLL(None).chdir(folder.encode())


def pickled(name: str) -> str:
    """Send a function to another process and back; return how it is named there."""
    function = pickle.loads(pickle.dumps(pkgutil.resolve_name(name)))
    return f"{function.__module__}.{function.__name__}"


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def pid() -> int:
    return os.getpid()


def touch(name: str) -> int:
    """Say that it runs, by a file that holds its process id, and sleep for good."""
    Path(name + ".new").write_text(str(os.getpid()))
    Path(name + ".new").rename(name)
    time.sleep(600)
    return 0


def wait_for(name: str) -> str:
    while not Path(name).exists():
        time.sleep(0.002)
    return name


def nap_undisturbed(name: str, seconds: float) -> str:
    """Say that it runs, by a file, and sleep; raise if SIGTERM comes."""

    def handler(number: int, frame: object) -> None:
        raise RuntimeError("told to end")

    signal.signal(signal.SIGTERM, handler)
    Path(name).touch()
    time.sleep(seconds)
    return name


def leave_its_group() -> None:
    """Go over into the process group of the guardian, and sleep for good."""
    os.setpgid(0, os.getppid())
    time.sleep(600)


def hold_the_gil(name: str) -> None:
    """Wait in C for good, with the GIL held and SIGTERM ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(name + ".new").write_text(str(os.getpid()))
    Path(name + ".new").rename(name)
    ctypes.PyDLL(None).sleep(600)


def die(how: str) -> None:
    if how == "abort":
        os.abort()
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        sys.exit(3)
    elif how == "_exit":
        os._exit(4)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def fail(text: str) -> None:
    raise ValueError(text)


def thread_masks() -> list[list[int]]:
    """The cores of each thread of this process, those of NumPy's BLAS included."""
    import numpy as np

    square = np.ones((512, 512))
    square @ square
    return [sorted(os.sched_getaffinity(int(thread.name))) for thread in Path("/proc/self/task").iterdir()]


def thread_counts() -> dict[str, object]:
    """What the numeric libraries are told, and what the BLAS really uses."""
    import numpy as np
    import threadpoolctl

    square = np.ones((64, 64))
    square @ square
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
    return {
        "variables": [os.environ.get(f"{name}_NUM_THREADS") for name in names],
        "pools": [info["num_threads"] for info in threadpoolctl.threadpool_info()],
        "pid": os.getpid(),
    }


def threads_when_imported() -> str | None:
    return _WHEN_IMPORTED


def fixed_threads() -> tuple[int, int]:
    """How many threads numexpr made when it was loaded; or a module of that name that does as it does."""
    import numexpr

    return numexpr.nthreads, os.getpid()


def draw() -> list[float]:
    """Draw from random states that nobody has seeded."""
    import random

    import numpy as np

    return [random.random(), np.random.random()]


def unpin() -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))


def affinity() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def grow(size: int) -> int:
    """Hold so many bytes until it is killed."""
    _kept.append(bytearray(os.urandom(1) * size))
    time.sleep(600)
    return size


def grow_undeterred(size: int) -> int:
    """The same, with SIGTERM ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return grow(size)


def fill_a_file(size: int) -> None:
    """Hold so many bytes in a file in memory, which no resident size shows."""
    descriptor = os.memfd_create("full")
    for _ in range(size // MB):
        os.write(descriptor, b"1" * MB)


def grow_elsewhere(size: int) -> None:
    """The same in a process of its own."""
    code = f"import time; x = bytearray(b'1' * {size}); time.sleep(600)"
    subprocess.run([sys.executable, "-c", code], check=True)


def grow_in_a_daemon(size: int) -> None:
    """The same in one whose parent is dead, in a session of its own."""
    code = f"import time; x = bytearray(b'1' * {size}); time.sleep(600)"
    subprocess.run(["sh", "-c", 'setsid "$@" &', "sh", sys.executable, "-c", code], check=True)
    time.sleep(600)


def grow_slowly(name: str, size: int) -> int:
    """Grow only when there is a file of that name."""
    wait_for(name)
    return grow(size)


def share(size: int, copies: int, seconds: float) -> int:
    """Hold so many bytes together with copies of this process."""
    held = bytearray(b"1" * size)
    pids = []
    for _ in range(copies):
        if (copied := os.fork()) == 0:
            time.sleep(600)
        pids.append(copied)
    time.sleep(seconds)
    for copied in pids:
        os.kill(copied, signal.SIGKILL)
        os.waitpid(copied, 0)
    return len(held)


def oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def leak(size: int) -> int:
    """Never give back so many bytes; return the process id."""
    _kept.append(bytearray(b"1" * size))
    return os.getpid()


def speak(text: str) -> None:
    """Print in Python, in C, and from another process, without a newline at the end."""
    print(text + " python", end="")
    ctypes.CDLL(None).printf(b" c")
    print(text + " error", file=sys.stderr, end="")
    os.system("printf ' process'")


def speak_through_the_device(text: str) -> None:
    """Print, and have a shell open what it prints to anew, as scripts do to speak of errors."""
    print(text)
    os.system(f"echo {text} shell > /dev/stderr; echo {text} again >> /dev/stdout")
    print(text, "end")


def speak_into_a_file(name: str) -> None:
    """Put a file of its own in the place of standard output, and leave it there."""
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.close(descriptor)
    print("for the file")


def speak_through_a_buffer(text: str) -> None:
    """Put a stream with a buffer in the place of standard output, and leave it there."""
    sys.stdout = Path("/dev/stdout").open("a")  # noqa: SIM115 - it is left open
    sys.stdout.write(text)
    _kept.append(sys.stdout)


def close_streams() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.close()
    time.sleep(0.001)
    return os.getpid()


def speak_from_a_copy(text: str) -> str:
    """Fork, as some libraries do, and let the copy return, too."""
    copied = os.fork()
    if copied == 0:
        return "the copy"
    os.waitpid(copied, 0)
    print(text, end="")
    return text


def speak_and_die(text: str) -> None:
    sys.stdout.write(text)
    sys.stderr.write("error")
    ctypes.CDLL(None).printf(b" c")
    os.abort()


def flood(size: int) -> int:
    """Print so many bytes; return how many of them are still held a little later."""
    line = b"x" * 65_535 + b"\n"
    for _ in range(size // len(line)):
        os.write(1, line)
    os.write(1, b"the end")
    deadline = time.monotonic() + 10
    while os.fstat(1).st_blocks * 512 > 8 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    return os.fstat(1).st_blocks * 512


def flood_until(size: int, name: str) -> None:
    """Print so many bytes, and wait for a file of that name."""
    os.write(1, b"x" * size)
    wait_for(name)


def speak_and_wait(text: str, spoke: str, go: str) -> None:
    print(text, end="")
    Path(spoke).touch()
    wait_for(go)


def leave_thread() -> int:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()


def leave_process(own_session: bool) -> list[int]:
    """Return while a process that it started lives on."""
    return [os.getpid(), subprocess.Popen(["sleep", "600"], start_new_session=own_session).pid]


def leave_daemon() -> int:
    """Return while a process lives on whose parent is dead, in a session of its own."""
    pid = subprocess.run(
        ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, check=True
    ).stdout
    return int(pid)


def family(name: str) -> None:
    """Start two processes that ignore SIGTERM, one in a session of its own, and sleep for good."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    pids = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=own).pid for own in (False, True)
    ]
    Path(name + ".new").write_text(" ".join(map(str, pids)))
    Path(name + ".new").rename(name)
    time.sleep(600)


def chain(name: str, length: int) -> None:
    """Start a process that starts a process, and so on, each in a session of its own."""
    for _ in range(length):
        if os.fork():
            break
        os.setsid()
        with Path(name + ".new").open("a") as file:
            file.write(f"{os.getpid()} ")
    else:
        Path(name + ".new").rename(name)
    time.sleep(600)


def wait_for_a_program(name: str, seconds: float) -> None:
    """Wait for a program that, told to end, takes some time to put its things in order."""
    script = f"trap 'sleep {seconds}; echo done > {name}.saved; exit' TERM; echo > {name}; sleep 600 & wait"
    subprocess.run(["sh", "-c", script], check=True)


def multiprocess() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def raise_on_sigterm(name: str) -> None:
    """Raise when SIGTERM comes, as a handler of a user's may."""

    def handler(number: int, frame: object) -> None:
        raise RuntimeError("told to end")

    signal.signal(signal.SIGTERM, handler)
    touch(name)


def end_on_sigterm(name: str) -> str:
    """End well when SIGTERM comes."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    Path(name).touch()
    told.wait()
    return "ended in its own time"


def double(array: Any) -> Any:
    array *= 2
    return array


def keep_array(array: Any) -> None:
    _kept.append(array)


def kept_array() -> Any:
    return _kept[-1]


def write_into_every_socket(data: bytes) -> None:
    """Write something into whatever connects this process with others, and go on for a while."""
    for path in Path("/proc/self/fd").iterdir():
        try:
            if str(path.readlink()).startswith("socket:"):
                os.write(int(path.name), data)
        except OSError:
            pass
    time.sleep(600)


def truncate_all_that_is_shared() -> list[str]:
    """Cut all files in memory that this process has; return the names of those that let it."""
    cut = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            name = str(entry.readlink())
            if "memfd:" in name:
                os.truncate(entry, 0)
                cut.append(name.partition(":")[2].partition(" ")[0])
    return sorted(cut)


def write_over_all_that_is_shared(data: bytes) -> None:
    """Overwrite the memory that this process shares with others, and die."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:board" in line:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            ctypes.memset(begin, data[0], end - begin)
    os.kill(os.getpid(), signal.SIGKILL)
