"""What processes hold of the memory, together."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from executor import memory


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no /proc")
def test_what_ended_between_two_looks_at_it_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size was read while it lived; its share of what is in common is asked for later."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    size = memory._resident(os.getpid())
    monkeypatch.setattr(memory, "descendants", lambda pid: [os.getpid(), ended.pid, ended.pid])
    sizes = iter([size, size, size])
    now = memory._resident

    def earlier(pid: int) -> int:
        return next(sizes, now(pid))

    monkeypatch.setattr(memory, "_resident", earlier)
    assert memory.resident(os.getpid(), enough=1) <= size
    assert ended.wait(10) == 0
