"""The user's keys: one secret in one file, of which everything that protects a link is derived.

They lie in a folder of mode 0700, made at the first need: ``$FUNCTION_EXECUTOR_KEYS``, else
``function-executor/keys`` in ``$XDG_CONFIG_HOME`` (``~/.config``). The same folder on another machine is the
same user there. Who has it can do all that the user can: push calls, run them, and read their results.

Keys for a purpose are derived as libsodium's crypto_kdf does it, with BLAKE2b keyed by the secret and
personalised by the purpose (RFC 7693, 2.1 and 2.8). None of them tells anything of the secret or of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from executor.errors import ConfigError
from executor.private import private_folder

#: Names the folder, in place of the usual one.
VARIABLE = "FUNCTION_EXECUTOR_KEYS"

#: The file that holds the secret, in hexadecimal.
FILE = "secret"

_BYTES = 32
_SECRET = re.compile(rb"[0-9a-f]{%d}\n?" % (2 * _BYTES))


class Keys(NamedTuple):
    """The keys in a folder; `secret` are 32 bytes."""

    folder: Path
    secret: bytes

    def derive(self, purpose: str, *, salt: bytes = b"", length: int = 32) -> bytes:
        """Return the key of `length` bytes (at most 64) for a purpose, and among its keys for a salt.

        Both have at most 16 bytes.
        """
        person = purpose.encode()
        return hashlib.blake2b(key=self.secret, salt=salt, person=person, digest_size=length).digest()

    @property
    def fingerprint(self) -> str:
        """What tells these keys from others, and may be shown to anybody: 16 hex digits in groups of 4."""
        digits = self.derive("fingerprint", length=8).hex()
        return "-".join(digits[start : start + 4] for start in range(0, 16, 4))

    @property
    def short(self) -> str:
        """The first 8 digits of the fingerprint, for names."""
        return self.fingerprint.replace("-", "")[:8]

    @property
    def made(self) -> float:
        """When they were made, in epoch seconds."""
        return (self.folder / FILE).stat().st_mtime


def place(setting: str | None = None) -> Path:
    """Return the folder of the keys: that of the YAML, else of the environment, else the usual one."""
    if named := setting or os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if Path(base).is_absolute() else Path.home() / ".config"
    return folder / "function-executor" / "keys"


def load(folder: Path) -> Keys:
    """Return the keys in a folder; make them if there are none. Of several that make some, one succeeds.

    Raises:
        ConfigError: they can't be read or made, or others could read them.
    """
    instead = f"name another folder with `keys:` or {VARIABLE}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"keys: {folder.parent}: can't be made: {error.strerror}; {instead}") from error
    private_folder(folder, instead=instead)
    path = folder / FILE
    try:
        if not path.exists():
            with _new_secret(folder) as new, contextlib.suppress(FileExistsError):
                path.hardlink_to(new)  # at once, and only if there is none
        return Keys(folder, _read(path))
    except OSError as error:
        raise ConfigError(f"keys: {path}: {error.strerror}") from error


def renew(folder: Path) -> Keys:
    """Put new keys in the place of the old ones; who has the old ones is a stranger to the new.

    Raises:
        ConfigError: as `load`.
    """
    load(folder)
    path = folder / FILE
    try:
        with _new_secret(folder) as new:
            new.replace(path)
        return Keys(folder, _read(path))
    except OSError as error:
        raise ConfigError(f"keys: {path}: {error.strerror}") from error


def export(keys: Keys, target: Path) -> None:
    """Copy the keys to a new folder.

    Raises:
        ConfigError: there is something at that place, or it can't be written.
    """
    try:
        target.mkdir(mode=0o700)
        _write(target / FILE, keys.secret)
    except FileExistsError:
        raise ConfigError(f"{target}: is there already; name a folder that is not") from None
    except OSError as error:
        raise ConfigError(f"{target}: can't be made: {error.strerror}") from error


@contextlib.contextmanager
def _new_secret(folder: Path) -> Iterator[Path]:
    """Write a new secret to a file that is gone afterwards, unless it was renamed."""
    path = folder / f".{secrets.token_hex(8)}"
    try:
        _write(path, secrets.token_bytes(_BYTES))
        yield path
    finally:
        path.unlink(missing_ok=True)


def _write(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secret.hex().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(descriptor)
        if info.st_uid != os.getuid():
            raise ConfigError(f"keys: {path}: belongs to another user; remove it, and keys are made anew")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise ConfigError(f"keys: {path}: others may read it; type: chmod 600 {path}")
        text = os.read(descriptor, 4 * _BYTES)
    finally:
        os.close(descriptor)
    if not _SECRET.fullmatch(text):
        raise ConfigError(f"keys: {path}: is not what keys.py wrote; copy it again, or remove it")
    return bytes.fromhex(text.decode())
