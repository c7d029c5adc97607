"""No process is left behind, ever. (Every other end-to-end test checks it too, at its end.)"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from scripts import GONE, LIMIT, ROOT, Scripts, task, wait_until

ONE_CORE = ["--cores", "1", "--no-pin"]


@pytest.mark.parametrize("nasty", ["jobs.family", "jobs.hold_the_gil"])
def test_killing_a_worker_leaves_neither_child_nor_grandchild(scripts: Scripts, nasty: str) -> None:
    worker = scripts.worker(*ONE_CORE)
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task(nasty, "held")))
    pids = held(scripts)
    assert pids <= {process.pid for process in scripts.alive()}
    assert len(scripts.alive(dispatcher)) >= len(pids) + 2  # and the worker, and its guardian
    worker.kill()
    scripts.nothing_lives(dispatcher)


def test_killing_worker_and_guardian_at_once_leaves_no_child(scripts: Scripts) -> None:
    worker = scripts.worker(*ONE_CORE)
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task("jobs.hold_the_gil", "held")))
    held(scripts)
    [guardian] = psutil.Process(worker.pid).children()
    worker.send(signal.SIGSTOP)  # it must not notice and do it itself
    guardian.kill()
    worker.kill()
    scripts.nothing_lives(dispatcher)


def test_killing_the_guardian_fails_the_call_and_the_worker_goes_on(scripts: Scripts) -> None:
    worker = scripts.worker(*ONE_CORE)
    records = [task("jobs.hold_once", "held", id="held"), *(task("operator.neg", n) for n in range(50))]
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    [child] = held(scripts)
    [guardian] = psutil.Process(worker.pid).children()
    guardian.kill()
    assert dispatcher.ends() == 0
    results = scripts.results()
    assert len(results) == 51
    assert {result["status"] for result in results} == {"ok"}
    assert next(result["attempt"] for result in results if result["id"] == "held") == 2
    assert not worker.ended
    assert child not in {process.pid for process in scripts.alive()}


def test_what_a_task_leaves_running_ends_with_it(scripts: Scripts) -> None:
    worker = scripts.worker(*ONE_CORE)
    records = [task("jobs.leave_behind", id=str(n)) for n in range(3)]
    records.append(task("jobs.hold", "held", id="held"))
    dispatcher = scripts.dispatcher(
        "--tasks", scripts.tasks(*records), "--output", "results.jsonl", "--order", "file"
    )
    held(scripts)
    wait_until((scripts.folder / "results.jsonl").exists, "results come")
    left = {result["value"] for result in wait_until(lambda: three_of(scripts.results()), "three results")}
    # They are ended with the child that ran their task, which then is replaced: while the next one runs.
    wait_until(lambda: not left & {process.pid for process in scripts.alive()}, "they end", GONE)
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    scripts.nothing_lives()


def test_a_crashed_task_takes_its_descendants_with_it(scripts: Scripts) -> None:
    scripts.worker(*ONE_CORE)
    records = scripts.tasks(
        task("jobs.family", "held", id="held", retries=0), task("jobs.hold", "next", id="next")
    )
    dispatcher = scripts.dispatcher("--tasks", records, "--output", "results.jsonl", "--order", "file")
    pids = held(scripts)
    child = int((scripts.folder / "held.runs").read_text().split()[0])
    psutil.Process(child).kill()
    wait_until((scripts.folder / "next.runs").exists, "the next one runs")
    wait_until(lambda: not pids & {process.pid for process in scripts.alive()}, "they end", GONE)
    (scripts.folder / "next.go").touch()
    assert dispatcher.ends() == 1
    assert scripts.by_id()["held"]["status"] == "crashed"


def three_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return results if len(results) == 3 else []


def held(scripts: Scripts) -> set[int]:
    """Wait until the task that holds runs; return the process ids that it has written down."""
    path = scripts.folder / "held.runs"
    wait_until(path.exists, "it runs")
    return {int(text) for text in path.read_text().split()}


def test_what_tests_start_ends_with_them_even_when_they_are_killed(tmp_path: Path) -> None:
    killed = (
        "import os, pathlib\n"
        "from tests.e2e.scripts import Scripts\n"
        f"scripts = Scripts(pathlib.Path({str(tmp_path)!r}))\n"
        "worker = scripts.worker()\n"
        'worker.says("waiting for a dispatcher")\n'
        "print(worker.pid, scripts.runtime, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", killed], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, runtime = done.stdout.split()
    wait_until(lambda: has_ended(int(pid)), "the worker has ended", GONE)
    shutil.rmtree(runtime)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
