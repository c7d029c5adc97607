"""What ends the scripts of tests whose own process is killed, and could not do it any more.

Run as a script it waits for the end of its standard input, which its starter holds open for as long as it
lives; then it kills all whose environment has a variable that begins so: ``afterlife.py VARIABLE BEGINNING``.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import time

import psutil

#: Seconds in which what was killed may still make others.
_SECONDS = 10.0


@functools.cache
def see_to(variable: str, beginning: str) -> None:
    """Have all those end when this process does, however it does."""
    watcher = subprocess.Popen(
        [sys.executable, "-P", __file__, variable, beginning], stdin=subprocess.PIPE, start_new_session=True
    )

    def end() -> None:
        assert watcher.stdin is not None
        watcher.stdin.close()
        watcher.wait(2 * _SECONDS)

    atexit.register(end)


def tagged(variable: str, beginning: str) -> list[psutil.Process]:
    """Return the living processes whose environment has such a variable."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(variable, "").startswith(
                beginning
            ):
                found.append(process)
        except psutil.Error:  # it ended meanwhile, or is somebody else's
            continue
    return found


def main(variable: str, beginning: str) -> None:
    """Wait, and end what is left."""
    sys.stdin.read()
    deadline = time.monotonic() + _SECONDS
    while (left := tagged(variable, beginning)) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
