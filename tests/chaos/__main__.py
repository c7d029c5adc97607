"""Run many seeds, one wire after the other, and sum up: ``make chaos SEEDS=N [FIRST=S] [ARGS=...]``."""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import threading
from collections import Counter

from executor.options import positive_int
from tests.chaos.plan import Kind, plan
from tests.chaos.seeds import NAMES, Outcome, run
from tests.contract.rabbit import HOW, RabbitMQ, server_script
from tests.contract.wires import RabbitMQ as RabbitMQWire


def main() -> int:
    """Run the seeds that the command line asks for; return 1 if any of them failed."""
    parse = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parse.add_argument("--seeds", type=positive_int, default=20, metavar="N", help="how many (default: 20)")
    parse.add_argument("--first", type=int, default=0, metavar="S", help="the first of them (default: 0)")
    parse.add_argument("--wire", choices=NAMES, help="run all on this one (default: on all in turn)")
    parse.add_argument(
        "--jobs", type=positive_int, default=1, metavar="N", help="how many at once (default: 1)"
    )
    parse.add_argument("--plans", action="store_true", help="print the plans and run nothing")
    arguments = parse.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    waiting: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
    for seed in seeds:
        name = arguments.wire or NAMES[seed % len(NAMES)]
        if arguments.plans:
            print(f"seed {seed} on {name}: {plan(seed, broker=name == RabbitMQWire.transport)}\n")
        else:
            waiting.put((seed, name))
    if arguments.plans:
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):  # said, as Ctrl-C may be ignored where this was started
        signal.signal(number, signal.default_int_handler)
    outcomes: list[Outcome] = []
    crew = [threading.Thread(target=_work, args=(waiting, outcomes)) for _ in range(arguments.jobs)]
    for thread in crew:
        thread.start()
    try:
        for thread in crew:
            thread.join()
    except KeyboardInterrupt:
        print("no more seeds are begun", flush=True)
        while not waiting.empty():
            waiting.get()
        for thread in crew:
            thread.join()
    print(summary(outcomes))
    return 1 if any(outcome.wrong for outcome in outcomes) else 0


def _work(waiting: queue.SimpleQueue[tuple[int, str]], outcomes: list[Outcome]) -> None:
    """Run seeds for as long as there are any, with a broker of one's own."""
    broker: RabbitMQ | None = None
    try:
        while True:
            try:
                seed, name = waiting.get_nowait()
            except queue.Empty:
                return
            between = name == RabbitMQWire.transport
            if between and broker is None:
                script = server_script()
                if script is None:
                    sys.exit(HOW)
                broker = RabbitMQ(script)
            outcome = run(seed, name, broker if between else None)
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
            if outcome.wrong:
                print(outcome.story, flush=True)
                if between and broker is not None:  # the next ones are not to suffer from what this one left
                    broker.close()
                    broker = None
    finally:
        if broker is not None:
            broker.close()


def _line(outcome: Outcome) -> str:
    verdict = f"FAILED: {outcome.again}" if outcome.wrong else "ok"
    return (
        f"seed {outcome.seed:4} {outcome.wire:8} {outcome.seconds:6.1f} s "
        f"{sum(outcome.struck.values()):3} faults {outcome.tasks:4} tasks {outcome.begun:4} begun  {verdict}"
    )


def summary(outcomes: list[Outcome]) -> str:
    """Return how many seeds ran on each wire, what struck them, and which failed."""
    lines = [""]
    for name in NAMES:
        mine = [outcome for outcome in outcomes if outcome.wire == name]
        struck = sum((outcome.struck for outcome in mine), Counter())
        failed = sum(bool(outcome.wrong) for outcome in mine)
        lines.append(
            f"{name:10} {len(mine):4} seeds  {sum(struck.values()):5} faults  "
            f"{sum(outcome.tasks for outcome in mine):7,} tasks  "
            f"{sum(outcome.begun for outcome in mine):7,} begun  {failed} failed"
        )
    total: Counter[Kind] = sum((outcome.struck for outcome in outcomes), Counter())
    lines += ["", *(f"{count:6}  {kind}" for kind, count in total.most_common()), ""]
    lines += [f"FAILED: {outcome.again}" for outcome in outcomes if outcome.wrong]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
