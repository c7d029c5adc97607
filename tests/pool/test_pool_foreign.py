"""A task may write into all that its process shares with the worker: that is its own death, and no more."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from executor.board import Done, as_list
from executor.messages import Report
from tests.pool.driving import Driver, item, value

Start = Callable[..., Driver]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def frame(head: bytes) -> bytes:
    return struct.pack("<IQ", 1, len(head)) + head


def done(count: int, *places: int, first: int = 0) -> bytes:
    reports = [msgspec.msgpack.encode(Report(place, 1, "ok", msgspec.Raw(b"\x07"))) for place in places]
    listed = as_list(len(places), b"".join(reports))
    return frame(msgspec.msgpack.encode(Done(first, count, 0, False, 1.0, 2.0, listed)))


FOREIGN = {
    "what is no frame": b"GET / HTTP/1.1\r\n\r\n" * 100,
    "a frame without parts": b"\0\0\0\0",
    "a frame that would be endless": struct.pack("<IQ", 1, 2**39),
    "a part that lies nowhere": struct.pack("<IQ", 1, 300 << 40 | 1 << 20),
    "a frame of something else": frame(b"\x93\x01\x02\x03"),
    "reports that are not there": done(2**40),
    "reports of other calls": done(1, 12345, first=1),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_call_that_sends_the_worker_something_has_crashed(start: Start, what: str) -> None:
    driver = start(1)
    driver.run(item(0, "calls.pid"))
    bad = item(1, "calls.write_into_every_socket", FOREIGN[what])
    reports = driver.run(bad, *(item(n, "calls.pid") for n in range(2, 6)))
    (crashed,) = [report for report in reports if report.status != "ok"]
    assert (crashed.place, crashed.status) == (1, "crashed")
    assert crashed.error is not None
    assert "what is no report" in crashed.error[1]
    assert all(value(report) for report in reports if report.place != 1)


@pytest.mark.parametrize("byte", [0, 1, 255])
def test_a_call_that_writes_over_what_is_shared_dies_alone(start: Start, byte: int) -> None:
    driver = start(1)
    driver.run(item(0, "calls.pid"))
    reports = driver.run(item(1, "calls.write_over_all_that_is_shared", bytes([byte])), item(2, "calls.pid"))
    assert {report.place: report.status for report in reports} == {1: "crashed", 2: "ok"}


def test_what_is_shared_can_not_be_cut_under_the_worker(start: Start) -> None:
    """But for what the task itself prints to, which its worker never maps."""
    driver = start(1)
    cut, after = driver.run(item(0, "calls.truncate_all_that_is_shared"), item(1, "calls.pid"))
    assert set(value(cut)) <= {"stdout", "stderr"}
    assert after.status == "ok"


def test_processes_of_whoever_uses_a_pool_are_left_alone(start: Start) -> None:
    """Such as a server that it started, in a session of its own."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as own:
        driver = start(1)
        driver.run(item(0, "calls.pid"))
        driver.pool.close()
        try:
            assert own.poll() is None
        finally:
            own.kill()
