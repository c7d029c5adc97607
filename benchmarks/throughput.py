"""Throughput: no-op calls from a file of tasks to a file of results, on every wire, with the real scripts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks import bare, processpool
from benchmarks.measure import Bench, Case, Failed, Figure, Part, Target, at_least, ratios, rounds
from benchmarks.peers import environment
from benchmarks.scripts import dispatch, folder, no_ops, write_settings

#: Names of figures.
POOL, BARE, CELERY, SINGLE = "ProcessPoolExecutor.submit", "bare loop", "Celery", "rabbitmq, one a message"
RECORDING = "bare loop, recording"

WIRES = ("zmq", "grpc", "rpyc", "rabbitmq")

#: Calls in the whole benchmark; those that are slower make fewer, as a rate needs no more.
CALLS, OF_THE_POOL, SINGLY, OF_CELERY = 300_000, 30_000, 30_000, 3_000

_NOTES = {
    BARE: "frames of 100, records, a pipe; no scheduling, no file",
    RECORDING: "and each call's report, board and line; no scheduling, no lease, no journal",
    POOL: "no file, no record of a call",
    SINGLE: "reports as ever",
    CELERY: "same broker, results too",
}


def measure(bench: Bench) -> Part:
    """Measure all wires, and what they stand beside."""
    remarks: list[str] = []
    with folder() as here, processpool.processes() as executor:
        count = bench.count(CALLS)
        tasks = no_ops(here / "no-ops.jsonl", count)
        results = here / "results.jsonl"
        cases: dict[str, Case] = {}
        for wire in WIRES[:3]:
            settings = write_settings(here / f"{wire}.yml", transport=wire)
            cases[wire] = partial(_scripts, wire, tasks, count, settings, results)
        cases[BARE] = lambda: {BARE: bare.measure(count)}
        cases[RECORDING] = lambda: {RECORDING: bare.measure(count, recorded=True)}
        pooled = bench.count(OF_THE_POOL)
        cases[POOL] = lambda: {POOL: processpool.submit_all(executor.submit, pooled)}
        try:
            cases |= _brokers(bench, here, tasks, count, results, remarks)
        except Failed as failed:  # without a broker what can be measured is, and the table says what is not
            remarks.append(str(failed))
        values = rounds(bench.repeats, cases, bench.say)
    figures = [Figure(name, "tasks/s", each, _NOTES.get(name, "")) for name, each in values.items()]
    figures.sort(key=lambda figure: (figure.name.startswith("whole command"), -figure.median))
    title = f"Throughput: {count:,} no-op calls, 2 workers of 1 core"
    return Part("throughput", title, figures, targets(figures), POOL, remarks)


def _brokers(
    bench: Bench, here: Path, tasks: Path, count: int, results: Path, remarks: list[str]
) -> dict[str, Case]:
    url = bench.rabbitmq()
    settings = write_settings(here / "rabbitmq.yml", transport="rabbitmq", url=url)
    cases: dict[str, Case] = {"rabbitmq": partial(_scripts, "rabbitmq", tasks, count, settings, results)}
    few = bench.count(SINGLY)
    fewer = no_ops(here / "fewer.jsonl", few)
    single = write_settings(here / "single.yml", transport="benchmarks.single:OnePerMessage", url=url)
    cases[SINGLE] = partial(_scripts, SINGLE, fewer, few, single, results)
    if environment.has("celery"):
        cases[CELERY] = lambda: {
            CELERY: environment.run("celery", url=url, many=bench.count(OF_CELERY)).values["many"]
        }
    else:
        remarks.append(f"Celery is left out: {environment.HOW}")
    return cases


def _scripts(name: str, tasks: Path, count: int, settings: Path, results: Path) -> dict[str, float]:
    ran = dispatch(tasks, count, "--yaml", settings, "--workers", "2", "--cores", "1", results=results)
    return {name: ran.rate, f"whole command, {name}": count / ran.wall}


def targets(figures: list[Figure]) -> list[Target]:
    """Return the targets, as far as both sides of each were measured."""
    known = {figure.name: figure for figure in figures}
    zmq = known["zmq"]
    found = [at_least("zmq, tasks a second", 100_000, zmq.values, "tasks/s")]
    wanted: list[tuple[str, str, float]] = [
        ("zmq", BARE, 0.5), ("zmq", POOL, 12), ("grpc", "zmq", 0.6), ("rpyc", "zmq", 0.6),
        ("rabbitmq", "zmq", 0.3), (SINGLE, CELERY, 4),
    ]  # fmt: skip
    for one, other, bound in wanted:
        if one in known and other in known:
            found.append(at_least(f"{one} / {other}", bound, ratios(known[one], known[other])))
    return found
