"""One connection of the RPyC wire, and what it offers to the other side."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any

from rpyc.core import consts

from executor.bounds import LARGEST_FRAME
from executor.errors import BadFrame
from transports.pieces import Joiner, Piece, together
from transports.rpyc_wire import protocol
from transports.rpyc_wire.protocol import SYNC_TIMEOUT
from transports.served import NAME
from transports.threads import Outbox, ThreadedLink

#: Seconds that the other side gets to hang up, too.
_PARTING = 0.3

#: Bytes read at one go of what is still on its way then.
_CHUNK = 1 << 18


class Talk:
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
        self._connection = protocol.connection(self, sock)

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
        with contextlib.suppress(OSError):  # the other side hung up first
            # Not as TLS does it: the thread that reads would then take what is encrypted for plain.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def _meet(self, peer: bytes) -> None:
        self.met = True
        self._link.joined(peer, self._outbox)

    def _part(self) -> None:
        """Let the other side read all that was sent: closed with something unread, a socket forgets it."""
        with contextlib.suppress(OSError):  # it reads no more, so that nothing is lost
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
        silent_until = time.monotonic() + SYNC_TIMEOUT
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
                for descriptor, _ in poll.poll(None if self.peer is not None else 1000 * SYNC_TIMEOUT):
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


def _is_piece(piece: Any) -> bool:
    """Whether that is a piece of a frame by its types."""
    if type(piece) is not tuple or list(map(type, piece)) != [tuple, bool, bool]:
        return False
    return all(type(part) is bytes for part in piece[0])
