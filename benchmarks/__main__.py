"""Run the benchmarks.

    python -m benchmarks [PART ...] [--repeats N] [--size SHARE] [--rabbitmq URL]

Without parts: all but the peers, which are measured by `peers`.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

from rich.markup import escape

from benchmarks import picture, report
from benchmarks.machine import machine, versions
from benchmarks.measure import Bench, Failed, Part
from benchmarks.rabbit import Broker
from executor.options import positive_int

#: The parts, in their order, each with its module.
PARTS = {
    "throughput": "throughput", "latency": "latency", "arrays": "arrays", "mixed": "mixed",
    "durations": "durations", "scale": "scale", "start": "start", "pool": "pool", "price": "price",
    "peers": "beside",
}  # fmt: skip

#: What is measured when no part is named.
WHOLE = [name for name in PARTS if name != "peers"]

RESULTS = Path(__file__).resolve().parent / "results"


def share(text: str) -> float:
    """Read a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def main() -> int:
    """Measure, print and write; return 0, or 1 when something could not be measured."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parse.add_argument("--repeats", type=positive_int, default=3, help="rounds of each part (default: 3)")
    parse.add_argument(
        "--size", type=share, default=1.0, metavar="SHARE", help="of all numbers of tasks (default: 1)"
    )
    parse.add_argument("--rabbitmq", metavar="URL", help="a broker to measure on (default: a private one)")
    parse.add_argument(
        "--results", type=Path, default=RESULTS, metavar="FOLDER", help="where JSON and pictures go"
    )
    arguments = parse.parse_args()
    for name in arguments.parts:
        if name not in PARTS:
            parse.error(f"{name}: there is no such part; the parts are {', '.join(PARTS)}")
    chosen: list[str] = arguments.parts or WHOLE
    console, progress = report.wide(), report.wide(stderr=True)
    where = machine()
    parts: list[Part] = []
    failed: list[str] = []
    with Broker(arguments.rabbitmq) as broker, progress.status("") as status:
        for name in chosen:

            def say(text: str, name: str = name) -> None:
                status.update(escape(f"{name}: {text}"))

            bench = Bench(arguments.repeats, arguments.size, broker.url, say)
            try:
                part = importlib.import_module(f"benchmarks.{PARTS[name]}").measure(bench)
            except Failed as error:  # said, with status 1; the other parts are measured
                failed.append(f"{name} could not be measured: {error}")
                progress.print(failed[-1], markup=False)
                continue
            parts.append(part)
            report.show(part, console)
    stem = "whole" if chosen == WHOLE else "+".join(chosen)
    record = report.Record(report.now(), where, versions(), arguments.repeats, arguments.size, parts)
    path = arguments.results / f"{stem}.json"
    report.write(record, path)
    console.print(f"\n{report.verdict(parts)}; written to {path}", highlight=False)
    if "throughput" in chosen or "peers" in chosen:
        _draw(parts, arguments.results, console.print)
    return 1 if failed else 0


def _draw(parts: list[Part], folder: Path, say: Callable[[str], None]) -> None:
    """Draw the picture, with the peers as they were measured last."""
    peers = folder / "peers.json"
    known = [*parts, *(report.read(peers).parts if peers.exists() else [])]
    try:
        files = picture.draw(picture.bars(known), folder)
    except ImportError:  # figures need no picture
        say("no picture: matplotlib is not installed (benchmarks/requirements.txt)")
        return
    say("drawn: " + ", ".join(map(str, files)))


if __name__ == "__main__":
    sys.exit(main())
