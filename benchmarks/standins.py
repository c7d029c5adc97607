"""Light stand-ins for many workers: they speak the protocol, and run nothing.

    python -m benchmarks.standins FILE.yml COUNT [--cores K]

One process, and in it a worker's end of the wire for each. A call is answered at once, undecoded, with None;
everything else is as with a real worker: the greeting, signs of life, recalls, reports that are kept until
they are recorded. They serve one run after the other, until the process is ended.
"""

from __future__ import annotations

import argparse
import select
import time
from contextlib import ExitStack

from executor import config
from executor.descriptors import raise_descriptor_limit
from executor.messages import NIL, Item, Report, introduce
from executor.packed import pack
from executor.session import GiveBack, Stop, Take
from transports.base import WorkerEnd

#: Seconds between two looks at ends to which nothing has come: several in a heartbeat.
_LOOK = 0.25


def turn(end: WorkerEnd) -> None:
    """Answer what has come to one of them, and what came meanwhile: its descriptor may not tell of that."""
    answer(end)
    while end.patience() == 0.0:
        answer(end)


def answer(end: WorkerEnd) -> None:
    """Answer what has come to one of them so far."""
    for order in end.pull(0):
        if isinstance(order, Take):
            end.reply(order.run, pack([_answer(item) for item in order.items]))
        elif isinstance(order, GiveBack | Stop):
            end.give_back(order.run, [])  # it never has anything that is not answered


def _answer(item: Item) -> Report:
    now = time.time()
    return Report(item.place, item.attempt, "ok", NIL, cores=(0,), started=now, finished=now)


def serve(path: str, count: int, cores: int) -> None:
    """Serve with so many on the wire of a YAML file, for ever."""
    raise_descriptor_limit()
    wire = config.read(path)
    poll = select.poll()
    ends: dict[int, WorkerEnd] = {}
    with ExitStack() as stack:
        for number in range(count):
            # All have this process's id, and each an instance of its own.
            hello = introduce(f"stand-in-{number}", cores)
            end = stack.enter_context(wire.transport.worker_end(wire.settings, hello, say=lambda text: None))
            ends[end.fileno()] = end
            poll.register(end.fileno(), select.POLLIN)
        look_at = 0.0
        while True:
            for descriptor, _ in poll.poll(_LOOK * 1000):
                turn(ends[descriptor])
            if time.monotonic() >= look_at:
                for end in ends.values():
                    turn(end)
                look_at = time.monotonic() + _LOOK


def main() -> None:
    """Serve until the end."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.standins", description=__doc__)
    parse.add_argument("yaml", help="the wire that the dispatcher is on")
    parse.add_argument("count", type=int)
    parse.add_argument("--cores", type=int, default=1)
    arguments = parse.parse_args()
    serve(arguments.yaml, arguments.count, arguments.cores)


if __name__ == "__main__":
    main()
