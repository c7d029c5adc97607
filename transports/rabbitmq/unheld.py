"""The calls of a run that have no report, and that no worker has as far as these have said. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from transports.rabbitmq.presence import Open, Places, Presence


class Unheld:
    """Of the calls that are `open`, those that are not among the `places` of what workers present have."""

    def __init__(self, open_: Open, presence: Presence, places: Places) -> None:
        self._open = open_
        self._presence = presence
        self._places = places

    def counts(self) -> dict[int, int]:
        """Return how many there are, by width."""
        held = Counter(self._open.widths[p] for p in self._presence.held(self._places) if p in self._open)
        left = {width: count - held[width] for width, count in sorted(self._open.counts.items())}
        return {width: count for width, count in left.items() if count > 0}

    def by_width(self, widths: Collection[int]) -> dict[int, list[int]]:
        """Return the places of those of some widths, by width."""
        held = self._presence.held(self._places)
        found: dict[int, list[int]] = {width: [] for width in widths}
        for place in self._open:
            if (width := self._open.widths[place]) in found and place not in held:
                found[width].append(place)
        return found

    def withdraw(self, width: int | None) -> list[int]:
        """Close those of a width, or all; return their places."""
        held = self._presence.held(self._places)
        found = [
            place for place in self._open if width in (None, self._open.widths[place]) and place not in held
        ]
        for place in found:  # a worker that finds one later finds that its run is over
            self._open.close(place)
        return found
