"""What a call costs: the CPU time of each process of a run over its number of calls.

    python -m benchmarks.cost [--wire zmq] [--calls 200000] [--repeats 3] [--rabbitmq URL]

CPU time is steadier than a rate on a machine that others use. The dispatcher's is split where its workers
begin: before that it reads, afterwards it hands out and records. It is looked at while the processes live, so
the last hundredth of a second is missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

import psutil

from benchmarks.machine import ROOT
from benchmarks.rabbit import Broker
from benchmarks.report import wide
from benchmarks.scripts import folder, no_ops, read_results, write_settings
from executor.options import positive_int

#: Seconds between two looks.
_LOOK = 0.01


def _role(process: psutil.Process, dispatcher: int) -> str:
    """Return what a process of a run is."""
    words = process.cmdline()
    if process.pid == dispatcher:
        return "dispatcher"
    if any(word.endswith("worker.py") for word in words):
        return "workers"
    parent = process.parent()
    known = parent is not None and any(word.endswith("worker.py") for word in parent.cmdline())
    return "guardians" if known else "children"


def measure(command: list[str]) -> tuple[dict[str, float], float]:
    """Run a dispatcher; return the CPU seconds of each kind of process, and those of the reading part."""
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    top = psutil.Process(process.pid)
    seconds: dict[int, float] = {}
    roles: dict[int, str] = {}
    reading = 0.0
    while process.poll() is None:
        try:
            family = [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:  # it has just ended, which is what is waited for
            break
        for each in family:
            try:
                if roles.get(each.pid) in (None, "children", "guardians"):
                    roles[each.pid] = _role(each, process.pid)
                times = each.cpu_times()
            except psutil.Error:  # it ended since; what it had spent was seen a moment before
                continue
            seconds[each.pid] = times.user + times.system
        if len(roles) == 1:
            reading = seconds.get(process.pid, 0.0)
        time.sleep(_LOOK)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    total: dict[str, float] = defaultdict(float)
    for pid, spent in seconds.items():
        total[roles[pid]] += spent
    return total, reading


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parse.add_argument(
        "--wire", default="zmq", help="zmq (default), grpc, rpyc, rabbitmq, or package.module:Class"
    )
    parse.add_argument("--calls", type=positive_int, default=200_000)
    parse.add_argument("--repeats", type=positive_int, default=3)
    parse.add_argument("--rabbitmq", metavar="URL")
    arguments = parse.parse_args()
    rows: dict[str, list[float]] = defaultdict(list)
    with folder() as here, Broker(arguments.rabbitmq) as broker:
        keys: dict[str, object] = {"transport": arguments.wire}
        if arguments.rabbitmq or arguments.wire == "rabbitmq" or "single" in arguments.wire:
            keys["url"] = broker.url()
        settings = write_settings(here / "wire.yml", **keys)
        tasks = no_ops(here / "no-ops.jsonl", arguments.calls)
        results = here / "results.jsonl"
        command = [
            sys.executable,
            str(ROOT / "dispatcher.py"),
            "--tasks",
            str(tasks),
            "--output",
            str(results),
        ]
        command += ["--overwrite", "--quiet", "--yaml", str(settings), "--workers", "2", "--cores", "1"]
        for _ in range(arguments.repeats):
            began = time.monotonic()
            total, reading = measure(command)
            ran = read_results(results, arguments.calls, time.monotonic() - began, 0)
            spent = {
                "dispatcher, reading": reading,
                "dispatcher, the rest": total.pop("dispatcher") - reading,
            }
            for name, value in (spent | total).items():
                rows[name].append(value / arguments.calls * 1e6)
            rows["all but reading"].append(
                (sum(total.values()) + spent["dispatcher, the rest"]) / arguments.calls * 1e6
            )
            rows["tasks a second"].append(ran.rate)
    console = wide()
    for name, values in rows.items():
        unit = "" if name.endswith("second") else " µs"
        digits = 0 if name.endswith("second") else 2
        console.print(f"{name:<22} {median(values):>10,.{digits}f}{unit}", highlight=False)


if __name__ == "__main__":
    main()
