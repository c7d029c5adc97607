"""Runs that end before their time, and what the next one with the same file makes of them."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from scripts import Script, Scripts, local, task, wait_until

WORKERS = local(2, 1)
OUTPUT = ["--output", "results.jsonl"]


def aside(scripts: Scripts) -> list[dict[str, Any]]:
    return scripts.results("results.jsonl.d/superseded.jsonl")


def said(script: Script) -> list[str]:
    return script.stderr.splitlines()


def counted(scripts: Scripts, count: int, seconds: float) -> Path:
    return scripts.tasks(*(task("jobs.count", f"count-{n}", seconds, id=f"t{n}") for n in range(count)))


def test_a_killed_dispatcher_and_a_resume_give_each_task_one_right_line(scripts: Scripts) -> None:
    count = 160  # so many that the first does not come to the last, though this process sleeps for seconds
    records = counted(scripts, count, 0.05)
    command = ["--tasks", records, *WORKERS, *OUTPUT]
    first = scripts.dispatcher(*command)
    file = scripts.folder / "results.jsonl"
    wait_until(lambda: file.exists() and len(scripts.results()) > 20, "some are there")
    first.kill()
    scripts.nothing_lives()
    before, kept = file.read_bytes(), scripts.results()
    file.write_bytes(before + b'{"id":"tXX","function":"jo')  # a power cut
    second = scripts.run(*command, "--resume")
    assert scripts.results()[: len(kept)] == kept
    results = scripts.by_id()
    assert set(results) == {f"t{n}" for n in range(count)}
    for name, result in results.items():
        begun = (scripts.folder / result["params"][0]).read_text().count("begun\n")
        assert (result["status"], result["value"]) == ("ok", begun), name
        assert begun <= 2
    left = count - len(kept)
    assert "results.jsonl: cut 26 bytes of a last line that was not written to its end" in said(second)
    assert f"results.jsonl: {len(kept)} of {count} tasks recorded before, {left} to run" in said(second)
    assert second.stdout.splitlines()[:2] == [
        f"{left} of {left} tasks done: {left} ok",
        f"with those recorded before: {count} of {count} tasks done: {count} ok",
    ]


def test_the_workers_of_a_killed_dispatcher_hand_its_results_to_the_resume(scripts: Scripts) -> None:
    scripts.worker("--cores", "2", "--no-pin")
    records = [task("jobs.hold", name, id=name) for name in "ab"]
    records += [task("jobs.count", f"count-{n}", 0.01, id=f"t{n}") for n in range(20)]
    command = ["--tasks", scripts.tasks(*records), *OUTPUT, "--order", "file"]
    first = scripts.dispatcher(*command)
    wait_until(lambda: all((scripts.folder / f"{name}.runs").exists() for name in "ab"), "both run")
    wait_until(lambda: '"came"' in (scripts.folder / "results.jsonl.d/runs.jsonl").read_text(), "it is noted")
    pids = [(scripts.folder / f"{name}.runs").read_text() for name in "ab"]
    first.kill()
    (scripts.folder / "a.go").touch()  # it ends while nobody is there; b goes on
    second = scripts.dispatcher(*command, "--resume")
    second.says("0 of 22 tasks recorded before, 22 to run")
    (scripts.folder / "b.go").touch()
    assert second.ends() == 0
    assert {result["status"] for result in scripts.by_id().values()} == {"ok"}
    assert len(scripts.by_id()) == 22
    # No other process ran them: each wrote its id there as it began.
    assert [(scripts.folder / f"{name}.runs").read_text() for name in "ab"] == pids
    assert {result["value"] for name, result in scripts.by_id().items() if name[0] == "t"} == {1}


def test_workers_that_do_not_come_back_are_waited_for_no_longer_than_their_patience(scripts: Scripts) -> None:
    worker = scripts.worker("--cores", "1", "--no-pin")
    command = ["--tasks", scripts.tasks(task("jobs.hold", "a")), *OUTPUT]
    first = scripts.dispatcher(*command)
    wait_until((scripts.folder / "a.runs").exists, "it runs")
    wait_until(lambda: '"came"' in (scripts.folder / "results.jsonl.d/runs.jsonl").read_text(), "it is noted")
    first.kill()
    worker.kill()
    scripts.nothing_lives()
    (scripts.folder / "a.go").touch()
    second = scripts.dispatcher(*command, "--resume")
    scripts.worker("--cores", "1", "--no-pin")
    second.says("waiting up to 5 s for 1 worker of the run before, which may hold results")
    assert second.ends() == 0
    assert scripts.results()[0]["value"] == "a"


def test_a_cancelled_run_is_resumed(scripts: Scripts) -> None:
    records = [task("min", 1, 2, id="done"), task("jobs.hold", "a", id="a"), task("min", 3, 2, id="later")]
    command = ["--tasks", scripts.tasks(*records), *local(1, 1), "--order", "file", *OUTPUT]
    first = scripts.dispatcher(*command)
    wait_until((scripts.folder / "a.runs").exists, "it runs")
    first.send(signal.SIGINT)
    assert first.ends() == 130
    assert said(first)[-1] == "results.jsonl: 2 of 3 tasks unfinished; --resume goes on with them"
    assert {name: each["status"] for name, each in scripts.by_id().items()} == {
        "done": "ok",
        "a": "cancelled",
    }
    (scripts.folder / "a.go").touch()
    shown = scripts.run(*command[:2], *OUTPUT, "--order", "file", "--resume", "--dry-run")
    assert shown.stdout == "1     1 core  jobs.hold('a')\n2     1 core  min(3, 2)\n"
    assert len(scripts.by_id()) == 2
    second = scripts.run(*command, "--resume")
    assert said(second)[:2] == [
        "results.jsonl: 1 of 3 tasks recorded before, 2 to run",
        "of those to run 1 ran before; its line is now in results.jsonl.d/superseded.jsonl",
    ]
    assert {name: each["value"] for name, each in scripts.by_id().items()} == {
        "done": 1,
        "a": "a",
        "later": 2,
    }
    assert [each["status"] for each in aside(scripts)] == ["cancelled"]


def test_retry_failed_runs_the_failures_alone(scripts: Scripts) -> None:
    records = [task("jobs.flaky", f"marker-{n}", id=f"flaky-{n}") for n in range(3)]
    records += [task("jobs.count", f"count-{n}", 0.0, id=f"count-{n}") for n in range(5)]
    command = ["--tasks", scripts.tasks(*records), *WORKERS, *OUTPUT]
    scripts.run(*command, status=1)
    unchanged = (scripts.folder / "results.jsonl").read_bytes()
    done = scripts.run(*command, "--resume", status=1)
    line = "results.jsonl: 8 of 8 tasks recorded before (3 not ok), nothing to run"
    assert said(done) == [f"{line}; --retry-failed runs those again"]
    assert done.stdout == ""
    assert (scripts.folder / "results.jsonl").read_bytes() == unchanged
    done = scripts.run(*command, "--retry-failed")
    assert done.stdout.splitlines()[:2] == [
        "3 of 3 tasks done: 3 ok",
        "with those recorded before: 8 of 8 tasks done: 8 ok",
    ]
    assert {each["status"] for each in scripts.by_id().values()} == {"ok"}
    assert {each["id"]: each["status"] for each in aside(scripts)} == {
        f"flaky-{n}": "error" for n in range(3)
    }
    for n in range(5):
        assert (scripts.folder / f"count-{n}").read_text() == "begun\n"
    done = scripts.run(*command, "--retry-failed")
    assert said(done) == ["results.jsonl: 8 of 8 tasks recorded before, nothing to run"]


def test_one_that_was_recorded_as_failed_and_stays_so_fails_the_resume(scripts: Scripts) -> None:
    records = [task("jobs.fail", id="a")]
    command = ["--workers", "1", *OUTPUT, "--tasks"]
    scripts.run(*command, scripts.tasks(*records), status=1)
    done = scripts.run(*command, scripts.tasks(*records, task("min", 1, 2)), "--resume", status=1)
    assert done.stdout.splitlines()[1] == "with those recorded before: 2 of 2 tasks done: 1 ok, 1 error"


def test_a_task_that_changed_under_its_id_is_refused(scripts: Scripts) -> None:
    command = ["--workers", "1", *OUTPUT, "--tasks"]
    scripts.run(*command, scripts.tasks(task("min", 1, 2, id="a")))
    before = (scripts.folder / "results.jsonl").read_bytes()
    for option in ("--resume", "--retry-failed"):
        done = scripts.run(*command, scripts.tasks(task("max", 1, 2, id="a")), option, status=2)
        assert said(done) == [
            "dispatcher.py: error: results.jsonl:1: task a was min(1, 2) and now is max(1, 2); "
            "give what is new another id, or choose another --output (nothing was changed)"
        ]
    assert (scripts.folder / "results.jsonl").read_bytes() == before


def test_a_run_that_cannot_begin_changes_nothing(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.fail", id="a"))
    scripts.run("--tasks", records, "--workers", "1", *OUTPUT, status=1)
    before = (scripts.folder / "results.jsonl").read_bytes()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        for option in ("--overwrite", "--retry-failed"):
            scripts.run("--tasks", records, *OUTPUT, "--address", address, option, status=2)
            assert (scripts.folder / "results.jsonl").read_bytes() == before
    assert not (scripts.folder / "results.jsonl.d/superseded.jsonl").exists()


def test_a_second_dispatcher_on_the_same_file_is_refused(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.hold", "a"))
    first = scripts.dispatcher("--tasks", records, "--workers", "1", *OUTPUT)
    wait_until((scripts.folder / "a.runs").exists, "it runs")
    for option in ([], ["--resume"], ["--overwrite"]):
        done = scripts.run("--tasks", records, "--workers", "1", *OUTPUT, *option, status=2)
        assert said(done) == [
            f"dispatcher.py: error: --output results.jsonl: another dispatcher (process {first.pid}) "
            "writes it; wait for its end, or choose another name"
        ]
    (scripts.folder / "a.go").touch()
    assert first.ends() == 0
    assert [each["value"] for each in scripts.results()] == ["a"]


# ---- a full disk


def texts(scripts: Scripts, count: int) -> Path:
    """Tasks whose results take 20 kB each, every third in a file of its own."""
    records = [
        task("jobs.ones", 2500, id=f"t{n}") if n % 3 == 0 else task("operator.mul", "x", 20_000, id=f"t{n}")
        for n in range(count)
    ]
    return scripts.tasks(*records)


def whole(disk: Path) -> bool:
    data = (disk / "r.jsonl").read_bytes()
    return not data or data.endswith(b"\n")


def test_a_full_disk_is_waited_for(scripts: Scripts, disk: Path) -> None:
    worker = scripts.worker("--cores", "2", "--no-pin")
    command = ["--tasks", texts(scripts, 32), "--output", disk / "r.jsonl"]
    dispatcher = scripts.dispatcher(*command)
    line = dispatcher.says("No space left on device")
    assert line.endswith("; trying again for 30 s, and handing out nothing meanwhile")
    assert whole(disk)
    time.sleep(1)  # it goes on trying; and neither end takes the other for dead
    (disk / "ballast").unlink()
    dispatcher.says("results can be written again: ")
    assert dispatcher.ends() == 0
    results = scripts.by_id("disk/r.jsonl")
    assert len(results) == 32
    assert {each["attempt"] for each in results.values()} == {1}
    assert len(list(disk.glob("r.jsonl.d/*.npy"))) == 11
    assert not worker.ended


def test_a_disk_that_stays_full_ends_the_run_and_a_resume_completes_it(scripts: Scripts, disk: Path) -> None:
    scripts.worker("--cores", "2", "--no-pin")
    command = ["--tasks", texts(scripts, 32), "--output", disk / "r.jsonl"]
    dispatcher = scripts.run(*command, "--wait", "3", status=1)
    assert whole(disk)
    before = len(scripts.by_id("disk/r.jsonl"))
    assert 0 < before < 32
    assert re.search(
        r" of 32 tasks done: \d+ ok; \d+ of these could not be written$", dispatcher.stdout, re.M
    )
    rest, error = said(dispatcher)[-2:]
    assert rest == f"{disk}/r.jsonl: {32 - before} of 32 tasks unfinished; --resume goes on with them"
    assert error.startswith("dispatcher.py: error: ")
    assert error.endswith(": No space left on device")
    (disk / "ballast").unlink()
    done = scripts.run(*command, "--resume")
    assert any(f"{before} of 32 tasks recorded before, {32 - before} to run" in line for line in said(done))
    results = scripts.by_id("disk/r.jsonl")
    assert len(results) == 32
    assert {each["status"] for each in results.values()} == {"ok"}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_waits_for_the_disk(
    scripts: Scripts, disk: Path, number: signal.Signals, status: int
) -> None:
    dispatcher = scripts.dispatcher("--tasks", texts(scripts, 32), "--output", disk / "r.jsonl", *WORKERS)
    dispatcher.says("No space left on device")
    dispatcher.send(number)
    assert dispatcher.ends(20) == status
    assert "Traceback" not in dispatcher.stderr
    assert said(dispatcher)[-1].endswith(" of 32 tasks unfinished; --resume goes on with them")
    assert whole(disk)
    scripts.nothing_lives()
