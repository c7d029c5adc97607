"""Answers that a broker owes us, and whether it has for too long. Pure.

Looks are counted, one a second, and not seconds, lest a machine that slept blames the broker.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping


class Kind(enum.Enum):
    """What is waited for."""

    GET = enum.auto()
    QUESTION = enum.auto()
    #: Whether a queue exists.
    EXISTENCE = enum.auto()
    CONFIRMATION = enum.auto()
    #: The channels of a connection that stands, or that one ends.
    HANDSHAKE = enum.auto()


#: Looks at which the broker may leave a question unanswered, or confirm nothing while publications wait for
#: it; then the connection is made anew. A queue whose leader is being elected may lose any of it for good.
LOOKS = {Kind.GET: 5, Kind.QUESTION: 5, Kind.EXISTENCE: 5, Kind.CONFIRMATION: 15, Kind.HANDSHAKE: 15}


class Overdue:
    """Counts the looks at which the same answer was missing."""

    def __init__(self) -> None:
        self._missed = Counter[Kind]()

    def heard(self, kind: Kind) -> None:
        """An answer of that kind came."""
        del self._missed[kind]

    def clear(self) -> None:
        """Nothing is owed."""
        self._missed.clear()

    def look(self, waits: Mapping[Kind, bool]) -> bool:
        """Look which answers are waited for; return whether one of them was for too long."""
        for kind, missing in waits.items():
            if missing:
                self._missed[kind] += 1
                if self._missed[kind] > LOOKS[kind]:
                    self._missed.clear()
                    return True
        return False
