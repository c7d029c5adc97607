"""dispatcher.py --workers: the one-command way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from scripts import LIMIT, ROOT, Scripts, task, wait_until

from executor.cores import granted

CORES = granted().ids
needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


def test_ten_thousand_additions(scripts: Scripts) -> None:
    records = [task("operator.add", n, n * n, id=f"add-{n}") for n in range(10_000)]
    command = ["--tasks", scripts.tasks(*records), "--workers", "2", "--output", "results.jsonl"]
    done = scripts.run(*command, "--quiet")
    results = scripts.by_id()
    assert len(results) == 10_000
    for n in range(10_000):
        result = results[f"add-{n}"]
        assert (result["status"], result["value"], result["params"]) == ("ok", n + n * n, [n, n * n])
        assert (result["attempt"], result["resources"], result["error"]) == (1, 1, None)
        assert result["submitted"] <= result["started"] <= result["finished"]
    assert {result["worker"] for result in results.values()} <= {"local-1", "local-2"}
    assert "10,000 of 10,000 tasks done: 10,000 ok" in done.stdout
    assert done.stderr == ""


@needs_two_cores
def test_they_divide_the_cores_and_no_core_is_anybodys_twice(scripts: Scripts) -> None:
    records = scripts.tasks(*(task("jobs.meet", len(CORES)) for _ in CORES))
    done = scripts.run("--tasks", records, "--workers", "2", "--output", "results.jsonl", "--quiet")
    results = scripts.results()
    used = [core for result in results for core in result["cores"]]
    assert sorted(used) == sorted(CORES)  # all ran at the same time
    for result in results:
        assert result["value"]["affinity"] == result["cores"]
    by_worker = {w: [r for r in results if r["worker"] == w] for w in ("local-1", "local-2")}
    assert abs(len(by_worker["local-1"]) - len(by_worker["local-2"])) <= 1
    assert done.stderr == ""


@needs_two_cores
def test_each_has_the_cores_that_are_asked_for(scripts: Scripts) -> None:
    records = scripts.tasks(
        *(task("jobs.meet", 2, id=str(n)) for n in range(2)), task("min", 1, resources=2, id="2")
    )
    scripts.run("--tasks", records, "--workers", "2", "--cores", "1", "--output", "results.jsonl", status=1)
    results = scripts.by_id()
    assert {results[n]["worker"] for n in "01"} == {"local-1", "local-2"}
    assert len({core for n in "01" for core in results[n]["cores"]}) == 2
    assert results["2"]["status"] == "rejected"


def test_more_workers_than_cores_have_one_each_and_it_is_said_once(scripts: Scripts) -> None:
    count = len(CORES) + 1
    records = scripts.tasks(*(task("jobs.meet", count) for _ in range(count)))
    done = scripts.run("--tasks", records, "--workers", str(count), "--output", "results.jsonl", "--quiet")
    assert len({result["worker"] for result in scripts.results()}) == count
    assert {tuple(result["cores"]) for result in scripts.results()} == {(0,)}  # slots, not pinned
    assert [result["value"]["affinity"] for result in scripts.results()] == [sorted(CORES)] * count
    assert done.stderr.count("not pinned") == 1
    assert done.stderr.count("\n") == 1


def test_what_is_too_wide_is_rejected_at_once_with_the_widths(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2, resources=3, id="wide"), task("min", 1, 2, id="narrow"))
    command = ["--tasks", records, "--workers", "1", "--cores", "1", "--output", "results.jsonl"]
    scripts.run(*command, "--wait", str(2 * LIMIT), status=1)  # it does not wait for a wider one
    wide = scripts.by_id()["wide"]
    assert wide["status"] == "rejected"
    assert wide["error"]["type"] == "TooWide"
    assert wide["error"]["message"] == "3 cores, but the widest worker has 1"
    assert (wide["cores"], wide["attempt"], wide["started"], wide["worker"]) == ([], 0, None, None)
    assert scripts.by_id()["narrow"]["status"] == "ok"


def test_a_worker_that_is_killed_is_replaced_and_its_tasks_run_elsewhere(scripts: Scripts) -> None:
    records = [task("jobs.hold_once", "held", id="held"), *(task("min", n, 99, id=str(n)) for n in range(50))]
    command = ["--tasks", scripts.tasks(*records), "--workers", "2", "--cores", "1"]
    dispatcher = scripts.dispatcher(*command, "--output", "results.jsonl")
    wait_until((scripts.folder / "held.runs").exists, "the task runs")
    child = int((scripts.folder / "held.runs").read_text())
    [worker] = [
        process
        for process in scripts.alive(dispatcher)
        if "worker.py" in " ".join(process.cmdline()) and child in {p.pid for p in process.children(True)}
    ]
    worker.kill()
    assert dispatcher.ends() == 0
    results = scripts.by_id()
    assert len(results) == 51
    assert {result["status"] for result in results.values()} == {"ok"}
    assert results["held"]["attempt"] == 2
    assert "starting another" in dispatcher.stderr


def test_they_end_when_the_dispatcher_is_killed_and_the_next_one_sweeps_up(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.family", "held"), task("jobs.hold_the_gil", "gil"))
    dispatcher = scripts.dispatcher("--tasks", records, "--workers", "2", "--cores", "1")
    wait_until(
        lambda: all((scripts.folder / f"{name}.runs").exists() for name in ("held", "gil")), "both run"
    )
    private = scripts.runtime / "function-executor"
    assert len(list(private.glob("run-*"))) == 1
    dispatcher.kill()
    scripts.nothing_lives()
    [left] = private.glob("run-*")
    scripts.run("--tasks", scripts.tasks(task("min", 1, 2)), "--workers", "1")
    assert not left.exists()
    assert list(private.glob("run-*")) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_they_end_with_a_dispatcher_that_is_stopped(
    scripts: Scripts, number: signal.Signals, status: int
) -> None:
    records = scripts.tasks(*(task("jobs.hold", "held") for _ in range(3)))
    command = ["--tasks", records, "--workers", "1", "--cores", "1", "--output", "results.jsonl"]
    dispatcher = scripts.dispatcher(*command)
    wait_until((scripts.folder / "held.runs").exists, "a task runs")
    os.killpg(dispatcher.pid, number)  # as a terminal does it
    assert dispatcher.ends() == status
    assert [result["status"] for result in scripts.results()] == ["cancelled"]
    scripts.nothing_lives()
    assert list((scripts.runtime / "function-executor").glob("run-*")) == []


def test_a_second_ctrl_c_leaves_nothing_either(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.family", "held"))
    dispatcher = scripts.dispatcher("--tasks", records, "--workers", "1", "--cores", "1")
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    dispatcher.send(signal.SIGINT)
    dispatcher.says("cancelling what runs")
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    assert list((scripts.runtime / "function-executor").glob("run-*")) == []
    scripts.nothing_lives()


@pytest.mark.parametrize(("event", "text"), [("os.mkdir", "run-"), ("subprocess.Popen", "python")])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_dispatcher_that_is_stopped_while_it_starts_them_leaves_nothing(
    scripts: Scripts, event: str, text: str, number: signal.Signals, status: int
) -> None:
    environment = scripts.signalled_at(event, text, number)
    dispatcher = scripts.dispatcher("--workers", "2", "--cores", "1", environment=environment)
    assert dispatcher.ends() == status
    assert (dispatcher.stdout, dispatcher.stderr) == ("", "")
    assert [path.name for path in (scripts.runtime / "function-executor").glob("run-*")] == []


@pytest.mark.parametrize("wire", ["zmq", "grpc"])
def test_a_folder_too_long_for_their_sockets_is_said_in_one_line(scripts: Scripts, wire: str) -> None:
    folder = scripts.folder / ("x" * 100)
    folder.mkdir()
    environment = {"XDG_RUNTIME_DIR": str(folder)}
    refused = scripts.run("--workers", "1", "--yaml", ROOT / f"{wire}.yml", environment=environment, status=2)
    assert "too long for a socket" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert list((folder / "function-executor").glob("run-*")) == []


def test_workers_that_end_at_once_end_the_run(scripts: Scripts) -> None:
    """Say, because something is wrong with the installation: it must not go on for ever."""
    site = scripts.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\nif 'worker.py' in ' '.join(sys.orig_argv): os._exit(7)\n"
    )
    records = scripts.tasks(task("min", 1, 2))
    done = scripts.run("--tasks", records, "--workers", "1", environment={"PYTHONPATH": str(site)}, status=1)
    assert "worker local-1 ended (exit status 7); 20 were replaced before it" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_output_of_workers_keeps_out_of_stdout(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.noisy", "some words"), task("jobs.fail"))
    done = scripts.run("--tasks", records, "--workers", "1", "--output", "-", status=1)
    assert [line[0] + line[-1] for line in done.stdout.splitlines()] == ["{}", "{}"]
    assert "words" not in done.stderr.replace("jobs.noisy('some words')", "")


def test_cores_go_with_workers(scripts: Scripts) -> None:
    done = scripts.run("--cores", "2", status=2)
    assert "--cores goes with --workers" in done.stderr
    assert not Path(scripts.runtime / "function-executor").exists()
