"""What people read of a run."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from executor.brief import brief, call
from executor.screen import ResultLines, Summary
from executor.task import Error, Result
from executor.words import duration, one_line, plural, rate


def result(status: Any = "ok", **fields: Any) -> Result:
    known: dict[str, Any] = {
        "id": "an-id", "function": "package.module.function", "params": [1, "two"], "kwargs": {"three": 3.0},
        "resources": 2, "status": status, "attempt": 1, "worker": "local-1", "cores": [0, 1],
        "started": 10.0, "finished": 10.5,
    }  # fmt: skip
    return Result(**{**known, **fields})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"), (85e-6, "85 µs"), (0.00121, "1.21 ms"), (0.2134, "213 ms"), (0.9996, "1 s"),
        (4.2, "4.2 s"), (75, "75 s"), (725, "12 min 5 s"), (12_000, "3 h 20 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counts_and_rates() -> None:
    assert plural(1, "task") == "1 task"
    assert plural(12_000, "task") == "12,000 tasks"
    assert rate(8064.4) == "8,064/s"
    assert rate(0.25) == "0.25/s"


@given(st.text(st.characters() | st.sampled_from("日本語ｗ")), st.integers(1, 100))
def test_one_line_is_one_line_of_that_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert cell_len(line) <= width
    assert len(line.splitlines()) <= 1
    assert line.isprintable()


def test_large_values_are_shown_quickly() -> None:
    began = time.monotonic()
    for value in ([0] * 10**6, "x" * 10**7, 10**100_000, dict.fromkeys(range(10**6)), {*range(10**6)}):
        assert len(brief(value, 40)) <= 40
    assert brief(np.zeros((300, 400))) == "float64 array of 300 × 400"
    assert time.monotonic() - began < 30


def test_a_repr_that_raises_is_no_trouble() -> None:
    class Sulky:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "Sulky" in brief(Sulky())


def test_calls_lose_their_module_before_their_arguments() -> None:
    assert call("a.b.c", [1, "x"], {"k": None}) == "a.b.c(1, 'x', k=None)"
    assert call("a.long.path.to.function", [12345], {}, 20) == "…function(12345)"
    assert call("os.path.join", ["results", "run-1"], {}, 20) == "…join('results', '…)"
    assert len(call("os.path.join", ["results", "run-1"], {}, 6)) == 6


@given(st.text(st.characters() | st.sampled_from("日本語ｗ䷀")), st.integers(60, 200))
def test_a_result_has_one_line_of_the_screens_width(text: str, width: int) -> None:
    for each in (result(value=text), result("error", error=Error("ValueError", text), params=[text])):
        line = ResultLines().line(each, width)
        assert cell_len(line) <= width
        assert len(line.splitlines()) == 1


def test_a_line_holds_status_time_cores_worker_and_value() -> None:
    line = ResultLines().line(result(value=[1, 2]), 120)
    for part in (
        "ok",
        "500 ms",
        "cores 0-1",
        "local-1",
        "package.module.function(1, 'two', three=3)",
        "= [1, 2]",
    ):
        assert part in line
    never = ResultLines().line(
        result("rejected", cores=[], started=None, finished=None, worker=None, error=Error("TooWide", "why")),
        120,
    )
    assert "TooWide: why" in never


def test_lines_stand_below_one_another() -> None:
    lines = ResultLines()
    first = lines.line(result(worker="a-worker-with-a-name", cores=[0, 2, 4, 6, 8]), 120)
    second = lines.line(result(worker="short", cores=[0]), 120)
    assert first.index("package.module") == second.index("package.module")
    assert "function(1, " in lines.line(result(worker="x" * 100, cores=[*range(0, 100, 2)]), 120)


def test_the_summary_groups_failures() -> None:
    summary = Summary(5)
    summary.cores = 2
    summary.add([result(value=1)])
    for name in ("first", "second"):
        summary.add([result("error", id=name, error=Error("ValueError", "bad\nthing"))])
    summary.add([result("timeout", id="late", error=Error("Timeout", "killed"))])
    lines = summary.lines(2.0, 100)
    text = "\n".join(lines)
    assert "4 of 5 tasks done: 1 ok, 2 error, 1 timeout" in text
    assert "2 s wall time, 2/s, 4 core-seconds, efficiency 100% of 2 cores" in text
    assert "2 × ValueError: bad thing" in text
    assert "first first" in text
    assert "first second" not in text
    assert max(map(len, lines)) <= 100


def test_what_began_before_the_run_does_not_count_for_its_efficiency() -> None:
    summary = Summary(1)
    summary.cores = 2
    summary.add([result(submitted=100.0, started=10.0, finished=101.0, resources=2)])
    assert "182 core-seconds, efficiency 50% of 2 cores" in summary.lines(2.0, 200)[1]


def test_a_message_in_the_summary_is_wrapped_whole() -> None:
    message = (
        "a value of type _thread.lock can't travel; return plain values: numbers, text, bytes, lists, arrays"
    )
    summary = Summary(20)
    for i in range(12):
        summary.add([result("error", id=f"long-{i}", error=Error("CannotTravel", message))])
    summary.add([result("error", id="short", error=Error("E", "x" * 1000))])
    summary.add([result("error", id="wide", error=Error("E", "語" * 60))])
    lines = summary.lines(1.0, 60)
    assert lines[2:6] == [
        "  12 × CannotTravel: a value of type _thread.lock can't",
        "       travel; return plain values: numbers, text, bytes,",
        "       lists, arrays",
        "       error, first long-0",
    ]
    assert lines[6].startswith("   1 × E:")
    assert sum("xxx" in line for line in lines) == 4
    assert "".join(lines).count("語") == 60
    assert max(map(cell_len, lines)) <= 60


def test_the_summary_of_nothing() -> None:
    assert Summary(3).lines(0.0, 80) == ["0 of 3 tasks done"]


def test_many_kinds_of_failures_are_counted_not_listed() -> None:
    summary = Summary(100)
    for i in range(50):
        summary.add([result("error", error=Error("E", str(i)))])
    assert "40 more, of 40 other kinds" in "\n".join(summary.lines(1, 80))
