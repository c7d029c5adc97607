"""A frame as the body of one AMQP message, and what becomes of calls whose worker vanished. Pure.

Body: the number of parts (u32), the length of each (u64), then the parts; little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Buffer,
    Item,
    Parts,
    Report,
    Sealed,
    Tasks,
    decode,
    encode,
    share_out,
    too_large,
)
from executor.packed import Packed
from executor.task import tries_again

#: Bytes of calls or reports in one message; one that is larger travels alone.
BODY_BYTES = 1 << 20

#: What is said of a message that does not open: its body is empty.
NOT_OURS = "it is not sealed with our keys, or came before"

_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")


def pack(parts: Parts) -> bytes:
    """Return the body of a message that carries a frame."""
    lengths = [_LENGTH.pack(len(part)) for part in parts]
    return b"".join([_COUNT.pack(len(parts)), *lengths, *parts])


def unpack(body: bytes) -> list[Buffer]:
    """Return the frame in a body; its parts are writable copies, apart from the first.

    Raises:
        BadFrame: it is none of ours.
    """
    if not body:
        raise BadFrame(NOT_OURS)
    try:
        (count,) = _COUNT.unpack_from(body, 0)
        lengths = [_LENGTH.unpack_from(body, _COUNT.size + index * _LENGTH.size)[0] for index in range(count)]
    except struct.error as error:
        raise BadFrame("a body that is too short") from error
    at = _COUNT.size + count * _LENGTH.size
    if not count or at + sum(lengths) != len(body):
        raise BadFrame(f"{len(body)} bytes that are no frame")
    parts: list[Buffer] = []
    for index, length in enumerate(lengths):
        part = body[at : at + length]
        parts.append(bytearray(part) if index else part)
        at += length
    return parts


class Call(NamedTuple):
    """A call with its large buffers."""

    item: Item
    buffers: Sequence[Buffer]

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        size = len(self.item.call)
        return size + sum(map(len, self.buffers)) if self.buffers else size


def calls(body: bytes) -> tuple[str, list[Call]]:
    """Return the run of a message's calls, and the calls.

    Raises:
        BadFrame: it has none.
    """
    message, buffers = decode(unpack(body))
    if not isinstance(message, Tasks):
        raise BadFrame(f"calls were expected, not {type(message).__name__}")
    if not buffers:
        return message.run, [Call(item, ()) for item in message.items]
    shares = share_out(message.items, buffers)
    return message.run, [Call(item, shares.get(index, ())) for index, item in enumerate(message.items)]


def headers(**more: str) -> dict[str, Any]:
    """Return the headers of a message with calls or reports; a copy's name its worker and host."""
    return {"protocol": PROTOCOL, **more}


def body_of(run: str, some: Iterable[Call]) -> bytes:
    """Return the body of a message with these calls of a run."""
    some = list(some)
    buffers = [buffer for call in some if call.buffers for buffer in call.buffers]
    return pack(encode(Tasks(run, [call.item for call in some]), buffers))


def report_of(run: str, reports: Packed) -> bytes:
    """Return the body of a message with these reports of a run."""
    return pack(encode(Sealed(run, 0, reports.array), reports.buffers))


def beyond(what: str, place: int, size: int, most: int | None) -> Report:
    """Return the report of a call ("the call", or "the result") that the broker finds too large."""
    text = too_large(what, size, most or 0, "the broker's `max_message_size`")
    return Report(place, 0, "error", NIL, error=("CannotTravel", text, ""))


def in_bodies(sizes: Iterable[int], most: int = BODY_BYTES) -> Iterator[slice]:
    """Cut a sequence of things of these sizes into slices of `most` bytes, or of one larger thing."""
    start = size = position = 0
    for position, each in enumerate(sizes, 1):
        if size and size + each > most:
            yield slice(start, position - 1)
            start, size = position - 1, 0
        size += each
    if position > start:
        yield slice(start, position)


class Fate(NamedTuple):
    """What becomes of calls that came back: those that go out again, each alone, and reports of the rest."""

    again: list[Call]
    lost: list[Report]


def fate(came_back: Sequence[Call], *, begun: bool, worker: str) -> Fate:
    """Decide about calls whose message came back: `worker` had it, and may have `begun` with it.

    Each goes out in a message of its own. Only what may have begun is charged an attempt; the last one it
    gets alone on a worker (`Item.lone`), so that nobody dies with it, and it with nobody. What never began
    and yet came back too often for the broker's patience is split; if it was single already, it is charged.
    """
    charged = begun or len(came_back) == 1
    again: list[Call] = []
    lost: list[Report] = []
    for item, buffers in came_back:
        attempt = item.attempt
        if charged and not tries_again("lost", attempt, item.retries):
            text = f"its worker {worker} vanished"
            lost.append(Report(item.place, attempt, "lost", NIL, error=("Lost", text, "")))
            continue
        if charged:
            attempt += 1
        last = charged and not tries_again("lost", attempt, item.retries)
        again.append(Call(msgspec.structs.replace(item, attempt=attempt, lone=item.lone or last), buffers))
    return Fate(again, lost)
