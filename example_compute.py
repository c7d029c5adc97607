"""Functions to try the project with: some compute, one sleeps, two go wrong, one tells where it ran.

NumPy is imported by those that use it: loading it takes longer than the others run.
"""

from __future__ import annotations

import math
import os
import socket
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Points that `estimate_pi` draws at a time: 1 MiB of coordinates, which stays in a core's cache.
_BLOCK = 65_536

#: What tells the common numerical libraries how many threads to use.
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def compute_flops(repeats: int, n: int) -> float:
    """Multiply two n x n float64 matrices `repeats` times; return the rate reached, in GFLOP/s.

    A product counts as 2 n³ operations. Making the matrices is not timed, nor is a first product of parts of
    them, in which the linear algebra library starts its threads. It takes 24 n² bytes.

    Raises:
        ValueError: an argument is not an integer of at least 1.
    """
    _check_integer("repeats", repeats, least=1)
    _check_integer("n", n, least=1)
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.random((n, n)), rng.random((n, n))
    product = np.zeros((n, n))
    np.matmul(a[:256], b[:, :256])
    started = time.perf_counter()
    for _ in range(repeats):
        np.matmul(a, b, out=product)
    seconds = time.perf_counter() - started
    return 2 * n**3 * repeats / seconds / 1e9


def estimate_pi(samples: int, seed: int = 0) -> float:
    """Estimate π by the share of `samples` random points of a square that lie in the circle within.

    The standard error is 1.64 / √samples. The same `seed` gives the same estimate; the memory does not
    grow with `samples`.

    Raises:
        ValueError: `samples` is not an integer of at least 1, or `seed` not one of at least 0.
    """
    _check_integer("samples", samples, least=1)
    _check_integer("seed", seed, least=0)
    import numpy as np

    rng = np.random.default_rng(seed)
    inside = 0
    for first in range(0, samples, _BLOCK):
        x, y = rng.random((2, min(_BLOCK, samples - first)))
        inside += int(np.count_nonzero(x * x + y * y < 1))
    return 4 * inside / samples


def spectrum(n: int = 4096, seed: int = 0) -> NDArray[np.float64]:
    """Return the amplitude spectrum, at 0, 1, ... n // 2 Hz, of one second of a noisy signal of two tones.

    The signal is n samples of 1.0 sin(2π 50 t) + 0.5 sin(2π 120 t) and normal noise of deviation 1; the
    tones stand out of the noise at the indices 50 and 120.

    Raises:
        ValueError: `n` is not an integer of at least 256, or `seed` not one of at least 0.
    """
    _check_integer("n", n, least=256)
    _check_integer("seed", seed, least=0)
    import numpy as np

    t = np.arange(n) / n
    tones = np.sin(2 * np.pi * 50 * t) + 0.5 * np.sin(2 * np.pi * 120 * t)
    noise = np.random.default_rng(seed).normal(size=n)
    return np.abs(np.fft.rfft(tones + noise)) * 2 / n


def sleep(seconds: float) -> float:
    """Sleep; return the seconds it really took.

    Raises:
        ValueError: `seconds` is not a finite number of at least 0.
    """
    if not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"seconds must be a finite number of at least 0, not {seconds!r}")
    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started


def fail(message: str = "this task fails, as it was asked to") -> NoReturn:
    """Raise a ValueError with this message."""
    raise ValueError(message)


def crash() -> NoReturn:
    """Abort the process that runs this, as a fault in C code would."""
    os.abort()


def where() -> dict[str, Any]:
    """Return where this ran: host, process id, the cores it may use (None on macOS), thread settings."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cores": sorted(affinity(0)) if affinity else None,
        "threads": {name: os.environ.get(name) for name in _THREAD_SETTINGS},
    }


def _check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
