"""Folders and locks of this user alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from executor.errors import ConfigError

#: A unix socket's path has at most so many bytes (sockaddr_un; 104 on macOS, its final zero included).
SOCKET_PATH_MOST = 103


def runtime_folder() -> Path:
    """Return the user's folder for sockets and locks, made if missing, of mode 0700 and owned by the user.

    It lies in ``$XDG_RUNTIME_DIR``, else in the temporary directory: that variable is often unset under cron,
    Slurm and in containers, and by its specification a relative path in it is to be ignored.

    Raises:
        ConfigError: it belongs to somebody else, is open to others, or can't be made.
    """
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(given).is_absolute() and os.access(given, os.W_OK | os.X_OK):
        folder = Path(given) / "function-executor"
    else:
        folder = Path(tempfile.gettempdir()) / f"function-executor-{os.getuid()}"
    return private_folder(folder)


def private_folder(folder: Path, instead: str = "set XDG_RUNTIME_DIR to another folder") -> Path:
    """Make a folder that only this user can enter, or check that it is one; return it.

    `instead` says what to do where it can't be.

    Raises:
        ConfigError: it belongs to somebody else, is open to others, or can't be made.
    """
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        info = folder.lstat()  # not stat: a link may lead anywhere
    except OSError as error:
        raise ConfigError(f"{folder}: can't be used: {error.strerror}; {instead}") from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise ConfigError(f"{folder}: is not a folder of yours; remove it, or {instead}")
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
            f"{path}: too long for a socket (at most {SOCKET_PATH_MOST} bytes); "
            "choose a shorter path, or without an address a shorter XDG_RUNTIME_DIR"
        )


class Lock:
    """An advisory lock on a file; it ends with the process that holds it, however that ends."""

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock and leave our process id in the file; return False if another process has it.

        With `wait`, wait until it is free.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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


def socket_lock(path: Path) -> Lock:
    """Return the lock, not yet taken, on a path that a unix socket is to have.

    Raises:
        ConfigError: there is something else, which the socket would take the place of, or no such folder.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"can't listen on unix:{path}: there is no socket there but something else")
        return Lock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise ConfigError(f"can't listen on unix:{path}: {error.strerror}") from error


class RunFolder:
    """A folder for one run's sockets and settings, from `open` to `close`; `path` is its path.

    Raises:
        ConfigError: the user's private folder can't be used.
    """

    def __init__(self) -> None:
        self._parent = runtime_folder()
        self.path = self._parent / f"run-{secrets.token_hex(4)}"
        self._lock: Lock | None = None

    def open(self) -> None:
        """Make the folder; those that earlier processes left when they were killed are removed on the way.

        A folder is in use as long as the file `lock` in it is locked.
        """
        turn = Lock(
            self._parent / "runs.lock"
        )  # nobody takes one that is just being made for one that was left
        turn.acquire(wait=True)
        try:
            for old in self._parent.glob("run-*"):
                _remove_if_left(old)
            self.path.mkdir(mode=0o700)
            self._lock = Lock(self.path / "lock")
            self._lock.acquire()
        finally:
            turn.release()

    def close(self) -> None:
        """Remove the folder, if there is one. Closing twice is harmless."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.release()


def _remove_if_left(folder: Path) -> None:
    """Remove a run's folder whose process is gone."""
    with contextlib.suppress(OSError):  # it is being removed just now
        lock = Lock(folder / "lock")
        if lock.acquire():
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()
