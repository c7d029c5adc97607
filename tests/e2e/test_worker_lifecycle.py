"""A worker's life: its name, its neighbours, its drain, and its exit status."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from scripts import IN_THE_BACKGROUND, Scripts, task, wait_until

from executor.cores import granted

CORES = granted().ids
ONE_CORE = ["--cores", "1", "--no-pin"]


# ---- who it is


def test_its_name_stands_in_results(scripts: Scripts) -> None:
    tasks = scripts.tasks(task("min", 1, 2))
    worker = scripts.worker("--once")
    scripts.run("--tasks", tasks, "--output", "default.jsonl")
    scripts.worker("--name", "ünïcorn 7", "--once")
    scripts.run("--tasks", tasks, "--output", "named.jsonl")
    [default], [named] = scripts.results("default.jsonl"), scripts.results("named.jsonl")
    assert default["worker"] == f"{socket.gethostname()}-{worker.pid}"
    assert named["worker"] == "ünïcorn 7"
    assert default["host"] == named["host"] == socket.gethostname()


def test_once_ends_it_with_the_first_run(scripts: Scripts) -> None:
    workers = [scripts.worker("--once", *ONE_CORE), scripts.worker(*ONE_CORE)]
    scripts.run("--tasks", scripts.tasks(*(task("jobs.meet", 2) for _ in range(2))))
    assert workers[0].ends() == 0
    assert "draining" not in workers[0].stderr  # it had nothing left
    scripts.run("--tasks", scripts.tasks(task("min", 1, 2)))
    assert not workers[1].ended


@pytest.mark.parametrize("script", ["worker.py", "dispatcher.py"])
def test_a_python_that_lacks_our_packages(scripts: Scripts, script: str) -> None:
    started = scripts.start(script, under=["sh", "-c", 'python=$1; shift; exec "$python" -S "$@"', "sh"])
    assert started.ends() == 2
    assert started.stderr.startswith(f"{script}: error: No module named '")
    assert "pip install -r requirements.txt" in started.stderr
    assert started.stderr.count("\n") == 1


# ---- what it starts


def test_calls_find_the_same_around_them_whichever_way_their_guardian_began(scripts: Scripts) -> None:
    """The first is forked from the worker, and one that takes its place is a Python of its own."""
    worker = scripts.worker(*ONE_CORE)
    tasks = scripts.tasks(task("jobs.surroundings"))
    scripts.run("--tasks", tasks, "--output", "forked.jsonl")
    [guardian] = psutil.Process(worker.pid).children()
    guardian.kill()
    wait_until(lambda: {guardian} != set(psutil.Process(worker.pid).children()), "there is another")
    [other] = psutil.Process(worker.pid).children()
    wait_until(lambda: "guardian" in " ".join(other.cmdline()), "it is known as one, too")
    scripts.run("--tasks", tasks, "--output", "spawned.jsonl")
    [forked], [spawned] = scripts.results("forked.jsonl"), scripts.results("spawned.jsonl")
    assert forked["value"] == spawned["value"]
    assert forked["stdout"] == spawned["stdout"] == "said in C\n"
    assert forked["value"]["ours"] == []


def test_nobody_takes_a_guardian_for_a_worker(scripts: Scripts) -> None:
    """So that ``pkill -f worker.py`` drains workers and ends no call."""
    worker = scripts.worker(*ONE_CORE)
    tasks = scripts.tasks(task("jobs.hold", "held"))
    dispatcher = scripts.dispatcher("--tasks", tasks, "--output", "results.jsonl")
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    below = psutil.Process(worker.pid).children(recursive=True)
    assert len(below) == 2
    assert all("guardian" in " ".join(each.cmdline()) for each in below)
    assert not any("worker.py" in " ".join(each.cmdline()) for each in below)
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0


# ---- what it says


def test_cores_beyond_those_granted_are_said_once(scripts: Scripts) -> None:
    count = len(CORES) + 2
    worker = scripts.worker("--cores", str(count))
    for _ in range(2):
        scripts.run(
            "--tasks",
            scripts.tasks(task("jobs.where", resources=count)),
            "--output",
            "r.jsonl",
            "--overwrite",
        )
        [result] = scripts.results("r.jsonl")
        assert result["cores"] == list(range(count))  # slots
        assert result["value"]["affinity"] == sorted(CORES)
        assert result["value"]["threads"] == [str(count)] * 3
    assert f"ready on {count} slots, not pinned" in worker.stderr
    assert worker.stderr.count(f"grants {len(CORES)}: tasks share them and are not pinned") == 1


@pytest.mark.parametrize("pinning", [[], ["--no-pin"]])
def test_it_says_whose_cores_it_shares(scripts: Scripts, pinning: list[str]) -> None:
    first = scripts.worker("--name", "first", "--cores", str(len(CORES)))
    first.says("ready on")
    second = scripts.worker("--name", "second", "--cores", "1", *pinning)
    line = second.says("shares core")
    assert f"first (process {first.pid})" in line
    assert re.search(r"shares cores? \d", line)
    assert "shares" not in first.stderr
    first.kill()
    third = scripts.worker("--name", "third")
    line = third.says("shares core")
    assert "second" in line
    assert "first" not in line  # which is dead


@pytest.mark.skipif(len(CORES) < 2 or sys.platform != "linux", reason="needs two cores to be kept apart")
def test_workers_on_different_cores_share_none(scripts: Scripts) -> None:
    before = os.sched_getaffinity(0)
    workers = []
    try:
        for core in CORES[:2]:
            os.sched_setaffinity(0, {core})
            workers.append(scripts.worker("--name", f"on{core}"))
            workers[-1].says(f"ready on core {core};")
    finally:
        os.sched_setaffinity(0, before)
    unpinned = scripts.worker("--name", "anywhere", *ONE_CORE)
    line = unpinned.says("shares core")
    assert f"on{CORES[0]}" in line
    assert f"on{CORES[1]}" in line
    assert all("shares" not in worker.stderr for worker in workers)


def test_the_last_neighbour_alone_is_named_right(scripts: Scripts) -> None:
    """A worker that is not pinned has slots; what it shares are cores."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(CORES)})
        scripts.worker("--name", "last").says("ready on")
    finally:
        os.sched_setaffinity(0, before)
    line = scripts.worker("--name", "slot", *ONE_CORE).says("shares core")
    assert f"shares core {max(CORES)} with last" in line


def test_its_log_holds_nothing_that_tasks_print(scripts: Scripts) -> None:
    worker = scripts.worker("--once", "--name", "w", "--cores", "2", "--no-pin")
    records = [
        task("jobs.noisy", "loud"),
        task("jobs.noisy_crash", "loud", retries=0),
        task("jobs.fail", "loud"),
    ]
    scripts.run("--tasks", scripts.tasks(*records), status=1)
    assert worker.ends() == 0
    assert worker.stdout == ""
    for line in worker.stderr.splitlines():
        assert re.match(r"\d\d:\d\d:\d\d w: ", line), line
    assert "loud" not in worker.stderr.lower()


def test_it_lives_on_when_nobody_reads_its_log(scripts: Scripts) -> None:
    reading, writing = os.pipe()
    scripts.worker(*ONE_CORE, stderr=writing)
    os.close(writing)
    os.close(reading)
    for _ in range(2):
        scripts.run("--tasks", scripts.tasks(task("min", 1, 2)))


# ---- its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_waiting_worker_ends_at_the_first_signal(scripts: Scripts, number: signal.Signals) -> None:
    worker = scripts.worker()
    worker.says("waiting for a dispatcher")
    worker.send(number)
    assert worker.ends() == 0
    assert "Traceback" not in worker.stderr
    scripts.nothing_lives()


@pytest.mark.parametrize("module", ["executor.config", "zmq"])
def test_ctrl_c_while_it_starts(scripts: Scripts, module: str) -> None:
    worker = scripts.worker(environment=scripts.signalled_at("import", module))
    assert worker.ends() == 130
    assert (worker.stdout, worker.stderr) == ("", "")
    scripts.nothing_lives()


def test_ctrl_c_in_the_background_of_a_script(scripts: Scripts) -> None:
    worker = scripts.worker(under=IN_THE_BACKGROUND)
    worker.says("waiting for a dispatcher")
    worker.send(signal.SIGINT)
    assert worker.ends() == 0
    scripts.nothing_lives()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_drain_finishes_what_runs_and_gives_the_rest_back(scripts: Scripts, number: signal.Signals) -> None:
    # The quick calls first, so that the worker is given many at once and has some behind the long one.
    quick = [task("operator.neg", n, id=f"a{n}") for n in range(400)]
    rest = [task("operator.neg", n, id=f"b{n}") for n in range(400)]
    tasks = scripts.tasks(*quick, task("jobs.hold", "held", id="held"), *rest)
    drained = scripts.worker(*ONE_CORE, "--name", "drained")
    dispatcher = scripts.dispatcher("--tasks", tasks, "--output", "results.jsonl")
    wait_until((scripts.folder / "held.runs").exists, "the long one runs")
    os.killpg(drained.pid, number)
    drained.says("draining")
    other = scripts.worker(*ONE_CORE, "--name", "other")
    wait_until(lambda: len(scripts.results()) == 800, "the other worker does the rest")
    assert not drained.ended
    (scripts.folder / "held.go").touch()
    assert drained.ends() == 0
    assert dispatcher.ends() == 0
    results = scripts.by_id()
    assert len(results) == 801
    assert {(result["status"], result["attempt"]) for result in results.values()} == {("ok", 1)}
    assert results["held"]["worker"] == "drained"
    assert {results[f"b{n}"]["worker"] for n in range(400)} == {"other"}
    assert not other.ended


def test_a_second_signal_kills(scripts: Scripts) -> None:
    worker = scripts.worker(*ONE_CORE)
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task("jobs.family", "held")))
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    worker.send(signal.SIGTERM)
    worker.says("draining")
    worker.send(signal.SIGINT)
    assert worker.ends() == 130
    assert "killed by a second signal" in worker.stderr
    scripts.nothing_lives(dispatcher)


def test_no_dispatcher_comes_within_wait(scripts: Scripts) -> None:
    worker = scripts.worker("--wait", "0.3")
    assert worker.ends() == 3
    assert (
        worker.stderr.splitlines()[-1] == f"worker.py: error: no dispatcher at {scripts.address} within 0.3 s"
    )
    scripts.nothing_lives()


def test_wait_bounds_the_time_between_runs_too(scripts: Scripts) -> None:
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task("time.sleep", 2.5)))
    dispatcher.says("waiting for a worker")
    worker = scripts.worker("--wait", "2", *ONE_CORE)
    assert dispatcher.ends() == 0  # with a dispatcher there, time does not count
    assert worker.ends() == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cores", "0"], "--cores: must be an integer of at least 1, not '0'"),
        (["--cores", "1000001"], "--cores: must be at most 1,000,000, not '1000001'"),
        (["--cores", "many"], "--cores: must be an integer of at least 1, not 'many'"),
        (["--grace", "-1"], "--grace: must be at least 0 seconds, not '-1'"),
        (["--name", " "], "--name: must be printable text, not ' '"),
        (["--wait", "soon"], "--wait: must be a number of seconds, not 'soon'"),
        (["--tasks", "x"], "unrecognized arguments: --tasks x; --help lists the options"),
        (["--address", "nowhere"], "--address: 'nowhere': write tcp://host:port, or unix:/path"),
    ],
)
def test_a_wrong_command_line(scripts: Scripts, arguments: list[str], says: str) -> None:
    worker = scripts.worker(*arguments)
    assert worker.ends() == 2
    [line] = worker.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_says_it_is_ready_can_be_drained(scripts: Scripts, number: signal.Signals) -> None:
    for _ in range(3):  # at once: there is only a moment to hit
        worker = scripts.worker(stderr=subprocess.PIPE)
        assert worker.process.stderr is not None
        with worker.process.stderr as lines:
            assert b"ready on" in lines.readline()
            worker.send(number)
            assert worker.ends() == 0
