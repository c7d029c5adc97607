"""What a task prints is kept for it alone, and whatever it starts ends with it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from driving import Driver, item, value

from executor.process import forget

Start = Callable[..., Driver]
Gone = Callable[[int], bool]


def test_what_a_task_prints_is_its_own(start: Start) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))
    speakers = {310, 311, 350}
    calls = [
        item(i, "calls.speak" if i in speakers else "calls.pid", *[str(i)] * (i in speakers))
        for i in range(300, 400)
    ]
    for report in driver.run(*calls):
        if report.place in speakers:
            assert report.stdout == f"{report.place} python c process"
            assert report.stderr == f"{report.place} error"
        else:
            assert report.stdout == report.stderr == ""


def test_what_is_opened_anew_is_kept_as_well(start: Start) -> None:
    driver = start(1)
    for place, text in enumerate(["one", "another"]):
        report, after = driver.run(
            item(2 * place, "calls.speak_through_the_device", text), item(2 * place + 1, "calls.pid")
        )
        assert report.stdout == f"{text}\n{text} again\n{text} end\n"
        assert report.stderr == f"{text} shell\n"
        assert after.stdout == after.stderr == ""


def test_a_file_that_a_task_prints_to_is_its_own(start: Start) -> None:
    driver = start(1)
    before, after = driver.run(
        item(0, "calls.speak_into_a_file", "file"), item(1, "calls.speak", "the next one")
    )
    assert before.stdout == ""
    assert after.stdout == "the next one python c process"
    assert Path("file").read_text() == "for the file\n"


def test_a_stream_that_a_task_puts_in_place_serves_it_alone(start: Start) -> None:
    driver = start(1)
    before, after = driver.run(
        item(0, "calls.speak_through_a_buffer", "text"), item(1, "calls.speak", "the next one")
    )
    assert before.stdout == "text"
    assert after.stdout == "the next one python c process"


def test_a_task_that_closes_its_streams_closes_nobody_elses(start: Start) -> None:
    driver = start(1)
    before, after = driver.run(item(0, "calls.close_streams"), item(1, "calls.speak", "the next one"))
    assert value(before)
    assert (after.status, after.stdout) == ("ok", "the next one python c process")


def test_what_is_dropped_of_much_is_not_the_next_ones(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that prints much returns at the last moment, between the look at it and the dropping."""
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))

    def late(descriptor: int, length: int) -> None:
        Path("go").touch()
        deadline = time.monotonic() + 0.5
        while not Path("spoke").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        forget(descriptor, length)
        Path("dropped").touch()

    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)  # what waits behind it is left where it is
    monkeypatch.setattr("executor.process.forget", late)
    much, after = driver.run(
        item(300, "calls.flood_until", 2 << 20, "go"),
        item(301, "calls.speak_and_wait", "a word", "spoke", "dropped"),
    )
    assert much.stdout == "x" * 64 * 1024
    assert after.stdout == "a word"


def test_a_copy_that_returns_from_its_task_has_no_say(start: Start) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))
    calls = [item(i, "calls.pid") for i in range(300, 350)]
    reports = driver.run(item(299, "calls.speak_from_a_copy", "the original"), *calls)
    assert value(reports[0]) == reports[0].stdout == "the original"
    assert len(driver.finished) == 351


def test_what_a_dying_task_printed_is_kept(start: Start) -> None:
    driver = start(1)
    dead, after = driver.run(item(0, "calls.speak_and_die", "last words"), item(1, "calls.pid"))
    assert dead.status == "crashed"
    assert (dead.stdout, dead.stderr) == ("last words c", "error")
    assert after.stdout == after.stderr == ""


def test_a_task_may_print_what_is_no_text(start: Start) -> None:
    driver = start(1)
    text, junk = driver.run(item(0, "print", "a\udcff"), item(1, "os.write", 1, b"b\xff"))
    assert (text.status, text.stdout) == ("ok", "a\\udcff\n")
    assert (junk.status, junk.stdout) == ("ok", "b\ufffd")


def test_the_last_64_kib_are_kept_however_much_is_printed(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.flood", 300 << 20))
    assert len(report.stdout) == 64 * 1024
    assert report.stdout.endswith("x\nthe end")
    assert value(report) <= 8 << 20, "bytes still held of 300 MiB"


def test_a_thread_that_is_left_ends_with_its_task(start: Start, gone: Gone) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.leave_thread"))
    driver.until(lambda: gone(value(report)))


@pytest.mark.parametrize("own_session", [False, True])
def test_a_process_that_is_left_ends_with_its_task(start: Start, gone: Gone, own_session: bool) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.leave_process", own_session))
    driver.until(lambda: all(gone(pid) for pid in value(report)))


def test_a_daemon_ends_with_its_task(start: Start, gone: Gone) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.leave_daemon"))
    driver.until(lambda: gone(value(report)))


def test_a_timeout_takes_the_whole_family(start: Start, gone: Gone) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.family", "pids", timeout=2.0))
    assert report.status == "timeout"
    # Its cores are free only now, and nobody is left on them.
    assert all(gone(int(pid)) for pid in Path("pids").read_text().split())


def test_a_death_is_told_when_the_last_descendant_is_dead(start: Start, gone: Gone) -> None:
    driver = start(1)
    driver.add(item(0, "calls.chain", "pids", 50, timeout=30.0))
    driver.until(Path("pids").exists)
    driver.pool.cancel("run")
    driver.until(lambda: bool(driver.finished))
    pids = Path("pids").read_text().split()
    assert len(pids) == 50
    assert all(gone(int(pid)) for pid in pids)


def test_a_program_that_a_task_waits_for_has_the_grace(start: Start) -> None:
    driver = start(1, grace=30.0)
    driver.add(item(0, "calls.wait_for_a_program", "begun", 0.2, timeout=1.0), item(1, "calls.pid"))
    driver.until(lambda: len(driver.finished) == 2)
    late, after = (each.report for each in driver.finished)
    assert (late.status, after.status) == ("timeout", "ok")
    assert Path("begun.saved").exists() or not Path("begun").exists()
    assert after.started >= late.finished


def test_a_killed_guardian_takes_sessions_of_their_own_with_it(start: Start, gone: Gone) -> None:
    driver = start(2)
    driver.add(item(0, "calls.family", "pids"), item(1, "calls.touch", "touched"))
    driver.until(lambda: Path("pids").exists() and Path("touched").exists())
    (guardian,) = psutil.Process().children()
    guardian.kill()
    driver.until(lambda: len(driver.finished) == 2)
    assert {each.report.status for each in driver.finished} == {"crashed"}
    assert all(gone(int(pid)) for name in ("pids", "touched") for pid in Path(name).read_text().split())


def test_closing_the_pool_ends_everything(start: Start, gone: Gone) -> None:
    driver = start(2)
    driver.add(item(0, "calls.family", "pids"), item(1, "calls.hold_the_gil", "held"))
    driver.until(lambda: Path("pids").exists() and Path("held").exists())
    driver.pool.close()
    assert all(gone(int(pid)) for name in ("pids", "held") for pid in Path(name).read_text().split())


def test_closing_the_pool_does_not_wait_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what can't die, a process that waits for a dead file server say; here the guardian is halted."""
    monkeypatch.setattr("executor.guardian._FAREWELL_SECONDS", 0.2)
    driver = start(1)
    driver.run(item(0, "calls.pid"))
    (guardian,) = psutil.Process().children()
    guardian.suspend()
    driver.pool.close()
    guardian.resume()
    assert guardian.wait(60) is not None


def test_a_task_may_use_multiprocessing(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.multiprocess"))
    assert value(report) == [1, 2, 3]


@pytest.mark.parametrize("function", ["calls.leave_thread", "calls.leave_process"])
def test_what_is_left_in_the_midst_of_a_batch_does_not_outlive_it(
    start: Start, gone: Gone, function: str
) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))  # known to be tiny: they come in batches
    arguments = [True] * (function == "calls.leave_process")
    driver.add(*(item(i, "calls.pid") for i in range(300, 310)), item(310, function, *arguments))
    driver.add(item(311, "calls.wait_for", "go"), *(item(i, "calls.pid") for i in range(312, 320)))
    driver.until(lambda: any(each.place == 311 for each in driver.pool.running()))
    (left,) = (value(each.report) for each in driver.finished if each.report.place == 310)
    driver.until(lambda: all(gone(pid) for pid in (left if isinstance(left, list) else [left])))
    Path("go").touch()
    driver.until(lambda: driver.pool.idle)
    assert [each.report.place for each in driver.finished] == list(range(320))


@pytest.mark.parametrize("timer", [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF])
def test_an_alarm_that_a_task_set_is_not_its_neighbours(start: Start, timer: int) -> None:
    driver = start(1)
    first, after = driver.run(item(0, "calls.set_alarm", 0.2, timer), item(1, "calls.compute", 0.5))
    assert first.status == after.status == "ok", after.error
    assert value(first) == value(after), "it was another process"


@pytest.mark.parametrize("change", [("os.chdir", "/"), ("signal.alarm", 1), ("calls.unpin",)])
def test_what_a_tiny_call_changes_is_set_right_before_the_next(
    start: Start, change: tuple[object, ...]
) -> None:
    driver = start(pinned=1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))  # known to be tiny: they come in batches
    name, *arguments = change
    calls = [
        item(300 + i, str(name), *arguments) if i % 2 == 0 else item(300 + i, "calls.place")
        for i in range(40)
    ]
    cores = list(driver.cores.ids)
    for report in driver.run(*calls):
        if report.place % 2:
            assert value(report) == [str(Path.cwd()), cores, 0]


def test_what_c_code_changes_is_set_right_soon(start: Start) -> None:
    driver = start(1)
    _, _, after = driver.run(
        item(0, "calls.change_in_c", "/"), item(1, "calls.nap", 0.001), item(2, "calls.place")
    )
    assert value(after)[0] == str(Path.cwd())


def test_functions_that_change_the_process_can_be_sent_to_another(start: Start) -> None:
    (report,) = start(1).run(item(0, "calls.pickled", "os.chdir"))
    assert value(report) == "os.chdir"
