"""The results file: one JSON object per line, written as results arrive; large arrays are files beside it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from executor import jsonform, resultline
from executor.errors import OutputFailed, UsageError
from executor.output import Target, sync_file, sync_folder
from executor.task import Result

if TYPE_CHECKING:
    import numpy as np

#: What is written is synced so many seconds later, at the next turn: a power cut costs a second at most.
SYNC_AFTER = 0.75

#: An id that may be a file's name on every system, and is not that of another one's second array. Of one with
#: capitals it is the beginning, as some file systems take `A` and `a` for one name.
_PLAIN_ID = re.compile(r"(?!.*\.\d+\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Errors that no patience mends: nobody reads the pipe any more, or there never was a stream.
_FOR_GOOD = (errno.EPIPE, errno.EBADF)


class Journal:
    """Appends results to a `Target`. Until `flush` has returned, a result is not recorded.

    Raises:
        UsageError: it can't be written.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._taken: deque[list[Result]] = deque()  # that have no line yet
        self._lines: list[bytes] = []  # one or more each, that are not written
        self._unsynced: list[bytes] = []  # written, and not safe against a power cut
        self._arrays: list[Path] = []  # that are not safe, either; their lines are not written
        self._since: float | None = None  # when the first of these was written, on the monotonic clock
        self._safe = self._end = 0  # bytes of the file that are synced, and that are written
        self._doubtful = False  # the system may have dropped what a sync was to make safe
        if target.name == "-":
            self._descriptor = sys.stdout.fileno()
            return
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(target.path or target.name, flags, 0o666)
            if self._regular:
                self._safe = self._end = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise UsageError(f"--output {target.name}: {error.strerror}") from error

    @property
    def _regular(self) -> bool:
        return self._target.path is not None

    @property
    def resumable(self) -> bool:
        """Whether another run can go on with this file."""
        return self._regular

    @property
    def unwritten(self) -> int:
        """How many results were taken and are not written."""
        return sum(map(len, self._taken)) + sum(lines.count(b"\n") for lines in self._lines)

    def write(self, results: Sequence[Result]) -> None:
        """Take results; `flush` puts them into the file."""
        self._taken.append(list(results))

    def flush(self) -> None:
        """Write what was taken. What can't be written is kept for the next attempt, and nothing is doubled.

        Raises:
            OutputFailed: it can't be written.
        """
        try:
            while self._taken:
                self._put_into_words(self._taken[0])
                self._taken.popleft()
            self._sync_arrays()
            self._put()
        except OSError as error:
            raise _failure(error) from error

    def tick(self) -> None:
        """Make what was written safe against a power cut, if it is time to; call it a few times a second.

        Raises:
            OutputFailed: that can't be done.
        """
        if self._since is not None and time.monotonic() - self._since >= SYNC_AFTER:
            self.sync()

    def sync(self) -> None:
        """Make what was written safe against a power cut.

        Raises:
            OutputFailed: that can't be done.
        """
        if self._since is None:
            return
        try:
            if self._doubtful:
                self._write_again()
            os.fsync(self._descriptor)
        except OSError as error:
            self._doubtful = True
            raise _failure(error) from error
        self._since, self._safe = None, self._end
        self._unsynced.clear()

    def drop(self) -> int:
        """Forget what can't be written or synced; return how many results are not written."""
        count = self.unwritten
        self._taken.clear()
        self._lines.clear()
        self._since = None
        return count

    def close(self) -> None:
        """Write the rest and let go of the file. Closing twice is harmless.

        Raises:
            OutputFailed: it can't be written.
        """
        if self._descriptor < 0:
            return
        try:
            self.flush()
            self.sync()
        finally:
            if self._target.name != "-":
                os.close(self._descriptor)
            self._descriptor = -1

    def _put_into_words(self, results: list[Result]) -> None:
        """Make lines of results; where the array of one can't be stored, that one and the rest are left."""
        lines = resultline.plain(results)
        if lines is not None:
            self._lines.append(lines)
            return
        done = 0
        try:
            for result in results:
                self._lines.append(resultline.line(result, self._store(result)))
                done += 1
        finally:
            del results[:done]

    def _sync_arrays(self) -> None:
        """Sync arrays before their lines are written: a power cut must not leave lines without them."""
        if self._arrays and self._target.folder is not None:
            for path in self._arrays:
                sync_file(path)
            sync_folder(self._target.folder)
            self._arrays.clear()

    def _put(self) -> None:
        if not self._lines:
            return
        data = b"".join(self._lines)
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, data[done:])  # the whole is no copy
        except OSError:
            done = self._cut(data, done)
            self._lines = [data[done:]]
            self._written(data[:done])
            raise
        self._lines.clear()
        self._written(data)

    def _cut(self, data: bytes, done: int) -> int:
        """Take back the torn line after so many bytes of the data; return how many bytes are written then."""
        whole = data.rfind(b"\n", 0, done) + 1
        if self._regular and whole < done:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end + whole)
                return whole
        return done

    def _written(self, data: bytes) -> None:
        if self._regular and data:
            self._end += len(data)
            self._unsynced.append(data)
            if self._since is None:
                self._since = time.monotonic()

    def _write_again(self) -> None:
        """Write once more, at its place, what a sync failed for: the next would not miss it (fsync(2))."""
        assert self._target.path is not None
        descriptor = os.open(self._target.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            data = b"".join(self._unsynced)
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], self._safe + done)
        finally:
            os.close(descriptor)
        self._doubtful = False

    def _store(self, result: Result) -> jsonform.Store | None:
        """Return what stores the arrays of a result; None: they are lists."""
        folder = self._target.folder
        return None if folder is None else _Arrays(folder, result.id, self._arrays).save


def _failure(error: OSError) -> OutputFailed:
    what = f"{error.filename}: can't be written" if error.filename else "results can't be written"
    return OutputFailed(f"{what}: {error.strerror or error}", for_good=error.errno in _FOR_GOOD)


class _Arrays:
    """The large arrays of one result."""

    def __init__(self, folder: Path, task_id: str, made: list[Path]) -> None:
        self._folder = folder
        self._made = made
        digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if not _PLAIN_ID.fullmatch(task_id):
            self._name = digest
        else:
            self._name = task_id if task_id == task_id.lower() else f"{task_id}-{digest[:12]}"
        self._count = 0

    def save(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Write an array beside the results; return what stands in its place."""
        import numpy as np

        name = self._name if self._count == 0 else f"{self._name}.{self._count}"
        self._count += 1
        path = self._folder / f"{name}.npy"
        try:
            self._folder.mkdir(exist_ok=True)
            with path.open("wb") as file:
                np.save(_Through(file), array, allow_pickle=False)
        except OSError as error:
            with contextlib.suppress(OSError):  # a half of it would take the room that others could have
                path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
        self._made.append(path)
        return {
            "$npy": f"{self._folder.name}/{path.name}",
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }


class _Through:
    """What NumPy takes for no real file: into one it writes by itself, and does not tell why it can't."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write
