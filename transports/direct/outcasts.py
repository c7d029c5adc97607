"""Whom an end does not listen to any more, and of what it has complained already. Pure."""

from __future__ import annotations

from executor.bounds import MOST_PEERS
from executor.errors import BadFrame
from transports.base import Say


class Outcasts:
    """Those that broke the protocol; of everything only so much is remembered, whoever comes.

    `most` bounds both how many are kept out and of how many it is complained.
    """

    def __init__(self, say: Say, most: int = MOST_PEERS) -> None:
        self._say = say
        self._most = most
        self._out: dict[bytes | str, None] = {}  # in order: the first is forgotten first
        self._said: set[bytes | str] = set()

    def __contains__(self, who: bytes | str) -> bool:
        return who in self._out

    def add(self, who: bytes | str) -> None:
        """Listen no more to a peer of the link, or to a worker's instance."""
        self._out[who] = None
        if len(self._out) > self._most:
            del self._out[next(iter(self._out))]

    def discard(self, who: bytes | str) -> None:
        """Listen to it again: what comes now is said by another, or over another connection."""
        self._out.pop(who, None)

    def complain(self, who: bytes | str, text: str) -> None:
        """Say a line about somebody, unless one was said before."""
        if who not in self._said and len(self._said) < self._most:
            self._said.add(who)
            self._say(text)


def broken(bad: BadFrame) -> str:
    """Return why somebody was cut off."""
    return f"it broke the protocol: {bad}"
