"""Where results go: a file with a folder beside it, of its name and ``.d``; or a pipe, a device, stdout.

In the folder stand large arrays as ``.npy`` files, the lock that keeps a second dispatcher away, and what a
run that continues this one has to know (`executor.history`, `executor.superseded`).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal, TypeAlias

from executor.closing import Closing
from executor.errors import OutputFailed, UsageError
from executor.private import Lock
from executor.streams import complain

#: What to do with a file that holds something: refuse it, replace it, or go on with it.
Mode: TypeAlias = Literal["new", "overwrite", "resume"]

#: Lines that were taken out of the file, to run their tasks again.
SUPERSEDED = "superseded.jsonl"

#: The runs that wrote this file, and the orders in which their tasks stood.
RUNS = "runs.jsonl"
ORDER = "order-"


class Target(Closing):
    """The place that results go to, from construction to `close` this process's own.

    `path` is the file, links resolved, and `folder` lies beside it; both are None for stdout (``-``), a pipe
    or a device, beside which nothing can lie. `name` is what the user calls it, and `beside` the folder.

    Nothing that it holds is changed before `begin`.

    Raises:
        UsageError: it can't be written, another dispatcher writes it, it holds something and `mode` is "new",
            or it is no file and `mode` is "resume".
    """

    def __init__(self, name: str, mode: Mode = "new") -> None:
        self.name = name
        self.path: Path | None = None
        self.folder: Path | None = None
        self.beside = ""
        self._mode = mode
        self._lock: Lock | None = None
        if name == "-":
            return
        if not Path(name).name:  # ".", "/", ""
            raise UsageError(f"--output {name or repr(name)}: names no file")
        try:
            path = Path(os.path.realpath(name))
            if _is_stream(name, path):
                if mode == "resume":
                    raise not_a_file(name)
                return
            if mode == "new":  # before a folder is made beside what may be none of ours
                self._refuse(path)
            self.path, self.folder = path, path.with_name(path.name + ".d")
            self.beside = str(self.folder) if Path(name).is_symlink() else f"{Path(name)}.d"
            if not path.parent.is_dir():
                raise UsageError(f"--output {name}: there is no folder {path.parent}")
            self.folder.mkdir(exist_ok=True)
            self._take_lock()
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666))
                if mode == "new":
                    self._refuse(path)
                sync_folder(path.parent)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise UsageError(f"--output {name}: {reason(error, self.path)}") from error

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

    def begin(self) -> None:
        """Remove what this run does not go on with: what tells of earlier runs, and where it overwrites, all.

        Raises:
            OutputFailed: that can't be done.
        """
        if self.path is None or self.folder is None or self._mode == "resume":
            return
        try:
            self._remove(RUNS, f"{ORDER}*")  # first: an empty file is no end of those runs
            if self._mode == "overwrite":
                os.truncate(self.path, 0)
                self._remove(SUPERSEDED, "*.npy")  # then what lines name
        except OSError as error:
            raise OutputFailed(f"--output {self.name}: {reason(error, self.path)}") from error

    def _remove(self, *names: str) -> None:
        assert self.folder is not None
        for name in names:
            for stale in self.folder.glob(name):
                stale.unlink()

    def close(self) -> None:
        """Let others write it. Closing twice is harmless."""
        if self._lock is not None:
            self._lock.release()


def _is_stream(name: str, path: Path) -> bool:
    """Tell whether there is something else than a file that has this path: a pipe, say ``>(gzip >r.gz)``."""
    try:
        info = os.stat(name)  # noqa: PTH116 — not by the path: /dev/fd/63 leads to a pipe, which has none
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(info.st_mode) and path.exists() and path.samefile(name))


def not_a_file(name: str) -> UsageError:
    """Return the error that a run can't go on with a pipe, a device or a folder."""
    return UsageError(f"--output {name}: is no file, so there is nothing to go on with")


def reason(error: OSError, path: Path | None) -> str:
    """Return what went wrong, and where, if not with the file at `path` that is spoken of."""
    what = error.strerror or str(error)
    where = error.filename
    return what if where is None or path is None or Path(where) == path else f"{where}: {what}"


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
