"""ZeroMQ: the dispatcher binds a ROUTER, workers connect a DEALER.

Not PUSH and PULL: those hand out blindly and forget what a dead peer held. The broker's credit keeps far
fewer messages under way than the high-water marks allow, so a socket that is full is a peer that is gone.

Without an address it is a unix socket in a folder of this user alone, which needs no set-up.
"""

from __future__ import annotations

import contextlib
import errno
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq
from zmq.utils import z85

from executor.bounds import LARGEST_FRAME
from executor.errors import ConfigError, NobodyThere
from executor.messages import Hello, Parts
from executor.private import Lock, runtime_folder, socket_lock
from executor.waiting import SAY_AGAIN
from transports.addresses import host_and_port, socket_path
from transports.base import Say, Transport
from transports.direct import DirectDispatcherEnd, DirectWorkerEnd
from transports.guard import SAME_KEYS, keys_for
from transports.link import Came, Event, Frame, Link
from transports.settings import Settings as CommonSettings
from transports.settings import checked

#: Messages that may wait in a socket to be sent: the broker's credit stays far below it.
HIGH_WATER = 10_000

#: Messages of a peer that are read before the owner takes them; what it sends beyond waits at its end. ZeroMQ
#: counts neither their bytes nor their parts.
UNREAD = 64

#: Milliseconds to send what is under way before a socket closes.
LINGER = 1000

#: Messages taken at one go, so that the owner gets to answer in between.
_AT_ONCE = 16

#: As plain numbers: an operation on PyZMQ's own makes a member of an enumeration each time.
_MORE, _NOW = int(zmq.RCVMORE), int(zmq.DONTWAIT)
_POLLIN, _POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
_FIRST = int(zmq.DONTWAIT | zmq.SNDMORE)

#: Bytes from which a part is not copied in and out of ZeroMQ. Below it, what keeps hold of it costs more.
_LARGE = 65536

#: What ZeroMQ tells of connections that are none of its own.
_HANDSHAKES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)

#: Why one can't listen, in clearer words than the system's.
_REASONS = {
    zmq.EADDRINUSE: "another process listens there",
    errno.ENODEV: "this machine has no such address",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}

#: Milliseconds between attempts to connect: the first, and the longest after backing off.
_RECONNECT = 50
_RECONNECT_MOST = 1000


class Settings(CommonSettings, frozen=True):
    """Keys of a YAML file for ZeroMQ."""

    #: Where workers find the dispatcher: tcp://host:port, or unix:/path; None: a socket of this user alone.
    address: str | None = None
    #: What the dispatcher listens on where that isn't `address`: tcp://*:5555 beside tcp://login1:5555.
    bind: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, text in (("address", self.address), ("bind", self.bind)):
            if text is not None:
                checked(_endpoint, text, key)


class ZeroMQ(Transport):
    """The wire of the name ``zmq``."""

    Settings = Settings
    OVERRIDES = {"address": "address"}

    @classmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> DirectDispatcherEnd:
        endpoint = _endpoint(settings.bind or settings.address)
        link = _Listener(endpoint, say, wait, _curve(settings, endpoint, "dispatcher", say))
        link.largest = settings.largest
        return DirectDispatcherEnd(link, settings, say=say)

    @classmethod
    def worker_end(cls, settings: Any, hello: Hello, *, say: Say) -> DirectWorkerEnd:
        endpoint = _endpoint(settings.address)
        if endpoint.startswith("tcp://*:"):
            port = endpoint.rpartition(":")[2]
            raise ConfigError(
                f"address: {endpoint} is what a dispatcher listens on (`bind`); "
                f"a worker needs the name of the dispatcher's machine: tcp://HOST:{port}"
            )
        link = _Dialer(endpoint, say, _curve(settings, endpoint, "worker", say))
        link.largest = settings.largest
        return DirectWorkerEnd(link, hello, say=say, keep=settings.keep)

    @classmethod
    def private(cls, settings: Any, folder: str, workers: int) -> tuple[Any, list[Any]]:
        own = msgspec.structs.replace(settings, address=f"unix:{folder}/zmq", bind=None, insecure=False)
        return own, [own] * workers


def _endpoint(address: str | None, key: str = "address") -> str:
    """Return ZeroMQ's form of an address; `key` is what it is a value of.

    Raises:
        ConfigError: it is none.
    """
    if address is None:
        address = f"unix:{runtime_folder() / 'zmq'}"
    if path := socket_path(address):
        return f"ipc://{path}"
    if not (address.startswith("tcp://") and host_and_port(address.removeprefix("tcp://"))):
        raise ConfigError(f"{key}: {address!r}: write tcp://host:port, or unix:/path")
    return address


def _shown(endpoint: str) -> str:
    return endpoint.replace("ipc://", "unix:", 1) if endpoint.startswith("ipc://") else endpoint


def _pending(socket: Any) -> int:
    """Return what a socket would do now. It is asked first, as a receive in vain costs an exception.

    Not by its option `EVENTS`: to look up what type that has takes as long as the answer.
    """
    for _, events in zmq.zmq_poll([(socket, _POLLIN | _POLLOUT)], 0):
        return int(events)
    return 0


class _Socket(zmq.Socket[bytes]):
    """Sends as the library does, without a look at what only other kinds of sockets need."""

    send: Any = zmq.backend.Socket.send


class _Curve(NamedTuple):
    """An end's keys for CurveZMQ (ZeroMQ's RFC 26) as text; `other` is the other end's public one."""

    public: bytes
    secret: bytes
    other: bytes


def _curve(settings: Settings, endpoint: str, role: str, say: Say) -> _Curve | None:
    """Return the keys of an end in a role, or None if none are needed.

    Raises:
        ConfigError: as `keys_for`.
    """
    path = endpoint.removeprefix("ipc://") if endpoint.startswith("ipc://") else None
    keys = keys_for(settings, _shown(endpoint), path, say)
    if keys is None:
        return None
    secrets = {each: z85.encode(keys.derive(f"zmq {each}")) for each in ("dispatcher", "worker")}
    secret = secrets.pop(role)
    (other,) = secrets.values()
    return _Curve(zmq.curve_public(secret), secret, zmq.curve_public(other))


class _ZmqLink(Link):
    """A socket and its context."""

    def __init__(self, kind: int, endpoint: str, curve: _Curve | None) -> None:
        self.address = _shown(endpoint)
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(kind, _Socket)
        for option, value in (
            (zmq.IPV6, "[" in endpoint),  # else a name may lead to an address that the other end doesn't have
            (zmq.LINGER, LINGER),
            (zmq.SNDHWM, HIGH_WATER),
            (zmq.RCVHWM, UNREAD),
            (zmq.MAXMSGSIZE, LARGEST_FRAME),  # of one part: a bound against a peer gone mad
            (zmq.RECONNECT_IVL, _RECONNECT),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST),
            # Half-open connections are closed by the system, some seconds after it last heard the other end.
            # Not by ZeroMQ's own heartbeats: one that is due on a connection that broke with something unread
            # ends the process (libzmq 4.3.5).
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 5),
            (zmq.TCP_KEEPALIVE_INTVL, 5),
            (zmq.TCP_KEEPALIVE_CNT, 2),
            (zmq.TCP_MAXRT, 15_000),  # milliseconds, where something was sent
        ):
            self._socket.setsockopt(option, value)
        if curve is not None:
            self._socket.curve_publickey, self._socket.curve_secretkey = curve.public, curve.secret
        self._failed = self._socket.get_monitor_socket(_HANDSHAKES)
        self._fileno = int(self._socket.getsockopt(zmq.FD))

    def fileno(self) -> int:
        return self._fileno

    def ready(self) -> bool:
        return bool(_pending(self._socket) & _POLLIN)

    def _send(self, parts: Sequence[Any]) -> bool:
        send, last = self._socket.send, len(parts) - 1
        try:
            for index, part in enumerate(parts):
                # Large parts are not copied: ZeroMQ holds on to them until they are sent.
                send(part, _FIRST if index < last else _NOW, len(part) < _LARGE)
        except zmq.ZMQError:  # full, or no such peer: it is gone
            return False
        return True

    def _receive(self) -> list[Any]:
        """Return the parts that are left of a message; large ones but the first are not copied."""
        parts: list[Any] = [self._socket.recv(_NOW)]
        more = self._socket.get(_MORE)
        while more:
            frame = self._socket.recv(_NOW, False)
            parts.append(frame.buffer if len(frame) >= _LARGE else frame.bytes)
            more = frame.more
        return parts

    def close(self) -> None:
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._failed.close(linger=0)
            self._socket.close()
            self._context.term()  # returns when the linger is over at the latest


class _Listener(_ZmqLink):
    """The dispatcher's socket."""

    def __init__(self, endpoint: str, say: Say, wait: float | None, curve: _Curve | None) -> None:
        super().__init__(zmq.ROUTER, endpoint, curve)
        self._came = False  # whether one message is known to be there
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._doorkeeper: Any = None
        self._lock: Lock | None = None
        self._bound: Path | None = None  # the socket's file, which ZeroMQ leaves behind
        self._say: Say | None = say  # of strangers, once
        try:
            if curve is not None:
                self._let_in_only(curve.other)
            path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
            if path is not None:
                self._take_turn(path, say, wait)
            self._socket.bind(endpoint)
            self._bound = path
        except zmq.ZMQError as error:
            self.close()
            reason = _REASONS.get(error.errno or 0, error.strerror.partition(" (addr=")[0])
            raise ConfigError(f"can't listen on {self.address}: {reason}") from error
        except BaseException:
            self.close()
            raise

    def _let_in_only(self, public: bytes) -> None:
        """Accept connections only from who has the secret key to a public one (ZeroMQ's RFC 27)."""

        from zmq.auth.thread import ThreadAuthenticator  # brings asyncio, which a unix socket does without

        class Provider:
            def callback(self, domain: str, key: bytes) -> bool:
                return key == public

        self._doorkeeper = ThreadAuthenticator(self._context)
        self._doorkeeper.start()
        self._doorkeeper.configure_curve_callback("*", Provider())
        self._socket.curve_server = True

    def _take_turn(self, path: Path, say: Say, wait: float | None) -> None:
        """Lock a unix socket's path: ZeroMQ would take it over from another dispatcher in silence."""
        self._lock = socket_lock(path)
        deadline = None if wait is None else time.monotonic() + wait
        say_at = 0.0
        while not self._lock.acquire():
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + SAY_AGAIN
                other = f"another dispatcher (process {self._lock.holder()})"
                say(f"{other} is at {self.address}; waiting for its end")
            if deadline is not None and time.monotonic() >= deadline:
                raise NobodyThere(f"another dispatcher is still at {self.address} after {wait:g} s")
            time.sleep(0.05)

    def wait(self, seconds: float) -> None:
        if not self.ready():
            self._came = bool(zmq.zmq_poll([(self._socket, _POLLIN)], math.ceil(seconds * 1000)))

    def receive(self) -> list[Event]:
        if self._came:  # while it was waited for, and so alone, mostly: it isn't asked what else there is
            self._came = False
            return [Frame(self._socket.recv(_NOW), self._receive())]
        events: list[Event] = []
        while len(events) < _AT_ONCE and _pending(self._socket) & _POLLIN:
            events.append(Frame(self._socket.recv(_NOW), self._receive()))
        if not events and self._say is not None and _pending(self._failed) & _POLLIN:
            why = "it has other keys, or doesn't speak ZeroMQ as we do"
            self._say(f"hung up on a stranger at {self.address}: {why}")
            self._say = None
        return events

    def send(self, peer: bytes, parts: Parts) -> bool:
        return self._send((peer, *parts))

    def close(self) -> None:
        if self._doorkeeper is not None:
            self._doorkeeper.stop()
            self._doorkeeper = None
        super().close()
        if self._bound is not None:  # as long as the lock is ours, so is the file
            with contextlib.suppress(OSError):  # its folder went, say
                self._bound.unlink()
            self._bound = None
        if self._lock is not None:
            self._lock.release()


class _Dialer(_ZmqLink):
    """A worker's socket; its one peer is the dispatcher at the address."""

    PEER = b"dispatcher"

    def __init__(self, endpoint: str, say: Say, curve: _Curve | None) -> None:
        super().__init__(zmq.DEALER, endpoint, curve)
        self._endpoint = endpoint
        self._say: Say | None = say  # of a dispatcher that doesn't know us, once
        if curve is not None:
            self._socket.curve_serverkey = curve.other
        # Nothing is queued for a dispatcher that isn't there: it would reach the next one, stale.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._writable = 0  # _POLLOUT when it is
        self._told = False  # whether the descriptor tells of all that comes: nothing was left, or done since
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"can't connect to {self.address}: {error.strerror}") from error

    def ready(self) -> bool:
        if not self._told:
            self._told = _pending(self._socket) == self._writable
        return not self._told

    def receive(self) -> list[Event]:
        events: list[Event] = []
        now = _pending(self._socket)
        if (writable := now & _POLLOUT) and not self._writable:
            events.append(Came(self.PEER))
        self._writable = writable
        while len(events) < _AT_ONCE and now & _POLLIN:
            events.append(Frame(self.PEER, self._receive()))
            now = _pending(self._socket)
        self._told = now == writable
        if not writable and _pending(self._failed) & _POLLIN:
            self._try_again()
        return events

    def patience(self) -> float | None:
        return None if self._writable else _RECONNECT_MOST / 1000

    def _try_again(self) -> None:
        """Connect anew: where the other end speaks otherwise, ZeroMQ gives up for good."""
        if self._say is not None:
            self._say(f"who listens at {self.address} is no dispatcher that knows us: {SAME_KEYS}")
            self._say = None
        while _pending(self._failed) & _POLLIN:
            self._failed.recv_multipart(_NOW)
        self._connect_anew()

    def renew(self, peer: bytes) -> None:
        self._connect_anew()

    def _connect_anew(self) -> None:
        self._told, self._writable = False, 0
        self._socket.disconnect(self._endpoint)
        self._socket.connect(self._endpoint)

    def send(self, peer: bytes, parts: Parts) -> bool:
        self._told = False
        return self._send(parts)
