"""Where results go: a file with a folder beside it, of its name and ``.d``; or a pipe, a device, stdout.

In the folder stand large arrays as ``.npy`` files, the lock that keeps a second dispatcher away, and what a
run that continues this one has to know (`executor.history`, `executor.superseded`).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from executor.errors import UsageError
from executor.private import Lock
from executor.streams import complain

#: What to do with a file that holds something: refuse it, replace it, or go on with it.
Mode: TypeAlias = Literal["new", "overwrite", "resume"]

#: Lines that were taken out of the file, to run their tasks again.
SUPERSEDED = "superseded.jsonl"

#: The runs that wrote this file, and the orders in which their tasks stood.
RUNS = "runs.jsonl"
ORDER = "order-"


class Target:
    """The place that results go to, from construction to `close` this process's own.

    `path` is the file, links resolved, and `folder` lies beside it; both are None for stdout (``-``), a pipe
    or a device, beside which nothing can lie. `name` is what the user calls it.

    Raises:
        UsageError: it can't be written, another dispatcher writes it, or it holds something and `mode` is
            "new".
    """

    def __init__(self, name: str, mode: Mode = "new") -> None:
        self.name = name
        self.path: Path | None = None
        self.folder: Path | None = None
        self._lock: Lock | None = None
        if name == "-":
            return
        if not Path(name).name:  # ".", "/", ""
            raise UsageError(f"--output {name or repr(name)}: names no file")
        try:
            path = Path(os.path.realpath(name))
            if _is_stream(name, path):
                return
            if mode == "new":  # before a folder is made beside what may be none of ours
                self._refuse(path)
            self.path, self.folder = path, path.with_name(path.name + ".d")
            self.folder.mkdir(exist_ok=True)
            self._take_lock()
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))
                if mode == "new":
                    self._refuse(path)
                if mode != "resume":
                    self._clear(everything=mode == "overwrite")
                sync_folder(path.parent)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise UsageError(f"--output {name}: {error.strerror}") from error

    def _refuse(self, path: Path) -> None:
        if path.exists() and (held := path.stat().st_size):
            raise UsageError(
                f"--output {self.name}: holds {held:,} bytes already; --resume goes on with it, "
                "--retry-failed also runs again what is not ok in it, --overwrite replaces it"
            )

    def _take_lock(self) -> None:
        assert self.folder is not None
        self._lock = Lock(self.folder / "lock", mode=0o666)
        try:
            taken = self._lock.acquire()
        except OSError as error:  # a file system without locks
            complain(
                f"{self.folder / 'lock'}: can't be locked ({error.strerror}): "
                "see that no other dispatcher writes this file"
            )
            return
        if not taken:
            holder = self._lock.holder()
            self.close()
            raise UsageError(
                f"--output {self.name}: another dispatcher (process {holder}) writes it; "
                "wait for its end, or choose another name"
            )

    def _clear(self, *, everything: bool) -> None:
        """Remove what earlier runs left of themselves; with `everything`, their results as well."""
        assert self.path is not None
        assert self.folder is not None
        for name in (RUNS, f"{ORDER}*", *((SUPERSEDED, "*.npy") if everything else ())):
            for stale in self.folder.glob(name):
                stale.unlink()
        if everything:
            os.truncate(self.path, 0)

    def close(self) -> None:
        """Let others write it. Closing twice is harmless."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _is_stream(name: str, path: Path) -> bool:
    """Tell whether there is something else than a file that has this path: a pipe, say ``>(gzip >r.gz)``."""
    try:
        info = os.stat(name)  # noqa: PTH116 — not by the path: /dev/fd/63 leads to a pipe, which has none
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(info.st_mode) and path.exists() and path.samefile(name))


def sync_file(path: Path) -> None:
    """Make a file safe against a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in a folder safe against a power cut, where the file system knows of that."""
    try:
        sync_file(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.ENOTSUP):
            raise
