"""What tasks print: it goes to two files in memory, and the end of it into the task's report."""

from __future__ import annotations

import fcntl
import os
import sys

#: Bytes kept of what a task printed: the last ones of its stdout, and of its stderr.
PRINTED_BYTES = 64 * 1024

#: Bytes of printed text that may pile up while a task runs, before its worker drops all but the end.
PRINTED_MOST = 1 << 20


def take_printed(out: int, err: int) -> tuple[str, str]:
    """Return the end of what was printed to both files since the last call, and forget it."""
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        flush_printed()
    try:
        if not (os.lseek(out, 0, os.SEEK_END) or os.lseek(err, 0, os.SEEK_END)):  # as for most: nothing
            return "", ""
        return read_printed(out), read_printed(err)
    except OSError:  # the task closed whatever was open
        return "", ""


def flush_printed() -> None:
    """Write out what Python holds of standard output and error, if a task put buffers in their place."""
    for name, ours in (("stdout", sys.__stdout__), ("stderr", sys.__stderr__)):
        stream = getattr(sys, name)
        if stream is not ours:
            setattr(sys, name, ours)
            try:
                stream.flush()
            except Exception:  # closed, or not a stream at all: there is nothing to flush
                pass


def read_printed(file: int) -> str:
    """Return the last PRINTED_BYTES in a file of printed text, and empty it."""
    size = os.lseek(file, 0, os.SEEK_END)
    if not size:
        return ""
    if size > PRINTED_MOST:  # the worker may be about to drop what is now the beginning
        fcntl.lockf(file, fcntl.LOCK_EX)
    data = os.pread(file, PRINTED_BYTES, max(0, size - PRINTED_BYTES))
    os.lseek(file, 0, os.SEEK_SET)
    os.ftruncate(file, 0)
    if size > PRINTED_MOST:
        fcntl.lockf(file, fcntl.LOCK_UN)
    return data.decode("utf-8", "replace")
