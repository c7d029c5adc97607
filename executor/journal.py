"""The results file: one JSON object per line, written as results arrive.

Large arrays stand beside it as ``.npy`` files in a folder of the file's name and ``.d``.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from executor import jsonform
from executor.errors import OutputFailed, UsageError
from executor.streams import nowhere
from executor.task import Result

if TYPE_CHECKING:
    import numpy as np

#: Seconds between two calls of fsync: what a power cut may cost at most.
SYNC_SECONDS = 1.0

#: An id that may be a file's name on every system.
_PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Journal:
    """Writes results to the file `path`, or to stdout for ``-``.

    Raises:
        UsageError: the file can't be written, or holds something and `overwrite` is False.
    """

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self._pending: list[bytes] = []
        self._arrays: Path | None = None
        self._synced_at = 0.0
        self._file: IO[bytes]
        self._regular = False  # a file that can be synced, and not a pipe or a device
        if path == "-":
            self._file = sys.stdout.buffer
            self._owned = False
            return
        self._owned = True
        target = Path(path)
        if not target.name:  # ".", "/", ""
            raise UsageError(f"--output {path or repr(path)}: names no file")
        self._arrays = target.with_name(target.name + ".d")
        try:
            # Opened for appending, so that nothing is lost before we have looked.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._file = os.fdopen(os.open(target, flags, 0o666), "wb")
            info = os.fstat(self._file.fileno())
            self._regular = stat.S_ISREG(info.st_mode)
            if not self._regular:  # a pipe, say >(gzip >results.gz): nothing can lie beside it
                self._arrays = None
            elif held := info.st_size:
                if not overwrite:
                    self._file.close()
                    raise UsageError(
                        f"--output {path}: holds {held:,} bytes already; "
                        "choose another name, or --overwrite to replace it"
                    )
                self._file.truncate(0)
                for stale in self._arrays.glob("*.npy"):
                    stale.unlink()
        except OSError as error:
            raise UsageError(f"--output {path}: {error.strerror}") from error
        self._path = path

    def write(self, result: Result) -> None:
        """Take a result; `flush` puts it into the file.

        Raises:
            OutputFailed: an array could not be written beside it.
        """
        self._pending.append(self._line(result))

    def flush(self) -> None:
        """Write what was taken, and make it safe against a power cut from time to time.

        Raises:
            OutputFailed: it can't be written.
        """
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        try:
            self._file.write(data)
            self._file.flush()
            now = time.monotonic()
            if self._regular and now - self._synced_at > SYNC_SECONDS:
                self._synced_at = now
                os.fsync(self._file.fileno())
        except OSError as error:
            if not self._owned:  # what stdout still holds would be tried again, and complained of, at exit
                nowhere(sys.stdout)
            raise OutputFailed(f"results can't be written: {error.strerror}") from error

    def close(self) -> None:
        """Write the rest and let go of the file. Closing twice is harmless.

        Raises:
            OutputFailed: it can't be written.
        """
        self.flush()
        if self._owned and not self._file.closed:
            try:
                if self._regular:
                    os.fsync(self._file.fileno())
                self._file.close()
            except OSError as error:  # of what an earlier attempt could not write, too
                raise OutputFailed(f"results can't be written: {error.strerror}") from error

    def _line(self, result: Result) -> bytes:
        save = None if self._arrays is None else _Arrays(self._arrays, result.id).save
        error = result.error
        value = jsonform.to_json(result.value, save)  # before the parameters: its array has the plain name
        record: dict[str, Any] = {
            "id": result.id,
            "function": result.function,
            "params": jsonform.to_json(result.params, save),
            "kwargs": jsonform.to_json(result.kwargs, save),
            "resources": result.resources,
            "status": result.status,
            "value": value,
            "error": error and {"type": error.type, "message": error.message, "traceback": error.traceback},
            "attempt": result.attempt,
            "worker": result.worker,
            "host": result.host,
            "cores": result.cores,
            "submitted": result.submitted,
            "started": result.started,
            "finished": result.finished,
        }
        for name in ("stdout", "stderr"):
            if printed := getattr(result, name):
                record[name] = printed
        return jsonform.encode_line(record) + b"\n"


class _Arrays:
    """The large arrays of one result."""

    def __init__(self, folder: Path, task_id: str) -> None:
        self._folder = folder
        self._name = (
            task_id
            if _PLAIN_ID.fullmatch(task_id)
            else hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        )
        self._count = 0

    def save(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        """Write an array beside the results; return what stands in its place."""
        import numpy as np

        name = self._name if self._count == 0 else f"{self._name}.{self._count}"
        self._count += 1
        file = self._folder / f"{name}.npy"
        try:
            self._folder.mkdir(exist_ok=True)
            np.save(file, array, allow_pickle=False)
        except OSError as error:
            raise OutputFailed(f"{file}: can't be written: {error.strerror}") from error
        return {
            "$npy": f"{self._folder.name}/{file.name}",
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }
