"""Measure one peer, in the peers' environment; print what it reached as a line of JSON.

python -m benchmarks.peers NAME --folder FOLDER [--many N] [--once N] [--arrays N] [--mixed 1] [--url URL]
"""

from __future__ import annotations

import argparse
import importlib
import json
import operator
import statistics
import sys
from importlib import metadata
from platform import python_version

from benchmarks import processpool
from benchmarks.peers.peer import Peer
from benchmarks.work import ARRAY_BYTES, CORES


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parse.add_argument("name")
    parse.add_argument("--folder", required=True, help="for the peer's own files")
    parse.add_argument("--url", default="", help="of a RabbitMQ")
    parse.add_argument("--many", type=int, default=0, help="no-op calls, submitted all at once")
    parse.add_argument("--once", type=int, default=0, help="no-op calls, one at a time")
    parse.add_argument("--arrays", type=int, default=0, help="arrays of 1 MB, there and back")
    parse.add_argument("--mixed", type=int, default=0, help="1: tasks of mixed widths")
    arguments = parse.parse_args()
    kind: type[Peer] = importlib.import_module(f"benchmarks.peers.{arguments.name}").Measured
    values: dict[str, float] = {}
    peer = kind(2, arguments.folder, arguments.url)
    try:
        peer.warm()
        if arguments.many:
            values["many"] = peer.many(arguments.many)
        if arguments.once:
            seconds = processpool.one_by_one(lambda: peer.submit(operator.add, 1, 2).result(), arguments.once)
            values["once"] = statistics.median(seconds)
        if arguments.arrays:
            values["arrays"] = processpool.arrays(peer.submit, arguments.arrays, ARRAY_BYTES)
    finally:
        peer.close()
    if arguments.mixed and kind.knows_widths:
        peer = kind(CORES, arguments.folder, arguments.url)
        try:
            values["mixed"] = peer.mixed()
        finally:
            peer.close()
    version = metadata.version(kind.package) if kind.package else python_version()
    print()  # whatever stands before
    print(json.dumps({"values": values, "version": version}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
