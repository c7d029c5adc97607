"""The environment that the peers live in, `benchmarks/.venv-peers`: made, and asked to measure.

    python -m benchmarks.peers.environment

makes it and installs `requirements-peers.txt`; what can't be installed is named and left out.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import Failed

HERE = Path(__file__).resolve().parent.parent
FOLDER = HERE / ".venv-peers"
REQUIREMENTS = HERE / "requirements-peers.txt"

#: How to get it.
HOW = "it is not installed; `make bench-peers` does that"

#: Seconds that a peer may take for a round.
LIMIT = 600.0

#: The peers, each by the module of its name here, and the package that it is.
PEERS = {
    "processpool": "", "joblib": "joblib", "dask": "distributed", "ray": "ray", "parsl": "parsl",
    "executorlib": "executorlib", "celery": "celery",
}  # fmt: skip


class Answer(NamedTuple):
    """What a peer reached: values by case, and its version."""

    values: dict[str, float]
    version: str


def python() -> Path:
    """Return the interpreter of the peers' environment."""
    return FOLDER / "bin" / "python"


@functools.cache
def has(name: str) -> bool:
    """Return whether a peer is installed."""
    if not python().exists():
        return False
    package = PEERS[name]
    code = f"import importlib.metadata as m; m.version({package!r})" if package else ""
    return not subprocess.run([python(), "-c", code], capture_output=True, check=False).returncode


def run(name: str, **cases: Any) -> Answer:
    """Have a peer measured in a process of its own, with what `benchmarks.peers.__main__` takes.

    Raises:
        Failed: it could not be measured.
    """
    options = [f"--{case}={value}" for case, value in cases.items() if value]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(HERE.parent)  # where a peer's own processes find what is called
    environment["PATH"] = f"{python().parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    with tempfile.TemporaryDirectory(prefix="fe-peer-") as folder:
        process = subprocess.Popen(
            [python(), "-m", "benchmarks.peers", name, f"--folder={folder}", *options],
            cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, env=environment,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:  # said below; the `finally` ends it
            raise Failed(f"{name} has not ended within {LIMIT:g} s") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # whatever it left
            except ProcessLookupError:  # it left nothing
                pass
            process.wait()
    if process.returncode:
        last = (err.strip().splitlines() or ["it says nothing"])[-1]
        raise Failed(f"{name} ended with {process.returncode}: {last}")
    answer = json.loads(out.splitlines()[-1])
    return Answer(answer["values"], answer["version"])


def main() -> int:
    """Make the environment; return the exit status."""
    if not python().exists():
        venv.create(FOLDER, with_pip=True, clear=True)
    pip = [str(python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=False).returncode:
        return 0
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement and subprocess.run([*pip, requirement], check=False).returncode:
            print(f"{requirement} can't be installed here, and is left out", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
