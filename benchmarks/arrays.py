"""Arrays, there and back: through a dispatcher's end and two workers, beside ProcessPoolExecutor."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks import processpool
from benchmarks.ends import gather, serving, task
from benchmarks.measure import Bench, Case, Failed, Figure, Part, at_least, ratios, rounds
from benchmarks.peers import environment
from benchmarks.work import ARRAY_BYTES, ARRAYS
from executor.run import Run

#: Bytes of the largest array, which goes over each wire alone.
LARGE = 100_000_000

#: What RabbitMQ 3 carries in one message, with room for what is around an array; RabbitMQ 4 asks for its own
#: `max_message_size` to be raised.
LARGEST = 120_000_000

#: Gives an array back as it is.
FUNCTION = "numpy.asarray"

POOL = "ProcessPoolExecutor"

#: The peers that are measured beside us where they are installed: the fastest ones with arrays.
PEERS = ("executorlib", "ray")


def ours(count: int, size: int, *, workers: int = 2, transport: str = "zmq", **keys: Any) -> float:
    """Return the bytes a second at which so many arrays of `size` bytes go there and come back.

    Each worker first gets a call without an array, in which its child loads NumPy; the time is that from the
    first of those calls' end on, so the others' is in it.
    """
    array = np.random.default_rng(0).random(size // 8)
    with serving(workers, transport=transport, **keys) as served:
        served.wait_for_workers()
        warm = [task(number, FUNCTION, [1.0]) for number in range(workers)]
        run = Run([*warm, *(task(workers + number, FUNCTION, array) for number in range(count))])
        served.end.push(run)
        arrived, last = gather(served.end, run)
        if not np.array_equal(last.value, array):
            raise Failed("an array came back as another")
        return count * size / (arrived[-1] - arrived[0])


def measure(bench: Bench) -> Part:
    """Measure many arrays of 1 MB over ZeroMQ, and one large one over each wire."""
    remarks: list[str] = []
    count = bench.count(ARRAYS, least=4)
    with processpool.processes() as executor:
        cases: dict[str, Case] = {
            "zmq": lambda: {"zmq": ours(count, ARRAY_BYTES)},
            POOL: lambda: {POOL: processpool.arrays(executor.submit, count, ARRAY_BYTES)},
        }
        for name in PEERS:
            if environment.has(name):
                cases[name] = partial(_peer, name, count)
            else:
                remarks.append(f"{name} is left out: {environment.HOW}")
        values = rounds(bench.repeats, cases, bench.say)
        large: dict[str, Case] = {
            f"{wire}, 100 MB": partial(_large, wire) for wire in ("zmq", "grpc", "rpyc")
        }
        large[f"{POOL}, 100 MB"] = lambda: {f"{POOL}, 100 MB": processpool.arrays(executor.submit, 1, LARGE)}
        try:
            large["rabbitmq, 100 MB"] = partial(_large, "rabbitmq", url=bench.rabbitmq(), largest=LARGEST)
        except Failed as failed:  # without a broker the others are measured, and the table says so
            remarks.append(str(failed))
        values |= rounds(bench.repeats, large, bench.say)
    figures = [Figure(name, "MB/s", [each / 1e6 for each in some]) for name, some in values.items()]
    known = {figure.name: figure for figure in figures}
    best = max((known[name] for name in (POOL, *PEERS) if name in known), key=lambda each: each.median)
    targets = [
        at_least(f"zmq / {best.name}, the best peer here", 1, ratios(known["zmq"], best)),
        *(at_least(f"{name}: comes back", 1, [1.0]) for name in large if name in known and POOL not in name),
    ]
    title = f"Arrays: {count} of 1 MB of float64, and one of 100 MB, there and back"
    return Part("arrays", title, figures, targets, POOL, remarks)


def _large(wire: str, **keys: Any) -> dict[str, float]:
    return {f"{wire}, 100 MB": ours(1, LARGE, workers=1, transport=wire, **keys)}


def _peer(name: str, count: int) -> dict[str, float]:
    return {name: environment.run(name, arrays=count).values["arrays"]}
