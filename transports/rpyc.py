"""RPyC: each side offers the other one method that takes pieces of frames, and nothing else.

The worker listens, the dispatcher connects. All calls are asynchronous and return at once, so none lasts
as long as a task, and each connection belongs to one thread: shared ones deadlock. Of RPyC's protocol
only what this needs is answered: no attributes, no pickle, no objects but the one with the method.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any

from rpyc.core import consts
from rpyc.core.channel import Channel
from rpyc.core.protocol import Connection
from rpyc.core.stream import SocketStream
from rpyc.lib import Timeout

from executor.bounds import LARGEST_FRAME
from executor.errors import BadFrame
from transports.base import Say
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
    listening_socket,
)
from transports.threads import LINGER, Dialler, Outbox, ThreadedLink

if TYPE_CHECKING:
    from executor.certificates import Context, Identity

#: Seconds for the few calls that are waited for, all of them before the first frame.
_SYNC_TIMEOUT = 5.0

#: Bytes of the longest packet: a piece, and what RPyC packs around it.
_PACKET_BYTES = 2 * PIECE_BYTES

#: Bytes read at one go.
_CHUNK = 1 << 18

#: Bytes read while nothing can be written: our other ends read between any two packets.
_READ_AHEAD_MOST = 16 * _PACKET_BYTES

#: Seconds that the other side gets to hang up, too.
_PARTING = 0.3

#: Seconds between two looks of the listening thread whether it is to end.
_ACCEPTING = 0.2

#: Connections that a worker has at once: dispatchers are few, and strangers are not to use up its threads.
_CONNECTIONS_MOST = 256

_CONFIG = {
    "allow_safe_attrs": False,
    "allow_exposed_attrs": True,
    "allow_public_attrs": False,
    "allow_all_attrs": False,
    "allow_setattr": False,
    "allow_delattr": False,
    "allow_pickle": False,
    "include_local_traceback": False,
    "include_local_version": False,
    "import_custom_exceptions": False,
    "instantiate_custom_exceptions": False,
    "propagate_KeyboardInterrupt_locally": False,
    "bind_threads": False,
    "sync_request_timeout": _SYNC_TIMEOUT,
}

_ANSWERED = (
    consts.HANDLE_GETROOT,
    consts.HANDLE_INSPECT,
    consts.HANDLE_CALLATTR,
    consts.HANDLE_DEL,
    consts.HANDLE_CLOSE,
)


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


class _Stream(SocketStream):  # type: ignore[misc] # RPyC has no types
    """A socket that goes on reading while it can't write: else two sides that both send wait for ever."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._read_ahead = bytearray()
        self._chunk = memoryview(bytearray(_CHUNK))

    def poll(self, timeout: Any) -> bool:
        # To read costs no more than to ask whether one can, which RPyC does before each packet.
        if self._read_ahead or self._receive():
            return True
        return not Timeout(timeout).expired() and bool(super().poll(timeout))

    def read(self, count: int) -> bytes:
        while len(self._read_ahead) < count:
            if not self._receive():
                self._wait(select.POLLIN)
        data = bytes(memoryview(self._read_ahead)[:count])
        del self._read_ahead[:count]
        return data

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if self._wait(select.POLLIN | select.POLLOUT) & select.POLLIN:
                    self._receive()
                    if len(self._read_ahead) > _READ_AHEAD_MOST:
                        raise BadFrame("it sends and takes nothing") from None

    def _wait(self, events: int) -> int:
        poll = select.poll()
        poll.register(self.sock, events)
        return poll.poll()[0][1]

    def _receive(self) -> bool:
        """Read what has come; return whether anything has."""
        came = False
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            while True:
                count = self.sock.recv_into(self._chunk)
                if not count:
                    raise EOFError("it hung up")
                self._read_ahead += self._chunk[:count]
                came = True
                # What TLS has decrypted already, no descriptor shows.
                if not (isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()):
                    break
        return came


class _Channel(Channel):  # type: ignore[misc]
    """Packets of bounded size, not compressed: arrays don't shrink, and a bomb would grow."""

    def recv(self) -> bytes:
        length, compressed = self.FRAME_HEADER.unpack(self.stream.read(self.FRAME_HEADER.size))
        if compressed or length > _PACKET_BYTES:
            raise BadFrame("a packet that is none of ours")
        data: bytes = self.stream.read(length)
        self.stream.read(len(self.FLUSHER))
        return data


def _by_value(package: Any) -> bool:
    """Whether a request refers to no object of the other side, of which each use would be a call to it."""
    label, value = package
    if label == consts.LABEL_TUPLE:
        return all(map(_by_value, value))
    return label in (consts.LABEL_VALUE, consts.LABEL_LOCAL_REF)


class _Connection(Connection):  # type: ignore[misc]
    """RPyC's protocol, reduced."""

    def _dispatch_request(self, seq: Any, raw_args: Any) -> None:
        if not _by_value(raw_args[1]):
            raise BadFrame("it sends objects")
        super()._dispatch_request(seq, raw_args)

    @classmethod
    def _request_handlers(cls) -> dict[int, Any]:
        known = super()._request_handlers()
        return {number: known[number] for number in _ANSWERED}


def _is_piece(piece: Any) -> bool:
    """Whether that is a piece of a frame by its types."""
    if type(piece) is not tuple or list(map(type, piece)) != [tuple, bool, bool]:
        return False
    return all(type(part) is bytes for part in piece[0])


class _Talk:
    """One connection, and what it offers to the other side: `introduce` and `pieces`."""

    def __init__(self, link: ThreadedLink, sock: socket.socket, peer: bytes | None) -> None:
        self.peer = peer  # None until a dispatcher introduced itself
        self.met = False
        self._link = link
        self._sock = sock
        self._joiner = Joiner(LARGEST_FRAME)
        self._bad: Exception | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_write.setblocking(False)
        self._outbox = Outbox(self._wake)
        self._connection = _Connection(self, _Channel(_Stream(sock), compress=False), _CONFIG)

    def exposed_introduce(self, name: object) -> None:
        """Take a dispatcher's name."""
        if self.peer is not None or type(name) is not str or not NAME.fullmatch(name):
            self._bad = BadFrame("it has no name")
            return
        self.peer = name.encode()
        self._meet(self.peer)

    def exposed_pieces(self, pieces: Any) -> None:
        """Take pieces of frames, all that waited to be sent: a call costs much more than a piece."""
        if self.peer is None or type(pieces) is not tuple or not all(map(_is_piece, pieces)):
            self._bad = BadFrame("it doesn't send frames")
            return
        try:
            self._link.take(self.peer, self._joiner, (Piece(*piece) for piece in pieces))
        except BadFrame as bad:
            self._bad = bad

    def on_disconnect(self, connection: object) -> None:
        """RPyC calls this; `run` notices by itself."""

    def run(self, name: str | None) -> str:
        """Move frames until the connection ends; return why it did. `name` is a dispatcher's for itself."""
        try:
            root = self._connection.root
            if name is not None and self.peer is not None:
                self._call(root, "introduce", name)
                self._meet(self.peer)
            self._move(root)
            return "it hung up"
        except (EOFError, OSError, BadFrame) as error:
            return str(error) or "it hung up"
        except Exception as error:  # a stranger's bytes make RPyC raise all kinds of things
            return f"{type(error).__name__}: {error}"
        finally:
            if self.peer is not None:
                self._link.left(self.peer, self._outbox, "it hung up")
            self._part()
            with contextlib.suppress(Exception):  # likewise
                self._connection.close()
            self._sock.close()  # whatever RPyC has made of it
            self._wake_read.close()
            self._wake_write.close()

    def end(self) -> None:
        """Hang up, from whichever thread."""
        with contextlib.suppress(OSError):
            # Not as TLS does it: the thread that reads would then take what is encrypted for plain.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def _meet(self, peer: bytes) -> None:
        self.met = True
        self._link.joined(peer, self._outbox)

    def _part(self) -> None:
        """Let the other side read all that was sent: closed with something unread, a socket forgets it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(_PARTING)
            deadline = time.monotonic() + _PARTING
            while self._sock.recv(_CHUNK) and time.monotonic() < deadline:
                pass

    def _call(self, root: Any, method: str, *arguments: Any) -> None:
        self._connection.async_request(consts.HANDLE_CALLATTR, root, method, arguments)

    def _move(self, root: Any) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        silent_until = time.monotonic() + _SYNC_TIMEOUT
        while self._link.wait_for_room():
            while frames := self._outbox.take(0):
                for some in together(frames):
                    self._call(root, "pieces", tuple((tuple(parts), *rest) for parts, *rest in some))
                    self._serve_some()
            if self._bad is not None:
                raise self._bad
            if self._outbox.closed:
                return
            if self.peer is None and time.monotonic() > silent_until:
                raise BadFrame("it has no name")
            if not self._connection.serve(0):
                for descriptor, _ in poll.poll(None if self.peer is not None else 1000 * _SYNC_TIMEOUT):
                    if descriptor == self._wake_read.fileno():
                        self._wake_read.recv(4096)

    def _serve_some(self) -> None:
        """Take what came while we wrote: an answer to each packet of ours, and the other side's own."""
        for _ in range(4):
            if self._bad is not None or not self._connection.serve(0):
                break

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full, so it wakes; or closed, so there is nobody to wake
            self._wake_write.send(b"\0")


class _Client(Dialler):
    """The dispatcher's link."""

    def __init__(self, identities: Identities, *, say: Say, largest: int) -> None:
        super().__init__([str(each) for each in identities], say=say, largest=largest)
        self._where = {str(each): each for each in identities}
        self._contexts = {str(each): _context(own, server=False) for each, own in identities.items()}
        self._name = secrets.token_hex(8)
        self._talks: dict[bytes, _Talk] = {}
        self.start()

    def converse(self, address: str, peer: bytes) -> bool:
        try:
            sock = _connect(self._where[address])
        except OSError:  # nobody there, yet or any more, which the owner notices and says
            return False
        if (context := self._contexts[address]) is not None:
            try:
                sock = _secured(sock, context, server=False)
            except OSError as error:
                sock.close()
                self.remark(
                    f"{address} doesn't answer as a worker of ours does: {_in_words(error)}; {SAME_KEYS}"
                )
                return False
        talk = _Talk(self, sock, peer)
        self._talks[peer] = talk
        if self.closing.is_set():  # decided meanwhile, by one who did not see the talk
            talk.end()
        why = talk.run(self._name)
        del self._talks[peer]
        if not talk.met and not self.closing.is_set():
            self.remark(f"{address} doesn't answer as a worker does: {why}")
        return talk.met

    def _end(self) -> None:
        self._wait(LINGER / 2)
        for talk in list(self._talks.values()):
            talk.end()
        self._wait(LINGER / 2)


class _Server(ThreadedLink):
    """A worker's link."""

    def __init__(self, where: Address, identity: Identity | None, *, say: Say, largest: int) -> None:
        super().__init__(str(where), say=say, largest=largest)
        self._context = _context(identity, server=True)
        self._path = SocketPath(where.path)
        self._listening = listening_socket(where)
        if not where.path:
            self.address = str(where._replace(port=self._listening.getsockname()[1]))
        self._listening.settimeout(_ACCEPTING)
        self._talks: set[_Talk] = set()
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
                sock = _secured(sock, self._context, server=True)
            except OSError as error:
                sock.close()
                return False, _in_words(error)
        talk = _Talk(self, sock, None)
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
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread, where the system knows that
        self._acceptor.join(LINGER)
        self._listening.close()
        self._path.close()


def _context(identity: Identity | None, *, server: bool) -> Context | None:
    """Return the TLS settings of an end; None: it goes without."""
    if identity is None:
        return None
    from executor.certificates import Context

    return Context(identity, server=server)


class _Secured(ssl.SSLSocket):
    """A socket that is connected, or none.

    Of one whose other end has hung up already, `ssl` makes a socket that speaks no TLS, or drops it unclosed.
    """

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError("it hung up") from error


def _secured(sock: socket.socket, context: Context, *, server: bool) -> ssl.SSLSocket:
    """Speak TLS on a connection from now on.

    Raises:
        OSError: the other end doesn't, or it is no worker, or to a server no dispatcher.
    """
    from executor.certificates import is_role, name_of

    sock.settimeout(_SYNC_TIMEOUT)
    settings = context.current()
    settings.sslsocket_class = _Secured
    if server:
        secured = settings.wrap_socket(sock, server_side=True)
    else:
        secured = settings.wrap_socket(sock, server_hostname=name_of("worker"))
    if server and not is_role(secured, "dispatcher"):
        secured.close()
        raise ssl.SSLError("it is no dispatcher")
    return secured


def _in_words(error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason else str(error)


def _connect(where: Address) -> socket.socket:
    """Return a socket that is connected.

    Raises:
        OSError: nobody listens there.
    """
    if not where.path:
        return socket.create_connection((where.host, where.port), timeout=_SYNC_TIMEOUT)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_SYNC_TIMEOUT)
        sock.connect(where.path)
    except OSError:
        sock.close()
        raise
    return sock
