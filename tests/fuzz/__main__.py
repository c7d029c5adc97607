"""`make fuzz`: feed all that reads what others sent or wrote with what is wrong, for as long as you like."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import warnings

from executor.options import positive_seconds
from tests.fuzz.engine import Found, bound_memory, fuzz, keep, shortened
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the targets in turn, a slice each, until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=positive_seconds, default=60.0, help="for so long, over all targets (60)"
    )
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this; may stand more than once"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**32), help="makes the same inputs again"
    )
    parser.add_argument("--first", type=int, default=0, help="the number of the first input (0)")
    parser.add_argument("--most", type=int, help="only so many inputs of each")
    arguments = parser.parse_args()
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    inputs, messages, broken = 0, 0, 0
    bound_memory()
    warnings.simplefilter("error")
    print(f"seed {arguments.seed}")
    for target in targets:
        began = time.monotonic()
        fed = fuzz(
            target, arguments.seed, seconds=arguments.seconds / len(targets), most=arguments.most,
            first=arguments.first,
        )  # fmt: skip
        inputs += fed.inputs
        messages += fed.messages
        broken += len(fed.found)
        rate = fed.messages / max(time.monotonic() - began, 1e-9)
        print(
            _row(target.name, fed.inputs, fed.messages, f"{rate:>9,.0f}/s   {_told(fed.found)}"), flush=True
        )
        for each in fed.found:
            case = keep(shortened(target, each))
            again = f"--target {target.name} --seed {arguments.seed} --first {each.number} --most 1"
            print(f"\n{case}\nagain: {again}")
            print(each.what)
    print(_row("all", inputs, messages, f"            {broken} found"))
    return 1 if broken else 0


def _row(name: str, inputs: int, messages: int, rest: str) -> str:
    return f"{name:17} {inputs:>10,} inputs {messages:>11,} messages {rest}"


def _told(found: list[Found]) -> str:
    return f"{len(found)} found" if found else "nothing found"


if __name__ == "__main__":
    sys.exit(main())
