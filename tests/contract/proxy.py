"""A TCP proxy to cut, stall and slow links with."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.contract.wires import free_addresses


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


#: The two directions of a link: from who connected, and back.
THERE, BACK = 0, 1


class Proxy:
    """Passes on what comes to `address` to `target` and back, unless it is cut or stalled.

    `latency` is how many seconds later than it came all is passed on. With `records`, `recorded` holds what
    each connection sent there, one after the other.
    """

    def __init__(self, target: str, *, records: bool = False) -> None:
        self.recorded: list[bytearray] = []
        self._records = records
        self.address = free_addresses(1)[0]
        self._target = target
        self.latency = 0.0
        self._flows = (threading.Event(), threading.Event())
        for flows in self._flows:
            flows.set()
        self._whole = True
        self._closed = False
        self._lost: set[socket.socket] = set()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        host, _, port = self.address.rpartition(":")
        self._listening = socket.create_server((host, int(port)))
        self._listening.settimeout(0.1)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break all connections, and every new one at once."""
        self._whole = False
        for sock in list(self._sockets):
            self._break(sock)

    def stall(self, *directions: int) -> None:
        """Let nothing through any more, in one direction or both, and tell nobody."""
        for direction in directions or (THERE, BACK):
            self._flows[direction].clear()

    def lose(self) -> None:
        """Let the present connections lead nowhere, for good, and tell neither end; new ones work."""
        self._lost |= self._sockets

    def heal(self) -> None:
        """Pass on what comes, without delay, and what was held up."""
        self._whole = True
        self.latency = 0.0
        for flows in self._flows:
            flows.set()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.heal()  # what is held up ends nowhere
        self.cut()
        self._thread.join()
        self.cut()  # also what was accepted last
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _break(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            try:
                far = connect(self._target) if self._whole else None
            except OSError:
                far = None
            if far is None:
                near.close()
                time.sleep(0.01)
                continue
            for sock in (near, far):
                sock.settimeout(None)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as those have that it stands for
                self._sockets.add(sock)
            self._threads.append(threading.Thread(target=self._pass_on, args=(near, far), daemon=True))
            self._threads[-1].start()
            if not self._whole:  # cut meanwhile
                self._break(near)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._pump, args=(far, near, BACK), daemon=True)
        back.start()
        self._pump(near, far, THERE)
        back.join()
        for sock in (near, far):
            self._sockets.discard(sock)
            sock.close()

    def _pump(self, one: socket.socket, other: socket.socket, direction: int) -> None:
        record = bytearray()
        if self._records and direction == THERE:
            self.recorded.append(record)
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if self._records:
                    record += data
                if self.latency:
                    time.sleep(self.latency)
                self._flows[direction].wait()
                if one not in self._lost:
                    other.sendall(data)
        while one in self._lost and not self._closed:
            time.sleep(0.05)
        self._break(one)
        self._break(other)
