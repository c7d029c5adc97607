"""What a wire without a broker implements: a `Link`, which moves frames and says who came and went.

A link belongs to the thread that made it. One whose library needs threads of its own keeps them inside and
wakes its owner through `fileno()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import msgspec

from executor.bounds import LARGEST
from executor.messages import Parts
from transports.base import wait_readable


class Came(msgspec.Struct, frozen=True):
    """A peer is there."""

    peer: bytes


class Gone(msgspec.Struct, frozen=True):
    """A peer is there no more, and why."""

    peer: bytes
    why: str


class Frame(msgspec.Struct, frozen=True):
    """A frame from a peer; the first frame of a new peer also says that it came."""

    peer: bytes
    parts: Parts


class Sign(msgspec.Struct, frozen=True):
    """A peer is alive: a part of a long frame has come."""

    peer: bytes


Event: TypeAlias = Came | Gone | Frame | Sign


class Link(ABC):
    """Moves frames between one process and its peers; knows nothing of what is in them.

    To a dispatcher a worker may be another peer over each connection, for it greets. To a worker a dispatcher
    should stay the same: then what the worker has goes on, and is not handed out anew.
    """

    #: Where peers find it, or where it looks for them.
    address: str
    #: Bytes of the largest call or result that it is given to send.
    largest: int = LARGEST

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `receive` may have something.

        It may be edge-triggered: wait on it only after `ready` said no.
        """

    @abstractmethod
    def ready(self) -> bool:
        """Return whether `receive` would give something now; what came a moment ago `fileno` may tell."""

    @abstractmethod
    def receive(self) -> list[Event]:
        """Return what has arrived, without waiting; [] if nothing has."""

    def wait(self, seconds: float) -> None:
        """Wait until `receive` would give something, at most so long; it may return sooner."""
        if not self.ready():
            wait_readable(self.fileno(), seconds)

    def patience(self) -> float | None:
        """Return after how many seconds `receive` should be called even if `fileno` shows nothing."""
        return None

    @abstractmethod
    def send(self, peer: bytes, parts: Parts) -> bool:
        """Send a frame, without waiting; return False if the peer can't be reached (now, or any more)."""

    def cut(self, peer: bytes) -> None:  # noqa: B027 — for links that have a connection to each peer
        """Close the connection to a peer, though it may be stuck; nothing is taken from it any more.

        The peer broke the protocol, or is silent for too long: perhaps only another connection reaches it.
        """

    def renew(self, peer: bytes) -> None:  # noqa: B027 — for links of workers that connect
        """Connect anew to a peer that is silent for too long, if that is this end's to do."""

    def drain(self) -> None:  # noqa: B027 — for links that tell somebody, such as a health service
        """The owner takes nothing more: let those know who ask."""

    @abstractmethod
    def close(self) -> None:
        """Send what is under way, within a bound, and let go of everything. Closing twice is harmless."""
