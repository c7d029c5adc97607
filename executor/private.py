"""Folders and locks of this user alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from executor.errors import ConfigError

#: A unix socket's path has at most so many bytes (sockaddr_un; 104 on macOS, its final zero included).
SOCKET_PATH_MOST = 103


def runtime_folder() -> Path:
    """Return the user's folder for sockets and locks, made if missing, of mode 0700 and owned by the user.

    It lies in ``$XDG_RUNTIME_DIR``, else in the temporary directory (that variable is often unset under
    cron, Slurm and in containers).

    Raises:
        ConfigError: it belongs to somebody else, is open to others, or can't be made.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and os.access(given, os.W_OK | os.X_OK):
        folder = Path(given) / "function-executor"
    else:
        folder = Path(tempfile.gettempdir()) / f"function-executor-{os.getuid()}"
    return private_folder(folder)


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, or check that it is one; return it.

    Raises:
        ConfigError: it belongs to somebody else, is open to others, or can't be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        info = folder.lstat()  # not stat: a link may lead anywhere
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't be used: {error.strerror}; set XDG_RUNTIME_DIR to another folder"
        ) from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise ConfigError(
            f"{folder}: is not a folder of yours; remove it, or set XDG_RUNTIME_DIR to another folder"
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(f"{folder}: others may enter it; type: chmod 700 {folder}")
    return folder


def check_socket_path(path: str) -> None:
    """Refuse a path that is too long for a unix socket.

    Raises:
        ConfigError: it is.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_MOST:
        raise ConfigError(
            f"{path}: too long for a socket ({SOCKET_PATH_MOST} bytes); set XDG_RUNTIME_DIR to a shorter one"
        )


class Lock:
    """An advisory lock on a file; it ends with the process that holds it, however that ends."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def acquire(self) -> bool:
        """Take the lock and leave our process id in the file; return False if another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
        return True

    def holder(self) -> str:
        """Return the process id of the one who has it, as far as it says."""
        return os.pread(self._descriptor, 32, 0).decode("ascii", "replace") or "unknown"

    def release(self) -> None:
        """Give the lock back. Releasing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class RunFolder:
    """A folder for one run's sockets and settings, removed at its end.

    Folders that an earlier process left when it was killed are removed on the way.

    Raises:
        ConfigError: the user's private folder can't be used.
    """

    def __init__(self) -> None:
        parent = runtime_folder()
        for old in parent.glob("run-*"):
            _remove_if_left(old)
        made = Path(tempfile.mkdtemp(prefix="new-", dir=parent))
        self._lock = Lock(made / "lock")
        self._lock.acquire()
        # Its final name only now: nobody may take it for one that was left.
        self.path = made.rename(made.with_name("run-" + made.name.removeprefix("new-")))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def _remove_if_left(folder: Path) -> None:
    """Remove a run's folder whose process is gone."""
    with contextlib.suppress(OSError):  # it is being made, or removed, just now
        if not (folder / "lock").exists():
            return
        lock = Lock(folder / "lock")
        if lock.acquire():
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
