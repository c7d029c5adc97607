"""RPyC's stream over a socket, plain or TLS, that reads while it can't write."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from typing import Any

from rpyc.core.stream import SocketStream
from rpyc.lib import Timeout

from executor.errors import BadFrame
from transports.pieces import PIECE_BYTES

#: Bytes of the longest packet: a piece, and what RPyC packs around it.
PACKET_BYTES = 2 * PIECE_BYTES

#: Bytes read at one go.
_CHUNK = 1 << 18

#: Bytes read while nothing can be written: our other ends read between any two packets.
_READ_AHEAD_MOST = 16 * PACKET_BYTES


class Stream(SocketStream):  # type: ignore[misc] # RPyC has no types
    """A socket that goes on reading while it can't write: else two sides that both send wait for ever."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._read_ahead = bytearray()
        self._chunk = memoryview(bytearray(_CHUNK))

    def poll(self, timeout: Any) -> bool:
        """Return whether there is something to read, now or within the timeout."""
        # To read costs no more than to ask whether one can, which RPyC does before each packet.
        if self._read_ahead or self._receive():
            return True
        return not Timeout(timeout).expired() and bool(super().poll(timeout))

    def read(self, count: int) -> bytes:
        """Return so many bytes, once they are there."""
        while len(self._read_ahead) < count:
            if not self._receive():
                self._wait(select.POLLIN)
        data = bytes(memoryview(self._read_ahead)[:count])
        del self._read_ahead[:count]
        return data

    def write(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            BadFrame: the other side sends and takes nothing.
        """
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
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):  # no more has come
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
