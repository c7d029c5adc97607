"""What dispatcher.py prints, writes, and ends with."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripts import IN_THE_BACKGROUND, Scripts, local, read_lines, task, wait_until

#: The names of a result, in their order.
NAMES = [
    "id", "function", "params", "kwargs", "resources", "status", "value", "error", "attempt", "worker",
    "host", "cores", "submitted", "started", "finished",
]  # fmt: skip


# ---- order


def test_the_orders(scripts: Scripts) -> None:
    widths = [2, 1, 4, 1, 2]
    tasks = scripts.tasks(*(task("min", n, resources=width) for n, width in enumerate(widths)))

    def shown(*options: str) -> list[tuple[int, int]]:
        done = scripts.run("--tasks", tasks, "--dry-run", *options)
        assert done.stderr == ""
        found = re.findall(r"^\d +(\d) cores?  min\((\d)\)$", done.stdout, re.MULTILINE)
        assert len(found) == len(done.stdout.splitlines())
        return [(int(width), int(n)) for width, n in found]

    assert shown() == shown("--order", "cores") == [(1, 1), (1, 3), (2, 0), (2, 4), (4, 2)]
    assert shown("--order", "cores-descending") == [(4, 2), (2, 0), (2, 4), (1, 1), (1, 3)]
    assert shown("--order", "file") == [(2, 0), (1, 1), (4, 2), (1, 3), (2, 4)]


@pytest.mark.parametrize("order", ["cores", "cores-descending", "file"])
def test_a_worker_runs_them_in_that_order(scripts: Scripts, order: str) -> None:
    widths = [2, 1, 2, 1, 1, 2] * 3
    tasks = scripts.tasks(*(task("min", n, 99, resources=width) for n, width in enumerate(widths)))
    command = ["--tasks", tasks, "--workers", "1", "--cores", "2", "--output", "results.jsonl"]
    scripts.run(*command, "--order", order)
    results = sorted(scripts.results(), key=lambda result: result["started"])
    ran = [result["resources"] for result in results]
    if order == "file":
        # Two narrow ones may start in the same moment, so look at the wide ones.
        wide = [result["params"][0] for result in results if result["resources"] == 2]
        assert wide == sorted(wide)
        assert ran != sorted(ran)
    else:
        assert ran == sorted(widths, reverse=order == "cores-descending")


def test_a_dry_run_runs_and_writes_nothing(scripts: Scripts) -> None:
    tasks = scripts.tasks(task("jobs.hold", "never"))
    scripts.run("--tasks", tasks, "--dry-run", "--workers", "1", "--output", "results.jsonl")
    assert {path.name for path in scripts.folder.iterdir()} == {"jobs.py", "tasks.jsonl"}
    assert list(scripts.runtime.iterdir()) == []


# ---- the output file


def test_the_form_of_results(scripts: Scripts) -> None:
    began = time.time()
    records = [
        task("math.factorial", 30, id="ok"),
        task("jobs.fail", "no luck", kwargs={"seconds": 0}, id="error"),
        task("no.such_function", id="rejected"),
        task("jobs.noisy", "word", id="noisy"),
        task("jobs.values", id="values"),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1", "--cores", "2"]
    scripts.run(*command, "--output", "results.jsonl", status=1)
    results = scripts.by_id()

    def times(result: dict[str, Any]) -> list[float]:
        return [result.pop(name) for name in ("submitted", "started", "finished")]

    ok = results["ok"]
    assert list(ok) == NAMES
    assert began <= (at := times(ok))[0] <= at[1] <= at[2] <= time.time()
    assert ok.pop("host")
    assert len(ok.pop("cores")) == 1
    assert ok == {
        "id": "ok", "function": "math.factorial", "params": [30], "kwargs": {}, "resources": 1, "attempt": 1,
        "status": "ok", "value": 265252859812191058636308480000000, "error": None, "worker": "local-1",
    }  # fmt: skip

    error = results["error"]
    assert list(error) == NAMES
    assert (error["status"], error["value"], error["kwargs"]) == ("error", None, {"seconds": 0})
    assert list(error["error"]) == ["type", "message", "traceback"]
    assert (error["error"]["type"], error["error"]["message"]) == ("ValueError", "no luck")
    lines = error["error"]["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{scripts.folder}/jobs.py"' in lines[1]  # nothing of ours stands above the user's part
    assert lines[-1] == "ValueError: no luck"

    rejected = results["rejected"]
    assert list(rejected) == NAMES
    assert times(rejected)[1:] == [None, None]
    assert (rejected["status"], rejected["attempt"], rejected["cores"]) == ("rejected", 0, [])

    noisy = results["noisy"]
    assert list(noisy) == [*NAMES, "stdout", "stderr"]
    assert noisy["stdout"] == "word\nfrom os.write\nfrom C\nfrom a child\n"
    assert noisy["stderr"] == "WORD\n"

    assert results["values"]["value"] == {
        "nan": {"$float": "nan"}, "inf": {"$float": "-inf"}, "complex": {"$complex": [1.0, 2.0]},
        "bytes": {"$bytes": "AP8="}, "tuple": [1, [2]], "set": [1, 2, 3], "date": {"$date": "2026-01-02"},
        "big": 2**100, "map": {"$map": [[1, "a"], [[2, 3], "b"]]}, "none": None, "surrogate": "a\udcffb",
    }  # fmt: skip


def test_large_arrays_lie_beside_the_file(scripts: Scripts) -> None:
    records = [
        task("jobs.ones", 1000, id="inline"),
        task("jobs.ones", 7, 11, 13, id="file"),
        task("jobs.ones", 1000, 1000, id="../odd: id"),
    ]
    command = ["--tasks", scripts.tasks(*records), "--workers", "1"]
    scripts.run(*command, "--output", "r.jsonl")
    results = scripts.by_id("r.jsonl")
    assert results["inline"]["value"] == list(range(1000))
    assert results["file"]["value"] == {
        "$npy": "r.jsonl.d/file.npy",
        "shape": [7, 11, 13],
        "dtype": "float64",
    }
    expected = np.arange(1001.0).reshape(7, 11, 13)
    assert np.array_equal(np.load(scripts.folder / "r.jsonl.d/file.npy"), expected)
    odd = results["../odd: id"]["value"]
    assert odd["shape"] == [1000, 1000]
    assert Path(odd["$npy"]).parts[:-1] == ("r.jsonl.d",)
    assert np.load(scripts.folder / odd["$npy"])[-1, -1] == 999_999
    assert sorted(p.name for p in scripts.folder.glob("**/*.npy")) == sorted(
        ["file.npy", Path(odd["$npy"]).name]
    )

    # A file that holds something is only replaced when that is asked for, and its arrays with it.
    before = (scripts.folder / "r.jsonl").read_bytes()
    single = scripts.tasks(task("jobs.ones", 2000, id="new"), name="single.jsonl")
    refused = scripts.run("--tasks", single, "--workers", "1", "--output", "r.jsonl", status=2)
    assert refused.stderr.startswith("dispatcher.py: error: --output r.jsonl: holds ")
    for remedy in ("--resume", "--retry-failed", "--overwrite"):
        assert remedy in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (scripts.folder / "r.jsonl").read_bytes() == before
    scripts.run("--tasks", single, "--workers", "1", "--output", "r.jsonl", "--overwrite")
    assert [result["id"] for result in scripts.results("r.jsonl")] == ["new"]
    assert [path.name for path in scripts.folder.glob("r.jsonl.d/*.npy")] == ["new.npy"]


def test_an_empty_file_may_be_written_to(scripts: Scripts) -> None:
    (scripts.folder / "results.jsonl").touch()
    scripts.run("--tasks", scripts.tasks(task("min", 1, 2)), "--workers", "1", "--output", "results.jsonl")
    assert [result["value"] for result in scripts.results()] == [1]


@pytest.mark.parametrize("output", ["no/such/folder/r.jsonl", ".", ""])
def test_a_file_that_cannot_be_made_is_a_usage_error(scripts: Scripts, output: str) -> None:
    done = scripts.run(
        "--tasks", scripts.tasks(task("jobs.hold", "x")), "--workers", "1", "--output", output, status=2
    )
    assert done.stderr.startswith(f"dispatcher.py: error: --output {output or repr(output)}: ")
    assert done.stderr.count("\n") == 1


def test_the_tasks_are_not_overwritten_by_their_results(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2))
    before = records.read_text()
    link = scripts.folder / "link.jsonl"
    link.symlink_to(records)
    for output in (records, link):
        refused = scripts.run(
            "--tasks", records, "--output", output, "--overwrite", "--workers", "1", status=2
        )
        assert "--output and --tasks are one file" in refused.stderr
    assert records.read_text() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_disk_ends_the_run_with_one_line(scripts: Scripts) -> None:
    command = ["--tasks", scripts.tasks(task("min", 1, 2)), "--workers", "1", "--output", "/dev/full"]
    done = scripts.run(*command, "--wait", "1.5", status=1)
    why = "results can't be written: No space left on device"
    assert done.stderr.splitlines() == [
        f"{why}; trying again for 1.5 s, and handing out nothing meanwhile",
        f"dispatcher.py: error: {why}",
    ]
    assert done.stdout.splitlines()[0] == "1 of 1 task done: 1 ok; 1 of these could not be written"


def test_a_pipe_as_output(scripts: Scripts) -> None:
    """As a shell's >(gzip >results.gz): arrays are lists there."""
    reading, writing = os.pipe()
    records = scripts.tasks(task("jobs.ones", 40, 40))
    command = ["--tasks", records, "--workers", "1", "--output", f"/dev/fd/{writing}"]
    dispatcher = scripts.dispatcher(*command, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        [result] = read_lines(pipe.read())
    assert dispatcher.ends() == 0
    assert result["value"][39][39] == 1599
    assert "1 of 1 task done: 1 ok" in dispatcher.stdout


def test_results_are_written_as_they_arrive(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2), task("jobs.hold", "held"))
    dispatcher = scripts.dispatcher(
        "--tasks", records, "--workers", "1", "--cores", "2", "--output", "results.jsonl"
    )
    wait_until(lambda: (scripts.folder / "results.jsonl").exists() and scripts.results(), "the first result")
    assert not dispatcher.ended
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0
    assert len(scripts.results()) == 2


def test_output_on_stdout_leaves_nothing_else_there(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.noisy", "text"), task("jobs.ones", 50, 50), task("jobs.fail"))
    done = scripts.run("--tasks", records, "--workers", "1", "--output", "-", "--verbose", status=1)
    by_function = {result["function"]: result for result in read_lines(done.stdout)}
    assert len(by_function) == 3
    value = by_function["jobs.ones"]["value"]  # always lists here
    assert (len(value), len(value[0]), value[49][49]) == (50, 50, 2499)
    assert list(scripts.folder.glob("**/*.npy")) == []
    assert "3 of 3 tasks done: 2 ok, 1 error" in done.stderr
    assert "jobs.noisy('text') = None" in done.stderr
    assert "jobs.fail(): ValueError: as asked" in done.stderr


# ---- what is printed


def test_only_what_is_not_ok_is_printed_beside_an_output_file(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2), task("jobs.fail", "one"), task("jobs.fail", "one", id="x"))
    command = ["--tasks", records, "--workers", "1", "--output", "results.jsonl", "--overwrite"]
    plain = scripts.run(*command, status=1).stdout
    verbose = scripts.run(*command, "--verbose", status=1).stdout
    quiet = scripts.run(*command, "--quiet", status=1)
    line = "min(1, 2) = 1"
    failure = "jobs.fail('one'): ValueError: one"
    assert (plain.count(line), verbose.count(line), quiet.stdout.count(line)) == (0, 1, 0)
    assert (plain.count(failure), verbose.count(failure), quiet.stdout.count(failure)) == (2, 2, 0)
    assert quiet.stderr == ""
    for text in (plain, verbose, quiet.stdout):  # failures are grouped, with their count and the first id
        assert "3 of 3 tasks done: 1 ok, 2 error" in text
        assert re.search(r"^  2 × .*ValueError: one\n.*error.* (\w{16}-0|x)$", text, re.MULTILINE)


def test_the_line_of_a_result(scripts: Scripts) -> None:
    records = scripts.tasks(task("operator.add", 1, 2, resources=2), task("jobs.fail", "two\nlines \x1b[31m"))
    done = scripts.run("--tasks", records, "--workers", "1", "--cores", "2", status=1)
    lines = done.stdout.splitlines()
    assert re.match(
        r"error +[\d.]+ (µs|ms|s) +core \d +local-1 +jobs.fail\(.*\): ValueError: two lines \\x1b\[31m$",
        lines[0],
    )
    assert re.match(r"ok +[\d.]+ (µs|ms|s) +cores \d[-,]\d +local-1 +operator.add\(1, 2\) = 3$", lines[1])
    assert re.match(
        r"[\d.]+ (ms|s) wall time, [\d.,]+/s, [\d.e-]+ core-seconds, efficiency \d\d?% of 2 cores$", lines[3]
    )


def test_progress_lines_where_there_is_no_terminal(scripts: Scripts) -> None:
    rest = [task("min", number, 1) for number in range(100)]  # more than the worker is given ahead
    records = scripts.tasks(task("jobs.fail"), task("min", 1), task("jobs.hold", "held"), *rest)
    dispatcher = scripts.dispatcher("--tasks", records, "--workers", "1", "--cores", "1")
    line = dispatcher.says(" done, ")
    assert re.fullmatch(r"2 of 103 done, 2 failed, 1 running, [\d.]+/s, [\w. ]+ left", line)
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 1


class Terminal:
    """The other end of a script's terminal, and all that came through it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        os.set_blocking(self._ours, False)
        self.seen = b""

    def shows(self, text: bytes) -> None:
        def shown() -> bool:
            try:
                self.seen += os.read(self._ours, 65536)
            except BlockingIOError:
                pass
            return text in self.seen

        wait_until(shown, f"{text!r} on the terminal")

    def types(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


def test_a_progress_bar_on_a_terminal(scripts: Scripts, terminal: Terminal) -> None:
    records = scripts.tasks(task("min", 2, 1), task("jobs.hold", "held"))
    dispatcher = scripts.dispatcher(
        "--tasks", records, "--workers", "1", "--cores", "1", stderr=terminal.theirs
    )
    terminal.shows(b"1 of 2 done, 1 running")
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0
    assert dispatcher.stdout.count("\x1b") == 0
    assert "jobs.hold('held') = 'held'" in dispatcher.stdout


def test_progress_lines_on_a_terminal_that_cannot_draw_a_bar(scripts: Scripts, terminal: Terminal) -> None:
    records = scripts.tasks(task("min", 2, 1), task("jobs.hold", "held"))
    command = ["--tasks", records, "--workers", "1", "--cores", "1"]
    dispatcher = scripts.dispatcher(*command, stderr=terminal.theirs, environment={"TERM": "dumb"})
    terminal.shows(b"1 of 2 done, 1 running")
    assert b"\x1b" not in terminal.seen
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0


def test_quiet_leaves_the_summary_alone(scripts: Scripts, terminal: Terminal) -> None:
    records = scripts.tasks(task("jobs.fail"), task("time.sleep", 1))  # a bar would be there after half of it
    command = ["--tasks", records, "--workers", "1", "--cores", "1", "--quiet"]
    done = scripts.run(*command, stderr=terminal.theirs, status=1)
    assert done.stdout.startswith("2 of 2 tasks done: 1 ok, 1 error\n")
    os.write(terminal.theirs, b"the end")
    terminal.shows(b"the end")
    assert terminal.seen == b"the end"


def test_tasks_that_are_typed_at_a_terminal(scripts: Scripts, terminal: Terminal) -> None:
    dispatcher = scripts.dispatcher("--tasks", "-", "--dry-run", stdin=terminal.theirs)
    dispatcher.says("reading tasks from this terminal, one JSON object per line; Ctrl-D ends them")
    terminal.types(b'{"function": "min", "params": [1, 2]}\n\x04')
    assert dispatcher.ends() == 0
    assert dispatcher.stdout == "1     1 core  min(1, 2)\n"


def test_a_second_ctrl_c_gives_the_cursor_back(scripts: Scripts, terminal: Terminal) -> None:
    scripts.worker("--cores", "1", "--grace", "30", "--no-pin")
    dispatcher = scripts.dispatcher(
        "--tasks", scripts.tasks(task("jobs.family", "held")), stderr=terminal.theirs
    )
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    terminal.shows(b"\x1b[?25l")
    assert b"\x1b[?25h" not in terminal.seen
    dispatcher.send(signal.SIGINT)
    terminal.shows(b"cancelling what runs")
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    terminal.shows(b"\x1b[?25h")


@pytest.mark.parametrize("output", [[], ["--output", "-"], ["--dry-run"]])
def test_a_reader_that_goes_away_is_no_traceback(scripts: Scripts, output: list[str]) -> None:
    reading, writing = os.pipe()
    records = scripts.tasks(
        task("min", 1, 2), task("jobs.hold", "held"), *(task("min", n) for n in range(50))
    )
    dispatcher = scripts.dispatcher(
        "--tasks", records, "--workers", "1", "--cores", "1", *output, stdout=writing
    )
    os.close(writing)
    os.close(reading)
    (scripts.folder / "held.go").touch()
    status = dispatcher.ends()
    assert "Traceback" not in dispatcher.stderr
    assert "BrokenPipe" not in dispatcher.stderr
    assert status == (0 if output == ["--dry-run"] else 1)  # calls of min(n) are errors, lost results one too


# ---- limits


def test_max_failures(scripts: Scripts) -> None:
    records = [
        task("jobs.hold", "held", id="held"),
        *(task("jobs.fail", "no", 0.05, id=str(n)) for n in range(60)),
    ]
    command = ["--tasks", scripts.tasks(*records), *local(1, 2), "--output", "results.jsonl"]
    dispatcher = scripts.dispatcher(*command, "--max-failures", "3")
    dispatcher.says("results not ok: handing out no more (--max-failures 3)")
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 1
    results = scripts.by_id()
    assert results.pop("held")["status"] == "ok"  # what ran finished
    assert {result["status"] for result in results.values()} == {"error"}
    assert 3 <= len(results) < 20  # those that ran already; the rest is unrecorded


def test_as_many_failures_as_tasks_are_no_hang(scripts: Scripts) -> None:
    command = ["--tasks", scripts.tasks(task("jobs.fail")), "--workers", "1", "--max-failures", "1"]
    scripts.run(*command, status=1)


def test_retries_and_timeouts_for_all(scripts: Scripts) -> None:
    records = [
        task("jobs.flaky", "marker", id="flaky", timeout=60),
        task("jobs.fail", id="never", timeout=60, retries=0),
        task("jobs.fail", id="always", timeout=60),
        task("time.sleep", 60, id="slow"),
        task("time.sleep", 60, id="own", timeout=0.1),
    ]
    command = ["--tasks", scripts.tasks(*records), *local(1, 2), "--output", "results.jsonl"]
    scripts.run(*command, "--retries", "1", "--timeout", "0.4", status=1)
    results = scripts.by_id()
    assert {key: (result["status"], result["attempt"]) for key, result in results.items()} == {
        "flaky": ("ok", 2), "never": ("error", 1), "always": ("error", 2),
        "slow": ("timeout", 1), "own": ("timeout", 1),
    }  # fmt: skip
    assert "its timeout is 0.4 s" in results["slow"]["error"]["message"]
    assert "its timeout is 0.1 s" in results["own"]["error"]["message"]
    assert 0.4 <= results["slow"]["finished"] - results["slow"]["started"] < 20


# ---- Ctrl-C, SIGTERM, and nobody there


def test_ctrl_c_cancels_what_runs_and_the_worker_serves_the_next(scripts: Scripts) -> None:
    worker = scripts.worker("--cores", "2", "--no-pin")
    records = [task("jobs.hold_the_gil", "a", id="a"), task("jobs.family", "b", id="b")]
    records += [task("min", n, id=str(n)) for n in range(20)]
    dispatcher = scripts.dispatcher(
        "--tasks", scripts.tasks(*records), "--output", "results.jsonl", "--order", "file"
    )
    wait_until(lambda: all((scripts.folder / f"{name}.runs").exists() for name in "ab"), "both run")
    sent_at = time.time()
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    results = scripts.by_id()
    assert set(results) == {"a", "b"}  # the rest, which had not begun, is not recorded
    for result in results.values():
        assert (result["status"], result["error"]["type"]) == ("cancelled", "Cancelled")
        assert result["finished"] - sent_at < 30  # says "within a second or so"
    assert "cancelling what runs" in dispatcher.stderr
    assert "2 of 22 tasks done: 2 cancelled" in dispatcher.stdout

    scripts.run("--tasks", scripts.tasks(task("min", 1, 2, resources=2)))  # its cores are free again
    pids = {int(pid) for name in "ab" for pid in (scripts.folder / f"{name}.runs").read_text().split()}
    assert len(pids) == 6
    wait_until(lambda: not pids & {process.pid for process in scripts.alive()}, "all of them end")
    assert not worker.ended


def test_a_second_ctrl_c_ends_at_once(scripts: Scripts) -> None:
    scripts.worker("--cores", "1", "--grace", "30", "--no-pin")
    dispatcher = scripts.dispatcher("--tasks", scripts.tasks(task("jobs.family", "held")))
    wait_until((scripts.folder / "held.runs").exists, "it runs")
    dispatcher.send(signal.SIGINT)
    dispatcher.says("cancelling what runs")
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    assert "Traceback" not in dispatcher.stderr


def test_stopped_while_it_waits_for_a_worker_or_its_turn(scripts: Scripts) -> None:
    first = scripts.dispatcher()
    other = scripts.dispatcher("--address", f"unix:{scripts.runtime}/other")
    first.says("waiting for a worker")
    other.says("waiting for a worker")
    behind = [scripts.dispatcher(), scripts.dispatcher()]
    for dispatcher in behind:
        dispatcher.says("another dispatcher")
    ends = {130: (signal.SIGINT, [other, behind[0]]), 143: (signal.SIGTERM, [first, behind[1]])}
    for number, stopped in ends.values():
        for dispatcher in stopped:
            dispatcher.send(number)
    for status, (_, stopped) in ends.items():
        for dispatcher in stopped:
            assert dispatcher.ends() == status
            assert "Traceback" not in dispatcher.stderr


@pytest.mark.parametrize("phase", ["its turn", "a worker"])
def test_ctrl_c_in_the_background_of_a_script(scripts: Scripts, phase: str) -> None:
    first = scripts.dispatcher()
    first.says("waiting for a worker")
    address = ["--address", f"unix:{scripts.runtime}/other"] if phase == "a worker" else []
    second = scripts.dispatcher(*address, under=IN_THE_BACKGROUND)
    second.says("waiting for a worker" if address else "another dispatcher")
    second.send(signal.SIGINT)
    assert second.ends() == 130
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("module", ["executor.taskfile", "zmq"])
def test_ctrl_c_while_it_starts(scripts: Scripts, module: str) -> None:
    dispatcher = scripts.dispatcher(environment=scripts.signalled_at("import", module))
    assert dispatcher.ends() == 130
    assert (dispatcher.stdout, dispatcher.stderr) == ("", "")


def test_nobody_comes_within_wait(scripts: Scripts) -> None:
    done = scripts.run("--wait", "0.3", status=3)
    assert done.stderr == f"dispatcher.py: error: no worker at {scripts.address} within 0.3 s\n"


def test_too_wide_for_every_worker_so_far(scripts: Scripts) -> None:
    scripts.worker("--cores", "1", "--no-pin").says("waiting for a dispatcher")
    records = scripts.tasks(
        task("min", 1, 2, resources=3, id="three"),
        task("min", 1, 2, resources=2, id="two"),
        task("min", 3, 2, id="one"),
    )
    command = ["--tasks", records, "--output", "results.jsonl", "--wait"]
    scripts.run(*command, "3", status=1)  # enough for the worker to connect
    results = scripts.by_id()
    assert {key: result["status"] for key, result in results.items()} == {
        "one": "ok", "two": "rejected", "three": "rejected",
    }  # fmt: skip
    for key, cores in (("two", 2), ("three", 3)):
        assert results[key]["error"]["type"] == "TooWide"
        assert results[key]["error"]["message"] == f"{cores} cores, but the widest worker has 1"

    # A wider one that comes in time takes them.
    dispatcher = scripts.dispatcher(*command, "60", "--overwrite")
    line = dispatcher.says("wide enough")
    assert "no worker is wide enough for 2 tasks" in line
    assert "the widest has 1; rejected 60 s after the rest" in line
    scripts.worker("--cores", "3", "--no-pin", "--name", "wide")
    assert dispatcher.ends() == 0
    assert {scripts.by_id()[key]["worker"] for key in ("two", "three")} == {"wide"}


# ---- usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", "0"], "--workers: must be an integer of at least 1, not '0'"),
        (["--workers", "two"], "--workers: must be an integer of at least 1, not 'two'"),
        (["--order", "size"], "invalid choice: 'size'"),
        (["--wait", "-1"], "--wait: must be at least 0 seconds, not '-1'"),
        (["--wait", "nan"], "--wait: must be a number of seconds, not 'nan'"),
        (["--timeout", "0"], "--timeout: must be more than 0 seconds"),
        (["--retries", "-1"], "--retries: must be an integer of at least 0, not '-1'"),
        (["--max-failures", "0"], "--max-failures: must be an integer of at least 1"),
        (["--overwrite"], "--overwrite goes with --output FILE"),
        (["--resume", "--output", "-"], "--resume goes with --output FILE"),
        (["--retry-failed"], "--retry-failed goes with --output FILE"),
        (
            ["--resume", "--overwrite", "--output", "x"],
            "argument --overwrite: not allowed with argument --resume",
        ),
        (["--collect", "a", "--retry-failed", "--output", "x"], "--retry-failed does not go with --collect"),
        (["--detach", "--resume", "--output", "x"], "does not go with --detach"),
        (["--outptu", "x"], "unrecognized arguments: --outptu x; did you mean --output?"),
        (["stray"], "unrecognized arguments: stray; --help lists the options"),
    ],
)
def test_a_wrong_command_line(scripts: Scripts, arguments: list[str], says: str) -> None:
    done = scripts.run(*arguments, status=2)
    [line] = done.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize("script", ["dispatcher.py", "worker.py"])
def test_help_names_every_option_and_exit_status(scripts: Scripts, script: str) -> None:
    shown = scripts.start(script, "--help", environment={"COLUMNS": "80"})
    assert shown.ends() == 0
    assert max(map(len, shown.stdout.splitlines())) <= 80
    options = {
        "dispatcher.py": "--tasks --order --dry-run --timeout --retries --max-failures --output --overwrite "
        "--resume --retry-failed --verbose --quiet --workers --cores --wait --yaml --yamll --address "
        "--version 130 143",
        "worker.py": "--cores --no-pin --backfill --once --name --grace --wait --yaml --yamll --address 130",
    }[script].split()
    for option in options:
        assert option in shown.stdout
    assert "--lifeline" not in shown.stdout
    version = scripts.start(script, "--version")
    assert version.ends() == 0
    assert version.stdout.startswith(f"{script} ")


def test_results_of_a_run_are_json_that_any_reader_takes(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.echo", {"a": [1.5, None, True, "é\u2028\n"]}))
    done = scripts.run("--tasks", records, "--workers", "1", "--output", "-")
    [line] = done.stdout.split("\n")[:-1]
    assert json.loads(line)["value"] == {"a": [1.5, None, True, "é\u2028\n"]}


def test_near_the_end_a_line_names_what_still_runs_and_where(scripts: Scripts) -> None:
    records = [task("jobs.echo", number) for number in range(20)]
    records.append(task("jobs.hold", "the last one"))
    command = ["--tasks", scripts.tasks(*records), "--workers", "2", "--cores", "1"]
    loud = scripts.dispatcher(*command, "--output", "loud.jsonl")
    quiet = scripts.dispatcher(*command, "--output", "quiet.jsonl", "--quiet")
    line = loud.says("1 running: ")
    assert re.fullmatch(
        r"20 of 21 done, 1 running: jobs\.hold\('the last one'\) on local-[12] for \d+ s", line
    ), line
    assert quiet.stderr == ""
    (scripts.folder / "the last one.go").touch()
    assert loud.ends() == 0
    assert quiet.ends() == 0
