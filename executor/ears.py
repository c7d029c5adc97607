"""What a worker listens with: one wait for all descriptors that may have something to tell."""

from __future__ import annotations

import select

#: What is told of a descriptor: it can be read, it can be written to. Anything else shows when it is read.
READABLE, WRITABLE = select.POLLIN, select.POLLOUT

#: Descriptors that are told of at once; more of them wait for the next time.
_AT_ONCE = 256


class Ears:
    """Descriptors that are listened to, as long as they are open.

    The standard library's selectors do the same with more code, which counts: a worker that wakes up on a
    core that computes finds none of its own in the caches.
    """

    def __init__(self) -> None:
        # For a worker of many cores `epoll`, whose wait takes no longer with many descriptors.
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._poll = select.poll() if self._epoll is None else self._epoll

    def add(self, descriptor: int) -> None:
        """Listen to a descriptor, for what can be read."""
        self._poll.register(descriptor, READABLE)

    def change(self, descriptor: int, *, writable: bool) -> None:
        """Listen to whether it can be `writable`, too, or no more."""
        self._poll.modify(descriptor, READABLE | WRITABLE if writable else READABLE)

    def remove(self, descriptor: int) -> None:
        """Listen no more to a descriptor, before it is closed."""
        self._poll.unregister(descriptor)

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Wait for something to be told, at most so long (None: no limit).

        Return the descriptors that have, each with a sum of `READABLE`, `WRITABLE` and others.
        """
        if self._epoll is not None:
            return self._epoll.poll(seconds, _AT_ONCE)
        return self._poll.poll(None if seconds is None else seconds * 1000)

    def close(self) -> None:
        """Let go of what it takes."""
        if self._epoll is not None:
            self._epoll.close()
