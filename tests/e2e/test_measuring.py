"""The benchmarks measure: whether, not how fast."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import arrays, bare, latency, scale
from benchmarks.measure import Failed
from benchmarks.scripts import dispatch, no_ops, write_settings
from tests.e2e.scripts import LIMIT, ROOT


def test_one_call_at_a_time_through_an_end() -> None:
    assert len(latency.ours(20)) == 20


def test_arrays_go_there_and_come_back() -> None:
    assert arrays.ours(5, 80_000) > 0


def test_the_bare_loop_ends() -> None:
    assert bare.measure(1050) > 0


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


def test_many_stand_ins_share_a_run() -> None:
    with scale.folder() as here:
        reached = scale.crowd(here, no_ops(here / "t.jsonl", 20_000), 20_000, 30)
    assert reached["30 stand-ins that took part"] == 30


def test_a_part_alone_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "mixed", "--repeats", "1", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert "targets met" in done.stdout
    record = json.loads((tmp_path / "mixed.json").read_text())
    assert [part["name"] for part in record["parts"]] == ["mixed"]
    assert record["machine"]["cores"] >= 1
    assert record["versions"]["pyzmq"]
