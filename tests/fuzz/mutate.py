"""Inputs that are nearly right: MessagePack of other types, counts, numbers and depths, and texts."""

from __future__ import annotations

import struct
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec.msgpack import Ext

NUMBERS = [0, 1, 2, 7, 127, 128, 255, 256, 10**9, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
NUMBERS += [-1, -2, -32, -33, -128, -129, -(2**31), -(2**63)]
FLOATS = [0.0, -0.0, 1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf"), -1.0]
TEXTS = [
    "",
    "f",
    "r",
    "ok",
    "lost",
    "<f8",
    "|b1",
    ">U3",
    "<M8[s]",
    "O",
    "NaT",
    "now",
    "2001-01-01",
    "é",
    "\0",
    "x" * 300,
]
TEXTS += [
    "2001-01-01T01:01:01",
    "UTC",
    "Europe/Paris",
    "../../etc/passwd",
    "__class__",
    "os.system",
    "$map",
    "$npy",
]


class Lie(NamedTuple):
    """A header (of list, map, text, bytes or extension) that claims another count than what follows."""

    kind: str
    count: int
    content: bytes


class Verbatim(NamedTuple):
    """Bytes in place of a value."""

    data: bytes


_decode = msgspec.msgpack.Decoder().decode


def tree(data: bytes) -> Any:
    """Return MessagePack as plain values, extensions included, or the bytes themselves if they are none."""
    try:
        return _opened(_decode(data))
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return Verbatim(data)


def _opened(value: Any) -> Any:
    if isinstance(value, list):
        return [_opened(item) for item in value]
    if isinstance(value, dict):
        return {key: _opened(item) for key, item in value.items()}
    if isinstance(value, Ext):
        inner = tree(bytes(value.data))
        return Ext(value.code, b""), inner
    return value


def _is_special(value: tuple[Any, ...]) -> bool:
    return isinstance(value, Lie | Verbatim) or (len(value) == 2 and isinstance(value[0], Ext))


def pack(value: Any) -> bytes:
    """Return the MessagePack of a tree; lies and verbatim bytes included."""
    if isinstance(value, list) or (isinstance(value, tuple) and not _is_special(value)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + pairs
    if isinstance(value, Lie):
        return _header(value.kind, value.count) + value.content
    if isinstance(value, Verbatim):
        return value.data
    if isinstance(value, tuple):
        data = pack(value[1])
        return b"\xc9" + struct.pack(">Ib", len(data), value[0].code) + data
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc0"


def _header(kind: str, count: int) -> bytes:
    first = {"list": 0xDD, "map": 0xDF, "str": 0xDB, "bin": 0xC6}.get(kind)
    if first is None:  # an extension
        return b"\xc9" + struct.pack(">Ib", count % 2**32, 1 + count % 13)
    return bytes([first]) + struct.pack(">I", count % 2**32)


class Mutator:
    """Changes inputs; all it decides comes from one generator."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def msgpack(self, data: bytes) -> bytes:
        """Return MessagePack with a few things changed, and now and then a few bytes."""
        try:
            value = tree(data)
            for _ in range(self._random.choice((1, 1, 1, 2, 3, 8))):
                value = self._somewhere(value)
            packed = pack(value)
        except RecursionError:  # it was changed again and again, and is too deep for this
            packed = data
        return self.bytes(packed) if self._random.random() < 0.15 else packed

    def bytes(self, data: bytes) -> bytes:
        """Return bytes of which some were changed, left out, doubled or added."""
        random, changed = self._random, bytearray(data)
        for _ in range(random.choice((1, 1, 2, 4))):
            at = random.randrange(len(changed) + 1)
            upto = min(len(changed), at + random.choice((1, 1, 2, 4, 16)))
            way = random.randrange(6)
            if way == 0 and changed:
                changed[at % len(changed)] = random.randrange(256)
            elif way == 1 and changed:
                changed[at % len(changed)] ^= 1 << random.randrange(8)
            elif way == 2:
                del changed[at:upto]
            elif way == 3:
                changed[at:at] = changed[at:upto] * random.choice((1, 2, 50))
            elif way == 4:
                changed[at:at] = random.randbytes(random.choice((1, 2, 4, 8)))
            else:
                del changed[at:]
        return bytes(changed)

    def text(self, data: bytes, words: list[bytes]) -> bytes:
        """Return a text's bytes with words of its language put in, taken out or exchanged."""
        random = self._random
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(data) + 1)
            upto = at + random.choice((0, 0, 1, 3, 10))
            data = data[:at] + random.choice(words) * random.choice((1, 1, 1, 2, 300)) + data[upto:]
        return self.bytes(data) if random.random() < 0.3 else data

    def _somewhere(self, value: Any) -> Any:
        """Change one thing in a tree, mostly deep inside."""
        random = self._random
        if isinstance(value, list) and value and random.random() < 0.85:
            index = random.randrange(len(value))
            return [*value[:index], self._somewhere(value[index]), *value[index + 1 :]]
        if isinstance(value, dict) and value and random.random() < 0.85:
            key = random.choice(list(value))
            return {**value, key: self._somewhere(value[key])}
        if isinstance(value, tuple) and isinstance(value[0], Ext) and random.random() < 0.85:
            return value[0], self._somewhere(value[1])
        return self._changed(value)

    def _changed(self, value: Any) -> Any:
        random = self._random
        way = random.randrange(12)
        if way == 0:
            return self.atom()
        if way == 1:
            return [value]
        if way == 2 and isinstance(value, list) and value:
            return random.choice((value[:-1], value[1:], value + value, value[::-1], value * 20))
        if way == 3:
            return Ext(random.randrange(-1, 16), b""), value
        if way == 4 and isinstance(value, int) and not isinstance(value, bool):
            return value + random.choice((-1, 1, 2**32, -(2**31)))
        if way == 5:
            kind = random.choice(("list", "map", "str", "bin", "ext"))
            return Lie(kind, random.choice(NUMBERS), pack(value) if random.random() < 0.7 else b"")
        if way == 6:
            deep = random.choice((3, 30, 199, 200, 201, 1000))
            return Verbatim(random.choice((b"\x91", b"\x81\xa0")) * deep + pack(value))
        if way == 7:
            return {self.key(): value, "": self.atom()}
        if way == 8:
            return random.randbytes(random.choice((0, 1, 8, 9, 100)))
        if way == 9:
            return Ext(random.randrange(1, 14), b""), Verbatim(
                random.randbytes(random.choice((0, 1, 2, 8, 16)))
            )
        if way == 10 and isinstance(value, bytes | str) and value:
            return random.choice((value[:-1], value + value, value[1:]))
        return self.atom()

    def key(self) -> Any:
        return self._random.choice(
            (self._random.choice(TEXTS), self._random.choice(NUMBERS), None, True, b"k")
        )

    def atom(self) -> Any:
        random = self._random
        return random.choice(
            (
                None,
                True,
                False,
                random.choice(NUMBERS),
                random.choice(FLOATS),
                random.choice(TEXTS),
                b"",
                [],
                {},
            )
        )
