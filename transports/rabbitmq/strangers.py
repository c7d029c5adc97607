"""Messages in our queues that are none of ours: passed over, and said once for each queue."""

from __future__ import annotations

from executor.errors import BadFrame
from transports.base import Say


class Strangers:
    """Knows of which queues it was said."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._queues: set[str] = set()

    def ignore(self, queue: str, bad: BadFrame) -> None:
        """Say of a message in a queue why it is ignored, if it is the first one there."""
        if queue not in self._queues:
            self._queues.add(queue)
            self._say(f"ignored a stranger's message in {queue}: {bad}")
