"""The pure parts of the benchmarks: figures, ratios, targets, tables, bars, a small simulation."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import picture, report, simulate, throughput
from benchmarks.__main__ import PARTS
from benchmarks.machine import ROOT
from benchmarks.measure import Failed, Figure, Part, Target, at_least, at_most, percentile, ratios, rounds
from benchmarks.scripts import read_results


def test_cases_are_measured_in_turn_and_each_ratio_is_of_one_round() -> None:
    order: list[str] = []
    speeds = {"a": iter([10.0, 5.0, 30.0]), "b": iter([5.0, 5.0, 10.0])}

    def case(name: str) -> dict[str, float]:
        order.append(name)
        return {name: next(speeds[name])}

    values = rounds(3, {"a": lambda: case("a"), "b": lambda: case("b")})
    assert order == ["a", "b"] * 3
    one, other = (Figure(name, "tasks/s", each) for name, each in values.items())
    assert ratios(one, other) == [2, 1, 3]
    part = Part("p", "P", [one, other], [], reference="b")
    assert part.ratio(one) == 2
    assert part.ratio(Figure("c", "MB/s", [1, 1, 1])) is None


@pytest.mark.parametrize(
    ("target", "met", "share"),
    [
        (at_least("a", 2, [1, 2, 9]), True, 1),
        (at_least("a", 4, [1, 2, 9]), False, 0.5),
        (at_most("a", 2, [1, 2, 9]), True, 1),
        (at_most("a", 1, [1, 2, 9]), False, 0.5),
    ],
)
def test_a_target_is_met_by_the_median(target: Target, met: bool, share: float) -> None:
    assert target.met is met
    assert target.share == share


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.00021, "s", "210 µs"),
        (1.2, "s", "1.2 s"),
        (65e6, "bytes", "65 MB"),
        (123456.7, "tasks/s", "123,457 tasks/s"),
        (0.98, "", "0.98"),
    ],
)
def test_values_are_shown_in_what_suits_them(number: float, unit: str, text: str) -> None:
    assert report.value(number, unit) == text


def shown(part: Part) -> str:
    out = io.StringIO()
    report.show(part, Console(file=out, width=120))
    return out.getvalue()


def test_a_table_says_what_is_met_and_by_how_much_it_is_not() -> None:
    figures = [Figure("fast", "tasks/s", [200.0, 300.0]), Figure("slow", "tasks/s", [100.0, 100.0])]
    part = Part(
        "p", "Speeds", figures, [at_least("x / y", 2, [2.5]), at_most("z", 1, [4], "s")], "slow", ["so"]
    )
    text = shown(part)
    for wanted in (
        "250 tasks/s",
        "200 tasks/s to 300 tasks/s",
        "× slow",
        "2.5",
        "met",
        "not met: 25% of it",
        "so",
    ):
        assert wanted in text
    assert report.verdict([part]) == "1 of 2 targets met"


def test_several_figures_of_each_are_one_row() -> None:
    figures = [
        Figure("us", "tasks/s", [50.0], column="calls"),
        Figure("us", "s", [0.001], column="alone"),
        Figure("them", "tasks/s", [5.0], column="calls"),
    ]
    row = next(line for line in shown(Part("p", "P", figures, [], "them")).splitlines() if "us" in line)
    assert row.split() == ["us", "50", "10", "1", "ms"]


def test_what_was_measured_is_written_and_read(tmp_path: Path) -> None:
    part = Part("p", "P", [Figure("a", "s", [1.0])], [at_most("a", 2, [1.0], "s")])
    record = report.Record(report.now(), {"cores": 2}, {"numpy": "2"}, 1, 0.5, [part])
    report.write(record, tmp_path / "new" / "p.json")
    assert report.read(tmp_path / "new" / "p.json") == record


def test_bars_are_of_throughput_alone_the_longest_first() -> None:
    here = Part(
        "throughput", "T",
        [
            Figure("zmq", "tasks/s", [100.0]), Figure("whole command, zmq", "tasks/s", [90.0]),
            Figure(throughput.BARE, "tasks/s", [400.0]), Figure(throughput.POOL, "tasks/s", [10.0]),
        ],
        [], throughput.POOL,
    )  # fmt: skip
    peers = Part(
        "peers", "P",
        [
            Figure("ours, zmq", "tasks/s", [110.0], column="calls"),
            Figure("ProcessPoolExecutor", "tasks/s", [11.0], column="calls"),
            Figure("Dask", "tasks/s", [1.1], column="calls"), Figure("Dask", "s", [1.0], column="alone"),
        ],
        [], "ProcessPoolExecutor",
    )  # fmt: skip
    assert [(bar.name, bar.ratio, bar.ours) for bar in picture.bars([here, peers])] == [
        ("function-executor, zmq", 10, True), ("ProcessPoolExecutor", 1, False),
        ("Dask", pytest.approx(0.1), False),
    ]  # fmt: skip


def test_targets_of_throughput_need_both_sides() -> None:
    figures = [Figure("zmq", "tasks/s", [150_000.0]), Figure(throughput.BARE, "tasks/s", [400_000.0])]
    assert [(each.text, each.met) for each in throughput.targets(figures)] == [
        ("zmq, tasks a second", True), ("zmq / bare loop", False),
    ]  # fmt: skip


def test_a_heavy_tail_on_a_virtual_clock() -> None:
    for workers in (3, 60):
        one, figures = simulate.replay_heavy(workers, 5000, seed=2)
        simulate.check(one)
        assert figures.makespan >= figures.bound
        assert figures.decisions >= 2 * 5000
        assert 5000 < figures.messages <= 4 * 5000
        assert figures.idle_tail <= 4 * simulate.RECALL


def line(**more: object) -> str:
    given = {"status": "ok", "resources": 2, "worker": "w", "started": 10.0, "finished": 10.5, "value": None}
    return json.dumps({**given, **more}) + "\n"


def test_the_time_is_that_between_the_first_start_and_the_last_end(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    results.write_text(line() + line(started=9.5, worker="v") + line(finished=11.5))
    ran = read_results(results, 3, wall=5, memory=7)
    assert (ran.span, ran.area, ran.rate, ran.workers) == (2, 2 * (0.5 + 1 + 1.5), 1.5, {"w": 2, "v": 1})
    assert (ran.late, ran.early) == (0.5, 1)  # w begins after v, and v ends before w


@pytest.mark.parametrize("more", [{"status": "error"}, {"started": None}])
def test_what_went_wrong_is_no_figure(tmp_path: Path, more: dict[str, object]) -> None:
    results = tmp_path / "r.jsonl"
    results.write_text(line(**more))
    with pytest.raises(Failed):
        read_results(results, 1, wall=1, memory=1)


def test_a_task_without_result_is_no_figure(tmp_path: Path) -> None:
    results = tmp_path / "r.jsonl"
    results.write_text(line())
    with pytest.raises(Failed, match="1 results of 2"):
        read_results(results, 2, wall=1, memory=1)


@pytest.mark.parametrize("module", PARTS.values())
def test_every_part_is_there(module: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{module}").measure)


@pytest.mark.parametrize(
    ("module", "options", "says"),
    [
        ("benchmarks", ["start", "--repeats", "0"], "--repeats: must be an integer of at least 1, not '0'"),
        ("benchmarks", ["start", "--size", "-1"], "--size: must be a number above 0, not '-1'"),
        ("benchmarks.simulate", ["--workers", "0"], "--workers: must be an integer of at least 1, not '0'"),
        ("benchmarks.simulate", ["--cores", "some"], "--cores: must be an integer of at least 1, not 'some'"),
    ],
)
def test_a_number_that_measures_nothing_is_refused_before_anything_runs(
    module: str, options: list[str], says: str
) -> None:
    command = [sys.executable, "-m", module, *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert says in ran.stderr.splitlines()[-1]
