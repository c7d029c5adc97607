"""What goes wrong with a task is that task's result, and the run goes on."""

from __future__ import annotations

import signal
from typing import Any

from scripts import Scripts, task, wait_until

ONE_CORE = ["--cores", "1", "--no-pin"]


def test_each_failure_is_its_tasks_result_and_the_run_goes_on(scripts: Scripts) -> None:
    (scripts.folder / "broken.py").write_text("def f(): pass\n1 / 0\n")
    expected: dict[str, tuple[dict[str, Any], str, str, str]] = {
        "raises": (task("jobs.fail", "bad luck"), "error", "ValueError", "bad luck"),
        "raises oddly": (task("jobs.odd"), "error", "jobs.Odd", "no Exception at all"),
        "wrong arguments": (task("jobs.fail", 1, 2, 3), "error", "TypeError", "positional arguments"),
        "aborts": (task("example_compute.crash"), "crashed", "Crashed", "signal 6 (SIGABRT)"),
        "segfaults": (task("jobs.segfault"), "crashed", "Crashed", "signal 11 (SIGSEGV)"),
        "os._exit": (task("jobs.exit_", 7), "crashed", "Crashed", "exited with code 7"),
        "os._exit(0)": (task("jobs.exit_", 0), "crashed", "Crashed", "exited with code 0"),
        "sys.exit": (task("sys.exit", 3), "crashed", "Crashed", "exited with code 3"),
        "sys.exit text": (task("sys.exit", "words"), "crashed", "Crashed", "exited with code 1"),
        "SIGKILL": (task("jobs.kill_itself", signal.SIGKILL), "crashed", "Crashed", "signal 9 (SIGKILL)"),
        "SIGTERM": (task("jobs.kill_itself", signal.SIGTERM), "crashed", "Crashed", "signal 15 (SIGTERM)"),
        "can't travel": (task("jobs.unsendable"), "error", "CannotTravel", "lock"),
        "no module": (task("no.such.thing"), "rejected", "UnknownFunction", "no module named no"),
        "no name": (task("math.sqr", 1), "rejected", "UnknownFunction", "did you mean math.sqrt?"),
        "alias": (task("np.min", [1]), "rejected", "UnknownFunction", "numpy.min"),
        "no callable": (task("math.pi"), "rejected", "UnknownFunction", "can't be called"),
        "bad module": (task("broken.f"), "error", "ZeroDivisionError", "division by zero"),
        "recursion": (task("copy.deepcopy", [], kwargs={"no": 1}), "error", "TypeError", "no"),
    }  # fmt: skip
    records = []
    for n, (name, (record, *_)) in enumerate(expected.items()):
        records += [{**record, "id": name, "retries": 0}, task("operator.neg", n, id=f"ok {n}")]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1", "--cores", "2"]
    done = scripts.run(*command, "--output", "results.jsonl", status=1)
    results = scripts.by_id()
    assert len(results) == 2 * len(expected)
    for n, (name, (_, status, kind, message)) in enumerate(expected.items()):
        assert (results[f"ok {n}"]["status"], results[f"ok {n}"]["value"]) == ("ok", -n)
        assert results[f"ok {n}"]["attempt"] == 1
        result = results[name]
        assert (result["status"], result["value"]) == (status, None), result
        assert result["error"]["type"] == kind, result
        assert message in result["error"]["message"], result
        started = status != "rejected"
        assert (result["attempt"], len(result["cores"])) == (started, started), result
        assert (result["started"] is not None, result["finished"] is not None) == (started, started)
    assert "jobs.py" in results["raises"]["error"]["traceback"]
    assert "broken.py" in results["bad module"]["error"]["traceback"]
    assert all(" done, " in line for line in done.stderr.splitlines())  # progress, on a slow machine
    for name in expected:  # each is shown, and counted
        assert results[name]["error"]["type"] in done.stdout
    assert f"{len(records)} of {len(records)} tasks done: {len(expected)} ok, " in done.stdout


def test_what_crashed_is_tried_three_times_and_what_raised_once(scripts: Scripts) -> None:
    (scripts.folder / "counted.py").write_text(
        "import os\n"
        "def count(name):\n"
        "    with open(name, 'a') as file: file.write('x')\n"
        "def crash(name):\n"
        "    count(name); os.abort()\n"
        "def fail(name):\n"
        "    count(name); raise ValueError(name)\n"
        "def crash_once(name):\n"
        "    if not os.path.exists(name): crash(name)\n"
        "    return name\n"
    )
    records = [
        task("counted.crash", "crashes", id="crashes"),
        task("counted.fail", "fails", id="fails"),
        task("counted.crash_once", "once", id="once"),
        task("counted.crash", "own", id="own", retries=4),
        task("counted.fail", "again", id="again", retries=1),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1", "--output", "results.jsonl"]
    scripts.run(*command, status=1)
    results = scripts.by_id()
    attempts = {key: (result["status"], result["attempt"]) for key, result in results.items()}
    assert attempts == {
        "crashes": ("crashed", 3), "fails": ("error", 1), "once": ("ok", 2), "own": ("crashed", 5),
        "again": ("error", 2),
    }  # fmt: skip
    for key, (_, attempt) in attempts.items():
        assert len((scripts.folder / key).read_text()) == attempt - (key == "once")


def test_timeouts_kill_c_code_too(scripts: Scripts) -> None:
    records = [
        task("jobs.hold_the_gil", "gil", timeout=0.3, id="gil"),
        task("jobs.family", "family", timeout=2.5, id="family"),
        task("re.match", "(a+)+$", "a" * 60 + "b", timeout=0.3, id="regex"),
        *(task("operator.neg", n, id=str(n)) for n in range(20)),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1", "--cores", "2", "--order", "file"]
    scripts.run(*command, "--output", "results.jsonl", status=1)
    results = scripts.by_id()
    assert len(results) == 23
    for name in ("gil", "family", "regex"):
        result = results.pop(name)
        assert (result["status"], result["error"]["type"], result["attempt"]) == ("timeout", "Timeout", 1)
        assert "its timeout is" in result["error"]["message"]
    assert {(result["status"], result["attempt"]) for result in results.values()} == {("ok", 1)}


def test_a_task_that_holds_too_much_memory_is_killed_once(scripts: Scripts) -> None:
    records = [
        task("jobs.grow", 300_000_000, id="grows", memory="200MB"),
        *(task("operator.neg", n, id=str(n), memory=2 * 10**9) for n in range(20)),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1", "--cores", "1", "--retries", "3"]
    scripts.run(*command, "--output", "results.jsonl", status=1)
    results = scripts.by_id()
    result = results.pop("grows")
    assert (result["status"], result["error"]["type"], result["attempt"]) == ("crashed", "MemoryLimit", 1)
    assert "its limit is 200 MB" in result["error"]["message"]
    assert {(result["status"], result["attempt"]) for result in results.values()} == {("ok", 1)}


def test_a_task_has_the_grace_to_put_its_things_in_order(scripts: Scripts) -> None:
    scripts.worker(*ONE_CORE, "--grace", "30")
    records = scripts.tasks(task("jobs.end_slowly", "slow", 1.0, id="slow"))
    dispatcher = scripts.dispatcher("--tasks", records, "--output", "results.jsonl")
    wait_until((scripts.folder / "slow.runs").exists, "it runs")
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    assert scripts.by_id()["slow"]["status"] == "cancelled"
    assert (scripts.folder / "slow.saved").exists(), "the default of 0.5 s would have been too short"


def test_a_worker_that_is_killed_has_its_tasks_run_elsewhere(scripts: Scripts) -> None:
    (scripts.folder / "wire.yml").write_text(
        f"transport: zmq\naddress: unix:{scripts.runtime}/w\nheartbeat: 0.5\npatience: 3\n"
    )
    wire = ["--yaml", "wire.yml"]
    records = [
        task("jobs.hold_once", "held", id="held"),
        *(task("operator.neg", n, id=str(n)) for n in range(100)),
    ]
    command = ["--tasks", scripts.tasks(*records), "--output", "results.jsonl"]
    dispatcher = scripts.dispatcher(*wire, *command)
    killed = scripts.worker(*wire, *ONE_CORE, "--name", "killed")
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    killed.kill()
    scripts.nothing_lives(dispatcher)
    scripts.worker(*wire, *ONE_CORE, "--name", "other")
    assert dispatcher.ends() == 0
    results = scripts.by_id()
    assert len(results) == 101
    assert {result["status"] for result in results.values()} == {"ok"}
    assert (results["held"]["attempt"], results["held"]["worker"]) == (2, "other")
    assert "worker killed on" in dispatcher.stderr
    assert "is gone" in dispatcher.stderr


def test_only_a_task_that_takes_every_worker_with_it_is_lost(scripts: Scripts) -> None:
    """Those that sleep beside it are charged when it strikes, and come to no harm by that."""
    records = [
        *(task("jobs.stand_by", f"{n}", 0.5, id=f"before {n}") for n in range(2)),
        task("jobs.kill_worker", 2, id="assassin"),
        *(task("time.sleep", 0.5, id=f"after {n}") for n in range(12)),
        *(task("operator.neg", n, id=str(n)) for n in range(200)),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "2", "--cores", "3", "--order", "file"]
    scripts.run(*command, "--output", "results.jsonl", status=1)
    results = scripts.by_id()
    assert len(results) == len(records)
    lost = results.pop("assassin")
    assert (lost["status"], lost["attempt"], lost["error"]["type"]) == ("lost", 3, "Lost")
    assert {key for key, result in results.items() if result["status"] != "ok"} == set()
    assert {result["attempt"] for result in results.values()} > {1}, "nobody was beside it"
