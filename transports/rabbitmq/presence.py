"""Which workers there are, as they announce themselves, and which calls of a run have no report yet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from executor.messages import Hello, Holding
from transports.base import Standing, WorkerView, still_running

#: Returns the places of a run's calls among all that a worker has.
Places: TypeAlias = Callable[[Holding], Iterable[int]]


class Open:
    """The calls of a run without a report; `widths` are the cores of each, by place."""

    def __init__(self, widths: Sequence[int]) -> None:
        self.widths = widths
        self._reported = bytearray(len(widths))
        #: How many there are, by width.
        self.counts = Counter(widths)

    def __contains__(self, place: int) -> bool:
        return 0 <= place < len(self._reported) and not self._reported[place]

    def has_all(self, first: int, end: int) -> bool:
        """Whether all calls from `first` on and before `end` are among them."""
        return not any(self._reported[first:end])

    def __iter__(self) -> Iterator[int]:
        """Yield their places; those that were reported cost next to nothing."""
        place = self._reported.find(0)
        while place >= 0:
            yield place
            place = self._reported.find(0, place + 1)

    def close(self, place: int) -> None:
        """A call was reported, or will not be."""
        if place in self:
            self._reported[place] = 1
            self.counts[self.widths[place]] -= 1

    def close_all(self, places: Iterable[int]) -> list[int]:
        """Calls were reported; return the widths of those that were open."""
        reported, last = self._reported, len(self._reported)
        found = {place for place in places if 0 <= place < last and not reported[place]}
        for place in found:
            reported[place] = 1
        widths = Counter([self.widths[place] for place in found])
        self.counts.subtract(widths)
        return list(widths)

    def reopen(self, place: int) -> None:
        """A call is tried again."""
        if place not in self:
            self._reported[place] = 0
            self.counts[self.widths[place]] += 1

    def running(self, places: Sequence[int], cores: int) -> int:
        """Return how many of these a worker of so many cores can have begun, as it starts them in order."""
        begun = 0
        for place in sorted(places):
            cores -= self.widths[place]
            if cores < 0:
                break
            begun += 1
        return begun


class _Peer:
    __slots__ = ("answered", "heard_at", "hello", "told_at")

    def __init__(self, hello: Hello, now: float, *, answered: bool) -> None:
        self.hello = hello
        self.heard_at = now
        self.told_at = now  # ... of what it runs, whatever is forgiven
        self.answered = answered  # that it was told that the run is stopped, if it is


class Presence:
    """Workers, by instance; `now` is the owner's clock, in seconds."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._stopped: str | None = None  # the run, once it is stopped

    def meet(self, hello: Hello, now: float) -> None:
        """A worker announced itself, or that it leaves."""
        if hello.leaving and not hello.holding:
            self._peers.pop(hello.instance, None)
            return
        answered = self._stopped is None or self._stopped in hello.stopped
        peer = self._peers.get(hello.instance)
        if peer is None:
            self._peers[hello.instance] = _Peer(hello, now, answered=answered)
        else:
            peer.hello, peer.heard_at, peer.told_at = hello, now, now
            peer.answered = peer.answered or answered

    def stop(self, run: str) -> None:
        """The run is stopped: a worker has something of it until it was told and says that it has not.

        What it says meanwhile may be older than what it was given.
        """
        self._stopped = run
        for peer in self._peers.values():
            peer.answered = False

    @property
    def answered(self) -> bool:
        """Whether all that are here were told that the run is stopped, if it is."""
        return all(peer.answered for peer in self._peers.values())

    def forgive(self, now: float) -> None:
        """We were not there to hear them."""
        for peer in self._peers.values():
            peer.heard_at = now

    def silent(self, now: float, patience: float) -> list[tuple[Hello, float]]:
        """Take out the workers that were silent for longer than that; return them, and for how long."""
        found = [(peer.hello, now - peer.heard_at) for peer in self._peers.values()]
        return [self._take(hello, seconds) for hello, seconds in found if seconds > patience]

    def died(self, host: str, pid: int) -> list[Hello]:
        """Take out the workers of a process; return them."""
        found = [peer.hello for peer in self._peers.values()]
        return [self._take(hello, 0)[0] for hello in found if (hello.host, hello.pid) == (host, pid)]

    def held(self, places: Places) -> set[int]:
        """Return the places of a run's calls that workers have."""
        return {place for peer in self._peers.values() for place in places(peer.hello.holding)}

    def views(
        self, places_in: Places, calls: Open, standing: Standing | None, now: float
    ) -> list[WorkerView]:
        """Return the workers that can be given calls, or have some of a run."""
        views = []
        for peer in self._peers.values():
            hello = peer.hello
            places = [place for place in places_in(hello.holding) if place in calls]
            held = len(places) if peer.answered else max(1, len(places))
            if held or not hello.leaving:
                running = calls.running(places, hello.cores)
                views.append(
                    WorkerView(
                        hello.name,
                        hello.host,
                        hello.cores,
                        hello.pid,
                        held,
                        running,
                        hello.instance,
                        still_running(standing, hello.running, now - peer.told_at),
                    )
                )
        return views

    def _take(self, hello: Hello, seconds: float) -> tuple[Hello, float]:
        del self._peers[hello.instance]
        return hello, seconds
