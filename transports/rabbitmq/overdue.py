"""Answers that a broker owes us, and whether it has for too long. Pure.

Looks are counted, one a second, and not seconds, lest a machine that slept blames the broker.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping

#: Looks at which the broker may leave a question unanswered (a `get`, a declaration), or confirm nothing
#: while publications wait for it; then the connection is made anew. A queue whose leader is being elected may
#: lose either for good.
_ANSWERING = 5
_CONFIRMING = 15


class Kind(enum.Enum):
    """What is waited for."""

    GET = enum.auto()
    QUESTION = enum.auto()
    CONFIRMATION = enum.auto()


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
                if self._missed[kind] > (_CONFIRMING if kind is Kind.CONFIRMATION else _ANSWERING):
                    self._missed.clear()
                    return True
        return False
