"""What protection costs: calls over TCP, and arrays on one machine, with the user's keys and without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import arrays
from benchmarks.machine import ROOT
from benchmarks.measure import Bench, Case, Failed, Figure, Part, at_least, rounds
from benchmarks.scripts import dispatch, folder, no_ops, write_settings
from benchmarks.work import ARRAY_BYTES, ARRAYS
from executor import cores
from executor.keys import VARIABLE
from tests.contract.rabbit import free_ports

#: Calls in a run.
CALLS = 100_000

WITH, WITHOUT = "with keys", "without"

#: On one machine workers are reached by a unix socket in a folder of the user's, so keys have nothing to do.
LOCAL = "arrays of 1 MB on one machine"


def measure(bench: Bench) -> Part:
    """Measure each wire both ways."""
    count = bench.count(CALLS)
    remarks: list[str] = []
    with folder() as here, own_keys(here / "keys"):
        tasks = no_ops(here / "no-ops.jsonl", count)
        cases: dict[str, Case] = {}
        for wire in ("zmq", "grpc", "rpyc"):
            for insecure in (False, True):
                name = f"{wire} over TCP, {WITHOUT if insecure else WITH}"
                cases[name] = partial(_over_tcp, name, wire, insecure, here, tasks, count)
        try:
            url = bench.rabbitmq()
        except Failed as failed:  # without a broker the others are measured, and the table says so
            remarks.append(str(failed))
        else:
            for transport, way in (("rabbitmq", WITH), ("benchmarks.unsealed:Unsealed", WITHOUT)):
                name = f"rabbitmq, {way}"
                cases[name] = partial(_on_rabbitmq, name, transport, url, here, tasks, count)
        for insecure in (False, True):
            name = f"{LOCAL}, {WITHOUT if insecure else WITH}"
            cases[name] = partial(_local, name, insecure, bench.count(ARRAYS, least=4))
        values = rounds(bench.repeats, cases, bench.say)
    figures = [Figure(name, "MB/s" if LOCAL in name else "tasks/s", each) for name, each in values.items()]
    targets = []
    for wire in ("zmq over TCP", "grpc over TCP", "rpyc over TCP", "rabbitmq", LOCAL):
        both = [values.get(f"{wire}, {way}", []) for way in (WITH, WITHOUT)]
        shares = [one / other for one, other in zip(*both, strict=True)]
        if shares:
            figures.append(Figure(f"{wire}, {WITH} / {WITHOUT}", "", shares))
            if wire == LOCAL:
                targets.append(at_least(figures[-1].name, 0.9, shares))
    title = f"The price of protection: {count:,} no-op calls, 2 workers of 1 core"
    return Part("price", title, figures, targets, remarks=remarks)


@contextmanager
def own_keys(place: Path) -> Iterator[None]:
    """Have all that is started meanwhile use keys of the benchmark's own."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(place)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


def _over_tcp(name: str, wire: str, insecure: bool, here: Path, tasks: Path, count: int) -> dict[str, float]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    more = {"address": f"tcp://{addresses[0]}"} if wire == "zmq" else {"workers": addresses}
    settings = write_settings(here / "wire.yml", transport=wire, insecure=insecure, **more)
    listen = [[] if wire == "zmq" else ["--listen", address] for address in addresses]
    with ExitStack() as stack:
        for core, options in zip(cores.granted().ids, listen, strict=False):
            stack.enter_context(_worker(core, ["--yaml", str(settings), *options]))
        ran = dispatch(tasks, count, "--yaml", settings, results=here / "results.jsonl")
    return {name: ran.rate}


@contextmanager
def _worker(core: int, options: list[str]) -> Iterator[None]:
    """A worker on one core, which is its grant, until the context ends."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "worker.py"), "--cores", "1", *options],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        os.sched_setaffinity(0, before)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _local(name: str, insecure: bool, count: int) -> dict[str, float]:
    return {name: arrays.ours(count, ARRAY_BYTES, insecure=insecure) / 1e6}


def _on_rabbitmq(
    name: str, transport: str, url: str, here: Path, tasks: Path, count: int
) -> dict[str, float]:
    settings = write_settings(here / "rabbitmq.yml", transport=transport, url=url)
    ran = dispatch(
        tasks, count, "--yaml", settings, "--workers", "2", "--cores", "1", results=here / "results.jsonl"
    )
    return {name: ran.rate}
