"""The benchmarks measure: whether, not how fast."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.measure import Failed
from benchmarks.scripts import dispatch, no_ops, write_settings
from tests.e2e.scripts import LIMIT, ROOT


@pytest.mark.parametrize(
    ("part", "check"),
    [
        ("latency", "len(latency.ours(20)) == 20"),  # one call at a time through an end
        ("arrays", "arrays.ours(5, 80_000) > 0"),
        ("bare", "bare.measure(1050) > 0"),
        ("scale", "crowd(200_000, 30)['30 stand-ins that took part'] == 30"),  # they share a run
    ],
)
def test_a_part_measures(part: str, check: str) -> None:
    """In a process of its own: multiprocessing leaves one of its own behind in whoever uses it."""
    code = f"from benchmarks import {part}\n" + inspect.getsource(crowd) + f"assert {check}\n"
    code = f"if __name__ == '__main__':\n{textwrap.indent(code, '    ')}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr


def crowd(count: int, workers: int) -> dict[str, float]:
    from benchmarks import scale
    from benchmarks.scripts import no_ops

    with scale.folder() as here:
        return scale.crowd(here, no_ops(here / "t.jsonl", count), count, workers)


def test_a_run_of_the_scripts_is_timed(tmp_path: Path) -> None:
    ran = dispatch(no_ops(tmp_path / "t.jsonl", 300), 300, "--workers", "2", results=tmp_path / "r.jsonl")
    assert ran.tasks == sum(ran.workers.values()) == 300
    assert 0 < ran.span < ran.wall < LIMIT
    assert ran.memory > 10_000_000


def test_a_run_that_fails_is_no_figure(tmp_path: Path) -> None:
    tasks = no_ops(tmp_path / "t.jsonl", 1)
    nobody = write_settings(tmp_path / "w.yml", transport="zmq", address=f"unix:{tmp_path / 's'}")
    with pytest.raises(Failed, match="no worker"):
        dispatch(tasks, 1, "--yaml", nobody, "--wait", "0.1", results=tmp_path / "r.jsonl")


def test_a_part_alone_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "mixed", "--repeats", "1", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert "targets met" in done.stdout
    record = json.loads((tmp_path / "mixed.json").read_text())
    assert [part["name"] for part in record["parts"]] == ["mixed"]
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["pyzmq"]
