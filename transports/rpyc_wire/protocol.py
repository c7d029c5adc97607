"""RPyC's protocol, reduced: what anybody who can connect may ask of it, and in what packets.

No attributes, no pickle, no objects but the one that is offered, of which only `exposed_` methods can be
called; no compression. What these methods take is in `transports.rpyc_wire.talk`.
"""

from __future__ import annotations

import socket
from typing import Any

from rpyc.core import channel, consts, protocol

from executor.errors import BadFrame
from transports.rpyc_wire.stream import PACKET_BYTES, Stream

#: Seconds for the few calls that are waited for, all of them before the first frame.
SYNC_TIMEOUT = 5.0

#: Nothing but `exposed_` methods, and nothing of ours to the other side with an error.
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
    "sync_request_timeout": SYNC_TIMEOUT,
}

#: The requests that are answered. Any other is an error to who asks.
_ANSWERED = (
    consts.HANDLE_GETROOT,
    consts.HANDLE_INSPECT,
    consts.HANDLE_CALLATTR,
    consts.HANDLE_DEL,
    consts.HANDLE_CLOSE,
)


def connection(offered: object, sock: socket.socket) -> Connection:
    """Return a connection over a socket that offers this one object."""
    return Connection(offered, Channel(Stream(sock), compress=False), _CONFIG)


class Channel(channel.Channel):  # type: ignore[misc]
    """Packets of bounded size, not compressed: arrays don't shrink, and a bomb would grow."""

    def recv(self) -> bytes:
        """Return the next packet.

        Raises:
            BadFrame: it is too long, or compressed.
        """
        length, compressed = self.FRAME_HEADER.unpack(self.stream.read(self.FRAME_HEADER.size))
        if compressed or length > PACKET_BYTES:
            raise BadFrame("a packet that is none of ours")
        data: bytes = self.stream.read(length)
        self.stream.read(len(self.FLUSHER))
        return data


class Connection(protocol.Connection):  # type: ignore[misc]
    """Answers few requests, and none with objects of the other side in it."""

    def _dispatch_request(self, seq: Any, raw_args: Any) -> None:
        if not _by_value(raw_args[1]):
            raise BadFrame("it sends objects")
        super()._dispatch_request(seq, raw_args)

    @classmethod
    def _request_handlers(cls) -> dict[int, Any]:
        known = super()._request_handlers()
        return {number: known[number] for number in _ANSWERED}


def _by_value(package: Any) -> bool:
    """Whether a request refers to no object of the other side, of which each use would be a call to it."""
    label, value = package
    if label == consts.LABEL_TUPLE:
        return all(map(_by_value, value))
    return label in (consts.LABEL_VALUE, consts.LABEL_LOCAL_REF)
