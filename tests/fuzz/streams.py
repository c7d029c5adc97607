"""What cuts a stream into frames, and what opens what was sealed.

An input is a sequence. What is counted is frames of a channel, and messages that were opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from executor import sealing
from executor.arena import CELL, LEAST, Arena
from executor.channel import Channel
from executor.errors import BadFrame
from executor.keys import Keys
from executor.sealing import OVERHEAD, Seal
from tests.fuzz.choices import Choices
from tests.fuzz.mutate import NUMBERS
from tests.fuzz.target import Target
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.topology import Topology

#: Bytes of the largest part of a frame here.
LARGEST_PART = 1 << 20


class Stream:
    """Stands for a socket: it takes what one end sends, and gives it to another in pieces of any size."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.cuts: Iterator[int] = iter(())
        self._at = 0

    def send(self, data: memoryview) -> int:
        self.data += data
        return len(data)

    def recv(self, most: int) -> bytes:
        if self._at >= len(self.data):
            return b""
        cut = next(self.cuts, most)
        if not cut:
            raise BlockingIOError
        given = bytes(self.data[self._at : self._at + min(most, cut)])
        self._at += len(given)
        return given

    def recv_into(self, view: memoryview) -> int:
        given = self.recv(len(view))
        view[: len(given)] = given
        return len(given)

    def close(self) -> None:
        pass


class _Arenas:
    """Both ends of an arena, made once."""

    _made: tuple[int, Arena, Arena] | None = None

    @classmethod
    def both(cls) -> tuple[Arena, Arena]:
        """Return the worker's end and the child's, with all cells free."""
        if cls._made is None or cls._made[0] != os.getpid():
            memory = os.memfd_create("arena")
            os.ftruncate(memory, Arena.SIZE)
            cls._made = os.getpid(), Arena(memory, child=False), Arena(memory, child=True)
        _, worker, child = cls._made
        for at in (0, Arena.SIZE // 2):
            worker._memory[at : at + 300] = bytes(300)
        return worker, child


def make(random: Random) -> bytes:
    return random.randbytes(random.choice((20, 60, 200, 800)))


def _frame(choices: Choices, *, large: bool) -> list[bytes]:
    sizes = [0, 1, 3, 10, 40, 200, 1000, 65_535, 65_536, 65_537]
    most = len(sizes) if choices.chance(10) else 6
    frame = [bytes([n % 251]) * sizes[choices.below(most)] for n in range(choices.below(5))]
    if large and choices.chance(5):
        frame.append(b"z" * choices.one((LEAST, LEAST + 1, 5 * CELL)))
    return frame


def run_channel(data: bytes) -> int:
    """Frames come out as they went in, in whatever pieces; of a stream that is none no more is held."""
    choices = Choices(data)
    worker, child = _Arenas.both() if choices.chance(40) else (None, None)
    stream, sent = Stream(), list[list[bytes]]()
    sender = Channel(stream, child)  # type: ignore[arg-type]
    starts: list[int] = []
    for _ in range(1 + choices.below(12)):
        frame = _frame(choices, large=child is not None)
        starts.append(len(stream.data))
        sender.send(frame)
        sent.append(frame)
    broken = choices.chance(60)
    if broken:
        for _ in range(1 + choices.below(3)):
            _damage(choices, stream.data, starts)
    size = len(stream.data)
    cuts = [choices.one((1, 2, 4, 7, 12, 13, 100, 5000, 0, 65_536)) for _ in range(choices.below(40))]
    stream.cuts = iter(cuts)
    receiver = Channel(stream, worker)  # type: ignore[arg-type]
    came: list[list[bytes]] = []
    try:
        while True:
            some = receiver.receive()
            if some is None:
                break
            came += [[bytes(part) for part in frame] for frame in some]
            del some
            held = len(receiver._inbox) + sum(map(len, receiver._parts))
            assert held <= size + Arena.SIZE, "more is held than came"
            room = 0 if receiver._large is None else len(receiver._large)
            assert room <= 2 * size + (4 << 20), "more is claimed than came"
    except BadFrame:
        assert broken, "frames that are right are refused"
    else:
        assert broken or came == sent, "frames come out as others"
    if broken:  # those before the first that is not right
        whole = next((n for n, (a, b) in enumerate(zip(came, sent, strict=False)) if a != b), len(came))
        assert whole <= len(sent) or size > len(sent)
    return len(sent)


def _damage(choices: Choices, data: bytearray, starts: list[int]) -> None:
    """Change a frame's header, or any bytes."""
    way = choices.below(6)
    start = choices.one(starts)
    if way == 0:
        _overwrite(
            data, start, (choices.one((*NUMBERS, 1 << 20, (1 << 20) + 1)) % 2**32).to_bytes(4, "little")
        )
    elif way < 3:
        arena = choices.below(300) << 40 if choices.chance(50) else 0
        length = choices.one((0, 1, 9, LARGEST_PART, LARGEST_PART + 1, *NUMBERS))
        word = (arena | length) % 2**64
        _overwrite(data, start + 4 + 8 * choices.below(3), word.to_bytes(8, "little"))
    elif way == 3:
        del data[choices.below(len(data) + 1) :]
    elif way == 4 and data:
        data[choices.below(len(data))] = choices.below(256)
    else:
        at = choices.below(len(data) + 1)
        data[at:at] = choices.bytes(choices.below(9))


def _overwrite(data: bytearray, at: int, by: bytes) -> None:
    if at + len(by) <= len(data):
        data[at : at + len(by)] = by


#: Messages that are known when they come again.
REMEMBERED = 16

NAMES = Topology("q", 5.0, 1800.0)
_OURS, _THEIRS = (Keys(None, bytes([n]) * 32) for n in (1, 2))  # type: ignore[arg-type]
_QUEUES = [
    "q.1",
    "q.1.first",
    "q.2.alone",
    "q.returned",
    "q.results.r",
    "",
    NAMES.held("w"),
    NAMES.orphaned("w"),
]
_EXCHANGES = ["", "", "", "q.control", "q.presence"]
_HEADERS: list[dict[str, Any]] = [{}, {"protocol": 1}, {"worker": "w", "host": "h"}, {"worker": b"w", "n": 7}]
_BODIES = [b"", b"a", b"x" * 200, b"\xdd\0\0\0\1"]


class _Published:
    """A message as it lies in the broker, and where it may be opened."""

    def __init__(self, exchange: str, key: str, headers: dict[str, Any], plain: bytes, body: bytes) -> None:
        self.exchange, self.key, self.headers, self.plain, self.body = exchange, key, headers, plain, body


def run_envelope(data: bytes) -> int:
    """What opens was sealed by one of ours for that very place, and is opened once, or said to come again."""
    choices, opened = Choices(data), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "_PROCESSES_MOST", 3)
        patch.setattr(sealing, "_REMEMBERED", REMEMBERED)
        senders = [Envelopes(Seal(_OURS), NAMES) for _ in range(1 + choices.below(5))]
        stranger = Envelopes(Seal(_THEIRS), NAMES)
        seal = Seal(_OURS)
        reader = Envelopes(seal, NAMES)
        lying: list[_Published] = []
        seen: dict[bytes, None] = {}  # the last that were opened, which must not be again
        while choices:
            if not lying or choices.chance(30):
                lying.append(_published(choices, choices.one(senders)))
                if len(lying) > 20:
                    del lying[0]
            if choices.chance(8):
                lying.append(_published(choices, stranger, plain=None))
            one = choices.one(lying)
            right = one.plain is not None
            body, exchange, key, headers = one.body, one.exchange, one.key, dict(one.headers)
            queue, again = key, choices.chance(20)
            way = choices.below(16)
            if way == 0:
                exchange = choices.one(_EXCHANGES)
            elif way == 1:
                key = queue = choices.one(_QUEUES)
            elif way == 2:
                headers |= choices.one(_HEADERS)
            elif way == 3:
                headers["x-first-death-queue"] = choices.one((*_QUEUES, 7, None, b"q.1"))
                again = again or headers["x-first-death-queue"] is not None
                died = headers["x-first-death-queue"]
                queue = choices.one(_QUEUES)
                if isinstance(died, str) and NAMES.passes_on(died, queue):
                    exchange, key = "", died
            elif way < 7:
                body = _spoilt(choices, body)
            elif way == 7:
                headers["x-delivery-count"] = choices.below(9)
            own = {name: value for name, value in headers.items() if not name.startswith("x-")}
            right = (
                right and body == one.body and (exchange, key, own) == (one.exchange, one.key, one.headers)
            )
            method = SimpleNamespace(
                exchange=exchange, routing_key=key, redelivered=choices.chance(20) or again
            )
            if way == 3 and right:  # as it was published: the envelope finds the place
                method.exchange, method.routing_key = choices.one(_EXCHANGES), choices.one(_QUEUES)
                died = headers["x-first-death-queue"]
                if not (isinstance(died, str) and NAMES.passes_on(died, queue)):
                    method.exchange, method.routing_key = exchange, key
            twice = bool(method.redelivered) or headers.get("x-first-death-queue") is not None
            found = reader.open(queue, method, SimpleNamespace(headers=headers, message_id=None), body)
            opened += 1
            name = body[:24]
            if not right:
                assert found == b"", "what is not ours, or belongs elsewhere, is opened"
            elif name in seen and not twice:
                assert found == b"", "it is opened twice"
            else:
                assert found == one.plain, "what is ours is not opened"
                seen[name] = None
                if len(seen) > REMEMBERED:
                    del seen[next(iter(seen))]
            assert len(seal._seen) <= REMEMBERED
            assert len(seal._others) <= 3
    return opened


def _published(choices: Choices, by: Envelopes, *, plain: bytes | None = b"") -> Any:
    exchange, key = choices.one(_EXCHANGES), choices.one(_QUEUES)
    headers, body = choices.one(_HEADERS), choices.one(_BODIES)
    sealed = by.close(exchange, key, headers, body)
    return _Published(exchange, key, headers, None if plain is None else body, sealed)  # type: ignore[arg-type]


def _spoilt(choices: Choices, body: bytes) -> bytes:
    """Return a body that is cut, longer, or has another byte; or of another's salt or number."""
    way = choices.below(5)
    changed = bytearray(body)
    if way == 0:
        return body[: choices.below(len(body) + 1)]
    if way == 1:
        return body + choices.bytes(1 + choices.below(9))
    if way == 2:
        return choices.bytes(choices.below(2 * OVERHEAD))
    at = choices.below(len(body))
    changed[at] ^= 1 << choices.below(8)
    return bytes(changed)


STREAMS = [
    Target("channel", make, run_channel),
    Target("envelope", make, run_envelope),
]
