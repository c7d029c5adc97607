"""RPyC: each side offers the other one method that takes pieces of frames, and nothing else.

The worker listens, the dispatcher connects. All calls are asynchronous and return at once, so none lasts
as long as a task, and each connection belongs to one thread: shared ones deadlock. Of RPyC's protocol
only what this needs is answered: no attributes, no pickle, no objects but the one with the method
(`transports.rpyc_wire.protocol`).
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING

from transports.addresses import unknown_name
from transports.base import Say
from transports.guard import SAME_KEYS
from transports.rpyc_wire import tls
from transports.rpyc_wire.protocol import SYNC_TIMEOUT
from transports.rpyc_wire.talk import Talk
from transports.served import (
    Address,
    Identities,
    Served,
    ServedSettings,
    SocketPath,
    Workers,
    listening_socket,
)
from transports.threads import LINGER, Dialler, ThreadedLink

if TYPE_CHECKING:
    from executor.certificates import Identity

#: Seconds between two looks of the listening thread whether it is to end.
_ACCEPTING = 0.2

#: Connections that a worker has at once: dispatchers are few, and strangers are not to use up its threads.
_CONNECTIONS_MOST = 256


class Settings(ServedSettings, frozen=True):
    """Keys of a YAML file for RPyC."""

    workers: Workers = ("127.0.0.1:18861",)
    listen: str = "127.0.0.1:18861"


class RPyC(Served):
    """The wire of the name ``rpyc``."""

    Settings = Settings

    @classmethod
    def dialler(cls, addresses: list[Address], identities: Identities, *, say: Say, largest: int) -> Dialler:
        return _Client(identities, say=say, largest=largest)

    @classmethod
    def listener(cls, where: Address, identity: Identity | None, *, say: Say, largest: int) -> ThreadedLink:
        return _Server(where, identity, say=say, largest=largest)


class _Client(Dialler):
    """The dispatcher's link."""

    def __init__(self, identities: Identities, *, say: Say, largest: int) -> None:
        super().__init__([str(each) for each in identities], say=say, largest=largest)
        self._where = {str(each): each for each in identities}
        self._contexts = {str(each): tls.settings_of(own, server=False) for each, own in identities.items()}
        self._name = secrets.token_hex(8)
        self._talks: dict[bytes, Talk] = {}
        self.start()

    def converse(self, address: str, peer: bytes) -> bool:
        try:
            sock = _connect(self._where[address])
        except socket.gaierror:
            self.remark(unknown_name(address))
            return False
        except OSError:  # nobody there, yet or any more, which the owner notices and says
            return False
        if (context := self._contexts[address]) is not None:
            try:
                sock = tls.secure(sock, context, server=False)
            except TimeoutError:  # it is stopped, perhaps: that says nothing of its keys
                sock.close()
                self.remark(f"{address} takes connections, and says nothing for {SYNC_TIMEOUT:g} s")
                return False
            except OSError as error:
                sock.close()
                self.remark(
                    f"{address} doesn't answer as a worker of ours does: {tls.in_words(error)}; {SAME_KEYS}"
                )
                return False
        try:
            talk = Talk(self, sock, peer)
        except OSError:  # out of descriptors, which may pass
            sock.close()
            return False
        self._talks[peer] = talk
        if self.closing.is_set():  # decided meanwhile, by one who did not see the talk
            talk.end()
        why = talk.run(self._name)
        del self._talks[peer]
        if not talk.met and not self.closing.is_set():
            self.remark(f"{address} doesn't answer as a worker does: {why}")
        return talk.met

    def hang_up(self, peer: bytes) -> None:
        talk = self._talks.get(peer)
        if talk is not None:
            talk.end()

    def _end(self) -> None:
        self._wait(LINGER / 2)
        for talk in list(self._talks.values()):
            talk.end()
        self._wait(LINGER / 2)


class _Server(ThreadedLink):
    """A worker's link."""

    def __init__(self, where: Address, identity: Identity | None, *, say: Say, largest: int) -> None:
        super().__init__(str(where), say=say, largest=largest)
        self._context = tls.settings_of(identity, server=True)
        self._path = SocketPath(where.path)
        self._listening = listening_socket(where)
        if not where.path:
            self.address = str(where._replace(port=self._listening.getsockname()[1]))
        self._listening.settimeout(_ACCEPTING)
        self._talks: set[Talk] = set()
        self._connections: set[socket.socket] = set()  # theirs, and those that are not secured yet
        self._acceptor = threading.Thread(target=self._accept, name="rpyc", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, where = self._listening.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self.closing.is_set():
                    self.remark(f"can't take a connection: {error.strerror}")
                self.closing.wait(_ACCEPTING)  # out of descriptors, which may pass
                continue
            if len(self._connections) >= _CONNECTIONS_MOST:
                self.remark(f"more than {_CONNECTIONS_MOST} connections; hung up on the next")
                sock.close()
                continue
            self._connections.add(sock)
            who = where[0] if where else "this machine"
            threading.Thread(target=self._serve, args=(sock, who), daemon=True).start()

    def _serve(self, sock: socket.socket, who: str) -> None:
        met, why = self._talk(sock)
        self._connections.discard(sock)
        if not met and not self.closing.is_set():
            self.remark(f"hung up on a stranger from {who}: {why}")

    def _talk(self, sock: socket.socket) -> tuple[bool, str]:
        """Talk with a dispatcher to the end; return whether it was one, and why it ended."""
        if self._context is not None:
            try:
                sock = tls.secure(sock, self._context, server=True)
            except OSError as error:
                sock.close()
                return False, f"{tls.in_words(error)}; {SAME_KEYS}"
        try:
            talk = Talk(self, sock, None)
        except OSError as error:  # out of descriptors, which may pass
            sock.close()
            return False, str(error.strerror)
        self._talks.add(talk)
        if self.closing.is_set():  # decided meanwhile, by one who did not see the talk
            talk.end()
        try:
            why = talk.run(None)
        finally:
            self._talks.discard(talk)
        return talk.met, why

    def _end(self) -> None:
        deadline = time.monotonic() + LINGER
        while self._talks and time.monotonic() < deadline:
            time.sleep(0.01)
        for talk in list(self._talks):
            talk.end()
        with contextlib.suppress(OSError):  # macOS refuses that where nobody is connected
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread, where the system knows that
        self._acceptor.join(LINGER)
        self._listening.close()
        self._path.close()


def _connect(where: Address) -> socket.socket:
    """Return a socket that is connected.

    Raises:
        OSError: nobody listens there.
    """
    if not where.path:
        return socket.create_connection((where.host, where.port), timeout=SYNC_TIMEOUT)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(SYNC_TIMEOUT)
        sock.connect(where.path)
    except OSError:
        sock.close()
        raise
    return sock
