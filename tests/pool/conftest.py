"""The pool alone, without a wire, on real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from driving import Driver

from executor.cores import CoreSet, granted
from executor.pool import Pool

CALLS = Path(__file__).with_name("calls.py")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Driver]]:
    """Make a pool with so many slots, or pinned to so many cores, in a folder with the module ``calls``."""
    shutil.copy(CALLS, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as it is for most
    pools: list[Pool] = []

    def make(slots: int = 2, *, pinned: int = 0, **options: Any) -> Driver:
        if pinned:
            ids = granted().ids[:pinned]
            if len(ids) < pinned:
                pytest.skip(f"needs {pinned} cores; this machine grants {len(ids)}")
            cores = CoreSet(ids, pinned=True)
        else:
            cores = CoreSet(range(slots), pinned=False)
        pools.append(Pool(cores, **{"grace": 0.2, **options}))
        return Driver(pools[-1], cores)

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield make
    for pool in pools:
        pool.close()
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not left, f"processes were left: {left}"


@pytest.fixture
def gone() -> Callable[[int], bool]:
    """Whether no process of that number lives."""

    def check(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return check
