"""`make fuzz-guided`: the same targets, with inputs that grow towards code that none has reached yet.

It needs atheris (libFuzzer for Python), which has wheels only for some versions of Python on Linux, so that
it is no requirement. It ends with the first input that breaks something, which is kept as a case.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from random import Random

#: Inputs that are made as in `make fuzz`, to begin with.
FIRST = 500


def main() -> int:
    """Run one target in a process of its own, as libFuzzer ends that; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--target", default="codec", help="what to feed (codec)")
    parser.add_argument("--seconds", type=int, default=60, help="for so long (60)")
    parser.add_argument("--corpus", type=Path, help="where to keep what leads further, for the next time")
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: .venv/bin/pip install atheris", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        if (pid := os.fork()) == 0:
            _feed(arguments.target, arguments.seconds, folder, arguments.corpus or Path(folder))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _feed(name: str, seconds: int, folder: str, corpus: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["executor", "transports"]):  # so they are imported only here
        from tests.fuzz.engine import keep, run
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]

    def feed(data: bytes) -> None:
        broken = run(target, data)
        if not isinstance(broken, int):
            print(f"\n{keep(broken)}\n{broken.what}", flush=True)
            raise AssertionError(f"{target.name} is broken")

    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(FIRST):
        data = target.make(Random(f"{name} {number}"))
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    options = [f"-max_total_time={seconds}", "-max_len=65536", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(corpus)], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
