"""The peers beside us, on the same work: one table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import arrays, latency, mixed
from benchmarks.measure import Bench, Case, Failed, Figure, Part, percentile, rounds
from benchmarks.peers import environment
from benchmarks.scripts import dispatch, folder, no_ops, write_settings
from benchmarks.work import ARRAY_BYTES, ARRAYS

#: What is measured of each, with its unit: the columns of the table.
MANY, ONCE, THERE_AND_BACK, MIXED = "no-op calls", "one at a time, p50", "1 MB arrays", "mixed widths"
COLUMNS = {MANY: "tasks/s", ONCE: "s", THERE_AND_BACK: "MB/s", MIXED: "of the ideal"}

#: Names in the table.
NAMES = {
    "processpool": "ProcessPoolExecutor", "joblib": "joblib (auto-batched)", "dask": "Dask", "ray": "Ray",
    "parsl": "Parsl HTEX", "executorlib": "executorlib", "celery": "Celery on RabbitMQ",
}  # fmt: skip

#: No-op calls that each gets: enough for some seconds. joblib puts them together by itself.
CALLS = {
    "processpool": 30_000, "joblib": 300_000, "dask": 2000, "ray": 5000, "parsl": 3000, "executorlib": 10_000,
    "celery": 3000,
}  # fmt: skip

#: Our own calls, and calls one at a time.
OURS, SINGLY = 300_000, 300


def measure(bench: Bench) -> Part:
    """Measure everybody who is there."""
    remarks: list[str] = []
    with folder() as here:
        cases: dict[str, Case] = {}
        cases["ours, zmq"] = partial(_ours, bench, here)
        try:
            cases["ours, rabbitmq"] = partial(_on_rabbitmq, bench, here, bench.rabbitmq())
        except Failed as failed:  # no broker: the table says so
            remarks.append(str(failed))
        versions: dict[str, str] = {}
        for name in environment.PEERS:
            if not environment.has(name):
                remarks.append(f"{NAMES[name]} is left out: {environment.HOW}")
                continue
            try:
                _peer(bench, name, versions, many=50)  # one that does not work here is not waited for again
            except Failed as failed:  # nor does one that fails keep the others from being measured
                remarks.append(f"{NAMES[name]} is left out: {failed}")
                continue
            cases[NAMES[name]] = partial(
                _peer, bench, name, versions, many=bench.count(CALLS[name]), once=bench.count(SINGLY),
                arrays=bench.count(ARRAYS, least=4), mixed=1,
            )  # fmt: skip
        values = rounds(bench.repeats, cases, bench.say)
    figures = []
    for key, each in values.items():
        name, column = key.split("|")
        figures.append(Figure(name, COLUMNS[column], each, column=column))
    remarks.append("versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    title = "Peers on the same work: 2 processes; mixed widths on 8 logical cores"
    return Part("peers", title, figures, [], NAMES["processpool"], remarks)


def _ours(bench: Bench, here: Path) -> dict[str, float]:
    name = "ours, zmq"
    count = bench.count(OURS)
    tasks = no_ops(here / "no-ops.jsonl", count)
    ran = dispatch(tasks, count, "--workers", "2", "--cores", "1", results=here / "results.jsonl")
    return {
        f"{name}|{MANY}": ran.rate,
        f"{name}|{ONCE}": percentile(latency.ours(bench.count(SINGLY, least=10)), 0.5),
        f"{name}|{THERE_AND_BACK}": arrays.ours(bench.count(ARRAYS, least=4), ARRAY_BYTES) / 1e6,
        f"{name}|{MIXED}": mixed.efficiency(here, 1),
    }


def _on_rabbitmq(bench: Bench, here: Path, url: str) -> dict[str, float]:
    count = bench.count(OURS)
    tasks = no_ops(here / "no-ops.jsonl", count)
    settings = write_settings(here / "rabbitmq.yml", transport="rabbitmq", url=url)
    ran = dispatch(
        tasks, count, "--yaml", settings, "--workers", "2", "--cores", "1", results=here / "results.jsonl"
    )
    return {f"ours, rabbitmq|{MANY}": ran.rate}


def _peer(bench: Bench, name: str, versions: dict[str, str], **cases: Any) -> dict[str, float]:
    if name == "celery":
        cases["url"] = bench.rabbitmq()
    answer = environment.run(name, **cases)
    versions[NAMES[name]] = answer.version
    columns = {"many": MANY, "once": ONCE, "arrays": THERE_AND_BACK, "mixed": MIXED}
    scale = {"arrays": 1e-6}
    return {
        f"{NAMES[name]}|{columns[case]}": value * scale.get(case, 1) for case, value in answer.values.items()
    }
