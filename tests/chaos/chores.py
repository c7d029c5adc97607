"""What the tasks of these tests call; a copy of this file lies in each run's working folder.

Each call notes that it begins and ends in the file `NOTES`, with a token that no other call has. The token is
part of its value: so a result says which execution it is of, and that has been.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

NOTES = "executions"

#: Elements of a large array, which takes a while on its way.
BULK = 200_000


def _note(*words: object) -> None:
    """Write a line that is never torn nor mixed with another process's."""
    file = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


def number(key: str) -> int:
    """Return the number that belongs to a key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big")


def table(key: str, size: int = 0) -> Any:
    """Return the array of a key: of `size` elements, and more than a line of the results holds."""
    import numpy as np

    return np.arange(size + 1_001 + number(key) % 1_000, dtype="i8") * (number(key) % 97)


def printed(key: str) -> str:
    """Return what a call of `speak` prints."""
    return f"{key} says {number(key)}\n"


def chore(key: str, milliseconds: int) -> dict[str, Any]:
    """Take so long; return what belongs to the key."""
    token = f"{os.getpid()}.{time.monotonic_ns()}"
    _note("begin", token, key)
    time.sleep(milliseconds / 1000)
    _note("end", token, key)
    return {"token": token, "number": number(key)}


def array(key: str, milliseconds: int) -> dict[str, Any]:
    return {**chore(key, milliseconds), "table": table(key)}


def bulk(key: str, milliseconds: int) -> dict[str, Any]:
    return {**chore(key, milliseconds), "table": table(key, BULK)}


def speak(key: str, milliseconds: int) -> dict[str, Any]:
    sys.stdout.write(printed(key))
    return chore(key, milliseconds)


def flaky(key: str, milliseconds: int) -> dict[str, Any]:
    """Fail at the first time."""
    value = chore(key, milliseconds)
    mark = Path(f"{key}.failed")
    if not mark.exists():
        mark.touch()
        raise ValueError(f"{key}: the first time")
    return value
