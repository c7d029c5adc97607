"""Tasks on their way to a worker: which frames they make, and which of them come to nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from executor.errors import CannotTravel
from executor.messages import Buffer, Item, Parts, Tasks, encode, too_large
from transports.base import Jobs

#: Bytes of large buffers in one frame of tasks; beyond it another frame begins.
FRAME_BYTES = 8 << 20


class Load(NamedTuple):
    """A frame of the tasks at these places.

    Without `parts` it is one that is not sent: it was recorded while it waited, or `error` says why it can't
    travel.
    """

    places: Sequence[int]
    parts: Parts = ()
    error: str = ""


def loads(jobs: Jobs, places: Sequence[int], largest: int) -> Iterator[Load]:
    """Yield tasks in as few frames as they need; a call of more than `largest` bytes can't travel."""
    message = jobs.frame(places)
    if message is not None and len(message) <= min(FRAME_BYTES, largest):
        yield Load(places, [message])
        return
    items: list[Item] = []
    all_buffers: list[Buffer] = []
    size = 0
    for place in places:
        if jobs.is_recorded(place):  # an attempt given up ended well after all
            yield Load([place])
            continue
        try:
            item, buffers = jobs.item(place)
            own = _size(item.call, buffers)
            if own > largest:
                raise CannotTravel(too_large("the call", own, largest))
        except CannotTravel as cannot:
            yield Load([place], error=str(cannot))
            continue
        items.append(item)
        all_buffers.extend(buffers)
        size += own
        if size >= FRAME_BYTES:
            yield _load(jobs.id, items, all_buffers)
            items, all_buffers, size = [], [], 0
    if items:
        yield _load(jobs.id, items, all_buffers)


def _load(run: str, items: list[Item], buffers: list[Buffer]) -> Load:
    return Load([item.place for item in items], encode(Tasks(run, items), buffers))


def _size(head: msgspec.Raw, buffers: Sequence[Buffer]) -> int:
    """Return the bytes of a call on the wire."""
    return len(head) + sum(len(buffer) for buffer in buffers)
