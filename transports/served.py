"""The wires where the worker is the server: their settings, their addresses, and how their ends are made.

A worker listens on one address. A dispatcher connects to each worker that it lists, and again whenever a
connection breaks. It tells the worker a name of its own choosing, by which the worker knows it again.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import msgspec

from executor.errors import ConfigError
from executor.messages import Hello
from executor.private import socket_lock
from transports.addresses import host_and_port, socket_path
from transports.base import Say, Transport
from transports.direct import DirectDispatcherEnd, DirectWorkerEnd
from transports.guard import keys_for
from transports.settings import Settings, checked
from transports.threads import Dialler, ThreadedLink

if TYPE_CHECKING:
    from executor.certificates import Identity, Role

#: What a dispatcher may call itself.
NAME = re.compile(r"[0-9a-f]{16}")


#: host:port of each worker, or unix:/path.
Workers: TypeAlias = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class ServedSettings(Settings, frozen=True):
    """Keys of a YAML file for a wire where workers are servers."""

    #: The dispatcher's list.
    workers: Workers
    #: What a worker listens on.
    listen: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, texts in (("workers", self.workers), ("listen", (self.listen,))):
            for text in texts:
                checked(address, text, key)


#: Who a dispatcher is to the worker at each address.
Identities: TypeAlias = "Mapping[Address, Identity | None]"


class Address(NamedTuple):
    """Where a worker listens: a host and a port, or a unix socket's path."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str, key: str) -> Address:
    """Read ``host:port``, ``[ipv6]:port`` or ``unix:/path``; `key` is what it is a value of.

    Raises:
        ConfigError: it is none of them.
    """
    if path := socket_path(text):
        return Address("", 0, path)
    if not (where := host_and_port(text)):
        raise ConfigError(f"{key}: {text!r}: write host:port, or unix:/path")
    return Address(*where, "")


def check_free(where: Address) -> None:
    """See whether one could listen on a TCP address now.

    Raises:
        ConfigError: another process does, or the address is none of this machine.
    """
    if not where.path:
        listening_socket(where).close()


def listening_socket(where: Address) -> socket.socket:
    """Return a socket that listens; a unix socket's path must be held (`SocketPath`).

    Raises:
        ConfigError: another process does, or the address is none of this machine.
    """
    try:
        if where.path:
            return socket.create_server(where.path, family=socket.AF_UNIX)
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        return socket.create_server((where.host, where.port), family=family)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "another process listens there" if in_use else str(error.strerror or error)
        reason = reason.partition(" (while attempting")[0]  # Python's words for what ours say
        raise ConfigError(f"can't listen on {where}: {reason}") from error


def identity(settings: Any, where: Address, role: Role, say: Say) -> Identity | None:
    """Return who a process is in a role, on a link at an address; None: that needs no protection.

    Raises:
        ConfigError: as `keys_for`.
    """
    keys = keys_for(settings, str(where), where.path, say)
    if keys is None:
        return None
    from executor.certificates import Identity  # brings OpenSSL, which a unix socket does without

    return Identity(keys, role)


class SocketPath:
    """Holds a unix socket's path for as long as this process listens there.

    Without it a second server would take the path over from the first in silence.

    Raises:
        ConfigError: another process listens there, or the path can't be used.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = None
        if not path:
            return
        self._lock = socket_lock(self._path)
        if not self._lock.acquire():
            raise ConfigError(f"can't listen on unix:{path}: another process listens there")
        try:
            self._path.unlink(missing_ok=True)  # left by one that was killed
        except OSError as error:
            raise ConfigError(f"can't listen on unix:{path}: {error.strerror}") from error

    def close(self) -> None:
        """Remove the socket and let others have its path. Closing twice is harmless."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._lock.release()
            self._lock = None


class Served(Transport):
    """A wire where the worker is the server; what is special to it are its two links."""

    Settings = ServedSettings
    OVERRIDES = {"connect": "workers", "listen": "listen"}

    @classmethod
    @abstractmethod
    def dialler(cls, addresses: list[Address], identities: Identities, *, say: Say, largest: int) -> Dialler:
        """Return a link that connects to all of these workers; `identities` is by address."""

    @classmethod
    @abstractmethod
    def listener(cls, where: Address, identity: Identity | None, *, say: Say, largest: int) -> ThreadedLink:
        """Return a link that listens, without an identity to whoever comes.

        Raises:
            ConfigError: it can't, because another process does or the address is not ours.
        """

    @classmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> DirectDispatcherEnd:
        addresses = list(dict.fromkeys(address(text, "workers") for text in settings.workers))
        identities = {each: identity(settings, each, "dispatcher", say) for each in addresses}
        link = cls.dialler(addresses, identities, say=say, largest=settings.largest)
        return DirectDispatcherEnd(link, settings, say=say)

    @classmethod
    def worker_end(cls, settings: Any, hello: Hello, *, say: Say) -> DirectWorkerEnd:
        where = address(settings.listen, "listen")
        own = identity(settings, where, "worker", say)
        link = cls.listener(where, own, say=say, largest=settings.largest)
        return DirectWorkerEnd(link, hello, say=say, keep=settings.keep)

    @classmethod
    def private(cls, settings: Any, folder: str, workers: int) -> tuple[Any, list[Any]]:
        where = tuple(f"unix:{folder}/{index}" for index in range(workers))
        own = msgspec.structs.replace(settings, workers=where, insecure=False)
        return own, [msgspec.structs.replace(settings, workers=where[:1], listen=each) for each in where]
