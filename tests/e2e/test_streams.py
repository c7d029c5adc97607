"""The scripts beside streams that are closed, full, or can't show every character."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import Script, Scripts, read_lines, task

NO_SPACE = "No space left on device"
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")


def dispatcher(scripts: Scripts, redirection: str, *arguments: str | Path, **options: str) -> Script:
    """Start a dispatcher as a shell does with such a redirection."""
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    return scripts.dispatcher(*arguments, under=shell, environment=options)


@full
def test_results_that_cannot_be_printed_are_told_and_the_run_goes_on(scripts: Scripts) -> None:
    records = scripts.tasks(*(task("jobs.flaky", name, retries=1) for name in "ab"))
    done = dispatcher(scripts, ">/dev/full", "--tasks", records, "--workers", "1")
    assert done.ends() == 1
    assert done.stderr.splitlines()[-1] == f"dispatcher.py: error: results can't be printed: {NO_SPACE}"
    assert all((scripts.folder / name).exists() for name in "ab")


@full
def test_results_in_a_file_do_not_depend_on_what_is_printed(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2), task("min", 3, 4))
    arguments = ["--tasks", records, "--workers", "1", "--output"]
    done = dispatcher(scripts, ">/dev/full", *arguments, "results.jsonl", "--verbose")
    assert done.ends() == 0, done.log()
    assert sorted(result["value"] for result in scripts.results()) == [1, 3]
    for redirection in ("2>/dev/full", "2>&-"):
        done = dispatcher(scripts, redirection, *arguments, "-")
        assert done.ends() == 0
        assert len(read_lines(done.stdout)) == 2


@full
def test_an_order_that_cannot_be_printed(scripts: Scripts) -> None:
    done = dispatcher(scripts, ">/dev/full", "--dry-run")
    assert done.ends() == 1
    assert done.stderr == f"dispatcher.py: error: the order can't be printed: {NO_SPACE}\n"


@pytest.mark.parametrize("redirection", ["<&-", "2>&-", "<&- 2>&-"])
def test_streams_that_are_closed_are_missed_by_nobody(scripts: Scripts, redirection: str) -> None:
    """Nor does a socket take the place of one, into which then somebody prints."""
    records = scripts.tasks(task("jobs.noisy", "loud"))
    done = dispatcher(scripts, redirection, "--tasks", records, "--workers", "1")
    assert done.ends() == 0, done.log()
    assert "jobs.noisy('loud') = None" in done.stdout
    assert "loud" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_is_an_error(scripts: Scripts) -> None:
    records = scripts.tasks(task("min", 1, 2))
    for output in ([], ["--output", "-"]):
        done = dispatcher(scripts, ">&-", "--tasks", records, "--workers", "1", *output)
        assert done.ends() == 1
        assert done.stderr.splitlines()[-1].endswith("Bad file descriptor")
        assert "Traceback" not in done.stderr


def test_tasks_from_a_closed_stdin(scripts: Scripts) -> None:
    done = dispatcher(scripts, "<&-", "--tasks", "-", "--dry-run")
    assert done.ends() == 2
    assert done.stderr == "dispatcher.py: error: stdin: can't be read: Bad file descriptor\n"
    done = dispatcher(scripts, "<&- 2>&-", "--tasks", "-", "--dry-run")
    assert done.ends() == 2


def test_a_terminal_of_ascii_alone(scripts: Scripts) -> None:
    records = scripts.tasks(task("jobs.echo", "é…"), task("jobs.fail", "é…"), task("jobs.fail", "é…"))
    done = dispatcher(scripts, "", "--tasks", records, "--workers", "1", PYTHONIOENCODING="ascii")
    assert done.ends() == 1
    assert r"jobs.echo('\xe9\u2026') = '\xe9\u2026'" in done.stdout
    assert r"2 \xd7" in done.stdout


@pytest.mark.parametrize("redirection", ["2>&-", "<&- >&- 2>&-"])
def test_a_worker_without_streams(scripts: Scripts, redirection: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    worker = scripts.worker("--once", "--cores", "1", "--no-pin", under=shell)
    scripts.run("--tasks", scripts.tasks(task("jobs.noisy", "loud"), task("jobs.read_stdin")))
    assert worker.ends() == 0
    assert worker.stdout == ""
