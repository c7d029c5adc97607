"""The standard streams of a script: there when they were closed, and quiet when nobody reads them."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

#: What to do where a package is missing, or Python is too old.
INSTALL = (
    "Python 3.11 or newer and `pip install -r requirements.txt` are needed: type `make run`, "
    "then use .venv/bin/python"
)


def prepare() -> None:
    """Make the standard streams safe to use. Call it before anything opens a file.

    A closed one (``>&-``) gets a descriptor that can't be read or written, so that no socket takes its number
    and whoever needs the stream gets an error. What stdout's encoding lacks is written as ``\\u2026``.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            closed = os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            if closed != number:
                os.dup2(closed, number)
                os.close(closed)
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def complain(text: str) -> None:
    """Write a line to stderr, if that can be written; the exit status tells as well."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        nowhere(sys.stderr)


def nowhere(stream: TextIO) -> None:
    """Let a stream that nobody reads any more write to nowhere, what it still holds included."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
