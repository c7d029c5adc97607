"""Which deliveries of a channel are neither acknowledged nor rejected, and how few words do that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Unsettled:
    """Deliveries of one channel, by their delivery tags, which grow."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}  # in order

    def came(self, number: int) -> None:
        """A delivery came that is to be settled."""
        self._numbers[number] = None

    def rejected(self, number: int) -> None:
        """A delivery was put back."""
        self._numbers.pop(number, None)

    def settle(self, numbers: Iterable[int]) -> Iterator[tuple[int, bool]]:
        """Yield the acknowledgements of these: a delivery tag, and whether it stands for all before it, too.

        To a quorum queue each acknowledgement is a write to the disk, whatever it stands for.
        """
        wanted = {number for number in numbers if number in self._numbers}
        leading = 0
        for number in self._numbers:
            if number not in wanted:
                break
            leading += 1
            last = number
        if leading > 1:
            yield last, True
            wanted = {number for number in wanted if number > last}
            self._numbers = {number: None for number in self._numbers if number > last}
        for number in sorted(wanted):
            del self._numbers[number]
            yield number, False
