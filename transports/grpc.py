"""gRPC: the worker serves a stream of frames, the dispatcher calls it and stays.

One bidirectional stream for each dispatcher and worker, not a call for each task. Beside it the worker has
the standard health service, which says NOT_SERVING while it drains. Over TCP both ends show a certificate of
the user's, and both are checked. gRPC agrees on TLS 1.3; that nobody uses 1.2 can't be asked for in Python.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

# Its own lines about connections that fail would stand between ours, which say it, too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from executor.bounds import LARGEST_FRAME
from executor.errors import BadFrame, ConfigError
from transports.addresses import unknown_name
from transports.base import Say
from transports.grpc_wire import frames_pb2 as _messages_code
from transports.grpc_wire import frames_pb2_grpc as _service_code
from transports.guard import SAME_KEYS
from transports.pieces import PIECE_BYTES, Joiner, Piece, together
from transports.served import (
    NAME,
    Address,
    Identities,
    Served,
    ServedSettings,
    SocketPath,
    Workers,
    check_free,
)
from transports.threads import LINGER, Dialler, Outbox, ThreadedLink

if TYPE_CHECKING:
    from executor.certificates import Identity

#: Bytes of the longest message: ours have `PIECE_BYTES` and a little; gRPC's own limit is 4 MiB. One of each
#: peer, and as many pieces as there may be in it, is in memory before it is looked at.
_MESSAGE_BYTES = 4 * PIECE_BYTES

#: Milliseconds between two pings on a quiet connection, and until one counts as unanswered.
_PING = 10_000
_PING_TIMEOUT = 5000

_OPTIONS = [
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", _PING),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT),
    ("grpc.http2.max_pings_without_data", 0),
]

_SERVER_OPTIONS = [
    *_OPTIONS,
    # Without it a second server on the port would get every other connection.
    ("grpc.so_reuseport", 0),
    # A server takes a ping each five minutes and then hangs up, unless it is told what to expect.
    ("grpc.http2.min_ping_interval_without_data_ms", _PING // 2),
    ("grpc.keepalive_permit_without_calls", 1),
]

_CHANNEL_OPTIONS = [
    *_OPTIONS,
    # Clusters set http_proxy for the world outside.
    ("grpc.enable_http_proxy", 0),
    # Each attempt of ours is one attempt of gRPC's: it backs off by itself for up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # How long an attempt may take: on a busy machine many handshakes at once take more than a second, and
    # would be begun again and again in vain.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A fresh channel must not inherit the broken connection, or the back-off, of the one before.
    ("grpc.use_local_subchannel_pool", 1),
]

#: Threads of a server: each stream takes one for as long as it lasts, and the health service needs some.
_THREADS = 128

#: Seconds to ask a worker's health before a stream is opened: at first, and at most. Doubled when it was too
#: short: many workers at once, on a busy machine, would otherwise be asked again and again in vain.
_HEALTH_DEADLINE = 5.0
_HEALTH_DEADLINE_MOST = 60.0

_SERVICE = "function_executor.v1.Worker"

#: What the health service of a worker may say of it.
_OURS = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)

#: Why a stream ends that the owner notices and says: nobody is there, or we hung up.
_NO_NEWS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

#: The key of the call's metadata by which a dispatcher names itself.
_NAME_KEY = "dispatcher"


#: Both are generated, without types.
frames_pb2: Any = _messages_code
frames_pb2_grpc: Any = _service_code


class Settings(ServedSettings, frozen=True):
    """Keys of a YAML file for gRPC."""

    workers: Workers = ("127.0.0.1:50051",)
    listen: str = "127.0.0.1:50051"


class GRPC(Served):
    """The wire of the name ``grpc``."""

    Settings = Settings

    @classmethod
    def dialler(cls, addresses: list[Address], identities: Identities, *, say: Say, largest: int) -> Dialler:
        return _Client(identities, say=say, largest=largest)

    @classmethod
    def listener(cls, where: Address, identity: Identity | None, *, say: Say, largest: int) -> ThreadedLink:
        return _Server(where, identity, say=say, largest=largest)


def _messages(outbox: Outbox) -> Iterator[Any]:
    """Return the messages of a stream, until its outbox is closed."""
    while frames := outbox.take(None):
        for some in together(frames):
            yield frames_pb2.Pieces(
                pieces=[
                    frames_pb2.Piece(parts=parts, continues=cont, last=last) for parts, cont, last in some
                ]
            )


def _hear(link: ThreadedLink, peer: bytes, messages: Iterator[Any]) -> None:
    """Take the messages of a stream until it ends.

    Raises:
        BadFrame: the peer is none of ours.
        grpc.RpcError: the stream broke.
    """
    joiner = Joiner(LARGEST_FRAME)
    for message in messages:
        pieces = (Piece(piece.parts, piece.continues, piece.last) for piece in message.pieces)
        if not link.take(peer, joiner, pieces):
            return


class _Client(Dialler):
    """The dispatcher's link."""

    def __init__(self, identities: Identities, *, say: Say, largest: int) -> None:
        addresses = [str(each) for each in identities]
        super().__init__(addresses, say=say, largest=largest)
        self._identities = {str(each): identity for each, identity in identities.items()}
        self._name = secrets.token_hex(8)
        self._calls: dict[bytes, Any] = {}
        self._deadlines = dict.fromkeys(addresses, _HEALTH_DEADLINE)
        self.start()

    def converse(self, address: str, peer: bytes) -> bool:
        outbox, heard = Outbox(), False
        channel = _channel(address, self._identities[address])
        try:
            question = health_pb2.HealthCheckRequest(service=_SERVICE)
            answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=self._deadlines[address])
            self._deadlines[address] = _HEALTH_DEADLINE
            # One that drains says NOT_SERVING, to others: if it is ours, it has results for us.
            if answer.status not in _OURS:
                return False
            stub = frames_pb2_grpc.WorkerStub(channel)
            call = stub.Talk(_messages(outbox), metadata=[(_NAME_KEY, self._name)])
            self._calls[peer] = call
            heard = True
            self.joined(peer, outbox)
            _hear(self, peer, call)
            why = "it hung up"
        except grpc.RpcError as error:
            why = _in_words(error)
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                self._deadlines[address] = min(2 * self._deadlines[address], _HEALTH_DEADLINE_MOST)
            if _names_nobody(error):
                self.remark(unknown_name(address))
            elif _is_refusal(error):
                self.remark(f"{address} doesn't answer as a worker of ours does: {SAME_KEYS}")
            elif error.code() not in _NO_NEWS and not self.closing.is_set():
                self.remark(f"{address}: {why}")
        except BadFrame as bad:
            why = str(bad)
            self.remark(f"{address}: ignored what came: {bad}")
        finally:
            self._calls.pop(peer, None)
            outbox.close()
            channel.close()
        self.left(peer, outbox, why)
        return heard

    def hang_up(self, peer: bytes) -> None:
        call = self._calls.get(peer)
        if call is not None:
            call.cancel()

    def _end(self) -> None:
        # A worker that lives hangs up when we do; one that doesn't is not waited for.
        self._wait(LINGER / 2)
        for call in list(self._calls.values()):
            call.cancel()
        self._wait(LINGER / 2)


class _Server(ThreadedLink, frames_pb2_grpc.WorkerServicer):  # type: ignore[misc] # generated without types
    """A worker's link."""

    def __init__(self, where: Address, identity: Identity | None, *, say: Say, largest: int) -> None:
        super().__init__(str(where), say=say, largest=largest)
        self._guarded = identity is not None
        self._path = SocketPath(where.path)
        self._health = health.HealthServicer()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(self._pool, options=_SERVER_OPTIONS)
        frames_pb2_grpc.add_WorkerServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._health.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        try:
            check_free(where)  # gRPC would say it too, but over several lines of its own
            if identity is None:
                port = self._server.add_insecure_port(str(where))
            else:
                port = self._server.add_secure_port(str(where), _server_credentials(identity))
            if not port:
                raise ConfigError(f"can't listen on {where}")
        except (ConfigError, RuntimeError) as error:
            self.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"can't listen on {where}: {error}") from error
        if not where.path:
            self.address = str(where._replace(port=port))
        self._server.start()

    def Talk(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802 — the service's name for it
        """Serve one dispatcher's stream: this thread sends, another receives."""
        if self._guarded and not _is_dispatcher(context):
            self.remark(f"hung up on a stranger from {context.peer()}: it is no dispatcher")
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "for dispatchers only")
        name = str(dict(context.invocation_metadata()).get(_NAME_KEY, ""))
        if not NAME.fullmatch(name):
            self.remark(f"hung up on a stranger from {context.peer()}: it has no name")
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no {_NAME_KEY} in the metadata")
        outbox = Outbox()
        context.add_callback(outbox.close)
        context.send_initial_metadata(())
        peer = name.encode()
        self.joined(peer, outbox)
        threading.Thread(target=self._read, args=(peer, outbox, messages), daemon=True).start()
        yield from _messages(outbox)

    def _read(self, peer: bytes, outbox: Outbox, messages: Iterator[Any]) -> None:
        why = "it hung up"
        try:
            _hear(self, peer, messages)
        except grpc.RpcError:
            why = "the stream broke"
        except BadFrame as bad:
            why = str(bad)
            self.remark(f"hung up on dispatcher {peer.decode()}: {bad}")
        self.left(peer, outbox, why)

    def drain(self) -> None:
        self._health.enter_graceful_shutdown()

    def _end(self) -> None:
        self._server.stop(LINGER).wait(2 * LINGER)
        self._pool.shutdown(wait=False)
        self._path.close()


def _channel(address: str, identity: Identity | None) -> Any:
    """Return a channel to a worker, who must show that it is one, if we have an identity."""
    if identity is None:
        return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
    from executor.certificates import name_of

    shown = identity.shown()
    credentials = grpc.ssl_channel_credentials(identity.authority, shown.key, shown.certificate)
    name = ("grpc.ssl_target_name_override", name_of("worker"))
    return grpc.secure_channel(address, credentials, options=[*_CHANNEL_OPTIONS, name])


def _server_credentials(identity: Identity) -> Any:
    """Return what a server shows and asks for, renewed in time."""

    def present() -> Any:
        shown = identity.shown()
        return grpc.ssl_server_certificate_configuration(
            [(shown.key, shown.certificate)], root_certificates=identity.authority
        )

    return grpc.dynamic_ssl_server_credentials(present(), present, require_client_authentication=True)


def _is_dispatcher(context: Any) -> bool:
    """Whether the certificate of the other end, which gRPC has verified, is a dispatcher's."""
    from executor.certificates import name_of

    names = context.auth_context().get("x509_subject_alternative_name", ())
    return name_of("dispatcher").encode() in names


def _is_refusal(error: grpc.RpcError) -> bool:
    """Whether somebody was there, and one end did not take the other for one of ours."""
    details = str(error.details()).lower()
    return error.code() == grpc.StatusCode.PERMISSION_DENIED or (
        error.code() == grpc.StatusCode.UNAVAILABLE
        and any(word in details for word in ("handshak", "certificate", "ssl", "tls", "socket closed"))
    )


def _names_nobody(error: grpc.RpcError) -> bool:
    """Whether the address has a name that leads nowhere."""
    details = str(error.details()).lower()
    return "errors resolving" in details or "dns resolution failed" in details


def _in_words(error: grpc.RpcError) -> str:
    """Say what a call ended with."""
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"
