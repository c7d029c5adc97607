"""The whole way of many calls on each wire, with two workers of one core, beside ProcessPoolExecutor.

    python benchmarks/wires.py [--repeats 5] [--tasks 20000] [--rabbitmq amqp://guest:guest@127.0.0.1:5672/]

Prints medians over interleaved repeats, and ratios: ``operator.add(1, 2)`` many times. The time is the
dispatcher's own, from the first worker's being there to the last result's being recorded in a file.
ProcessPoolExecutor(2) gets the same calls by `submit`, and writes no file.
"""

from __future__ import annotations

import argparse
import json
import operator
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Seconds in the units of the dispatcher's summary.
_UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


def wall(folder: Path, yaml: Path, tasks: Path) -> float:
    """Run the dispatcher on a wire; return the seconds that it says."""
    command = [sys.executable, str(ROOT / "dispatcher.py"), "--yaml", str(yaml), "--tasks", str(tasks)]
    command += ["--workers", "2", "--cores", "1", "--output", "results.jsonl", "--overwrite", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    said = re.search(r"^([\d.,]+) (\S+) wall time", done.stdout, re.MULTILINE)
    if done.returncode or said is None:
        raise SystemExit(f"{yaml.name}: the run failed\n{done.stdout}{done.stderr}")
    return float(said[1].replace(",", "")) * _UNITS[said[2]]


def pool(executor: ProcessPoolExecutor, count: int) -> float:
    """Submit no-op calls one by one and gather their results; return the seconds."""
    began = time.perf_counter()
    for future in [executor.submit(operator.add, 1, 2) for _ in range(count)]:
        future.result()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--tasks", type=int, default=20_000)
    parse.add_argument("--rabbitmq", metavar="URL", help="a broker to measure; left out without it")
    arguments = parse.parse_args()
    wires = {"zmq": {}, "grpc": {}, "rpyc": {}}
    if arguments.rabbitmq:
        wires["rabbitmq"] = {"url": arguments.rabbitmq}
    else:
        print("RabbitMQ is left out: name one with --rabbitmq URL")
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2) as executor:
        folder = Path(name)
        tasks = folder / "add.jsonl"
        line = json.dumps({"function": "operator.add", "params": [1, 2]})
        tasks.write_text(f"{line}\n" * arguments.tasks)
        yamls = {}
        for wire, keys in wires.items():
            yamls[wire] = folder / f"{wire}.yml"
            yamls[wire].write_text(json.dumps({"transport": wire, **keys}))
        seconds: dict[str, list[float]] = {wire: [] for wire in wires} | {"ProcessPoolExecutor": []}
        for _ in range(arguments.repeats):
            for wire, yaml in yamls.items():
                seconds[wire].append(wall(folder, yaml, tasks))
            seconds["ProcessPoolExecutor"].append(pool(executor, arguments.tasks))
    medians = {wire: statistics.median(each) for wire, each in seconds.items()}
    base = medians["ProcessPoolExecutor"]
    print(f"{arguments.tasks:,} no-op calls on 2 processes, medians of {arguments.repeats}")
    for wire, median in sorted(medians.items(), key=lambda pair: pair[1]):
        rate = arguments.tasks / median
        print(f"  {wire:<20}{rate:>10,.0f} calls/s{base / median:>8.1f} x ProcessPoolExecutor.submit")


if __name__ == "__main__":
    main()
