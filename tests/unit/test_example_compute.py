from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import example_compute

ROOT = Path(example_compute.__file__).parent


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_compute_flops_returns_a_rate() -> None:
    rate = example_compute.compute_flops(2, 64)
    assert type(rate) is float
    assert 0 < rate < math.inf


def test_estimate_pi_comes_near_and_repeats_with_its_seed() -> None:
    samples = 300_000  # several blocks, the last one not full
    first = example_compute.estimate_pi(samples, 7)
    assert abs(first - math.pi) < 5 * 1.65 / math.sqrt(samples)
    assert example_compute.estimate_pi(samples, 7) == first
    assert example_compute.estimate_pi(samples, 8) != first


def test_spectrum_shows_both_tones() -> None:
    amplitudes = example_compute.spectrum()
    assert amplitudes.shape == (2049,)
    assert set(amplitudes.argsort()[-2:]) == {50, 120}
    assert (amplitudes == example_compute.spectrum()).all()


def test_sleep_returns_what_it_slept() -> None:
    assert 0.01 <= example_compute.sleep(0.01) < 60
    assert example_compute.sleep(0) < 60


def test_fail_raises_its_message() -> None:
    with pytest.raises(ValueError, match="out of cheese"):
        example_compute.fail("out of cheese")


def test_crash_ends_the_process_by_a_signal() -> None:
    no_core_file = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
    assert (
        run(f"{no_core_file}; import example_compute; example_compute.crash()").returncode == -signal.SIGABRT
    )


def test_where_tells_process_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = example_compute.where()
    assert found["pid"] == os.getpid()
    assert found["threads"]["OMP_NUM_THREADS"] == "3"
    if hasattr(os, "sched_getaffinity"):
        assert set(found["cores"]) == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: example_compute.compute_flops(0, 8), "repeats must be an integer of at least 1, not 0"),
        (lambda: example_compute.compute_flops(1, 8.0), "n must be an integer of at least 1, not 8.0"),
        (lambda: example_compute.compute_flops(True, 8), "repeats must be an integer"),
        (lambda: example_compute.estimate_pi("many"), "samples must be an integer of at least 1, not 'many'"),
        (lambda: example_compute.estimate_pi(1, -1), "seed must be an integer of at least 0"),
        (lambda: example_compute.spectrum(100), "n must be an integer of at least 256"),
        (lambda: example_compute.sleep(-1), "seconds must be a finite number of at least 0, not -1"),
        (lambda: example_compute.sleep(math.nan), "seconds must be a finite number"),
        (lambda: example_compute.sleep("1"), "seconds must be a finite number"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_importing_it_does_not_import_numpy() -> None:
    done = run("import sys, example_compute; example_compute.sleep(0); sys.exit('numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr
