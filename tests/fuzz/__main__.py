"""`make fuzz`: feed all that reads what others sent or wrote with what is wrong, for as long as you like."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import warnings

from tests.fuzz.engine import Found, bound_memory, fuzz, keep
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the targets in turn, a slice each, until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for so long, over all targets (60)")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this; may stand more than once"
    )
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**32), help="makes the same inputs again"
    )
    arguments = parser.parse_args()
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    total, broken = 0, 0
    bound_memory()
    warnings.simplefilter("error")
    print(f"seed {arguments.seed}")
    for target in targets:
        began = time.monotonic()
        count, found = fuzz(target, arguments.seed, seconds=arguments.seconds / len(targets))
        total += count
        broken += len(found)
        rate = count / max(time.monotonic() - began, 1e-9)
        print(f"{target.name:16} {count:>10,} inputs {rate:>9,.0f}/s   {_told(found)}", flush=True)
        for each in found:
            print(f"\n{keep(each)}\n{each.what}")
    print(f"{'all':16} {total:>10,} inputs             {broken} found")
    return 1 if broken else 0


def _told(found: list[Found]) -> str:
    return f"{len(found)} found" if found else "nothing found"


if __name__ == "__main__":
    sys.exit(main())
