"""What ends the scripts of tests whose own process is killed, and could not do it any more.

Run as a script it waits for the end of its standard input, which its starter holds open for as long as it
lives; then it kills all whose tag begins so: ``afterlife.py BEGINNING``.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from typing import IO

import psutil

#: The variable that all processes of a test have, in which its own process's id stands first.
TAG = "FUNCTION_EXECUTOR_TEST"

#: Seconds in which what was killed may still make others.
_SECONDS = 10.0


@functools.cache
def see_to(owner: int) -> IO[bytes]:
    """Have all whose tag has the id of this process end with it; return what it holds open until then.

    Once for each process.
    """
    starter = subprocess.Popen(
        [sys.executable, "-P", __file__, f"{owner}."],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    starter.wait()
    assert starter.stdin is not None
    return starter.stdin


def tagged(beginning: str) -> list[psutil.Process]:
    """Return the living processes whose tag begins so."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TAG, "").startswith(
                beginning
            ):
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is somebody else's
            continue
    return found


def main(beginning: str) -> None:
    """Wait, and end what is left."""
    if os.fork():  # who waits is nobody's child: tests look at those of their process
        return
    sys.stdin.read()
    deadline = time.monotonic() + _SECONDS
    while (left := tagged(beginning)) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
