"""Values of every type that travels, made fast from a generator, and how much memory a value holds."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

_DTYPES = ["<f8", "<i4", ">u2", "|b1", "<c16", "<U3", "|S4", "|V5", "<M8[ns]", "<m8[D]", "<f2", "<U0", "|S0"]
_FIELDS = [
    [("a", "<i4"), ("b", "<U2")],
    [("x", "<f8", (2, 3)), ("y", [("z", "|b1")])],
    {"names": ["p", "q"], "formats": ["u1", "<f4"], "offsets": [7, 0], "itemsize": 16},
]
_SHAPES = [(), (0,), (1,), (3,), (2, 2), (2, 0, 3), (1, 2, 1, 2), (50,)]
_ZONES = [None, UTC, timezone(timedelta(hours=-3, minutes=-7)), ZoneInfo("Europe/Paris")]
_NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 3**200]
_TEXTS = ["", "a", "päth", "\ud800", "x" * 40, "\0"]


def value(random: Random, depth: int = 3) -> Any:
    """Return some value that the codec takes."""
    kind = random.randrange(11 if depth else 7)
    if kind == 0:
        return random.choice((None, True, False))
    if kind == 1:
        return random.choice(_NUMBERS)
    if kind == 2:
        return struct.unpack("<d", random.randbytes(8))[0]
    if kind == 3:
        return random.choice(_TEXTS)
    if kind == 4:
        return random.randbytes(random.choice((0, 3, 300)))
    if kind == 5:
        return _special(random)
    if kind == 6:
        return _array(random)
    items = [value(random, depth - 1) for _ in range(random.randrange(4))]
    if kind == 7:
        return items
    if kind == 8:
        return tuple(items)
    if kind == 9:
        return {random.choice(("a", "b", 1, None, (1, 2), 2.5)): item for item in items}
    return random.choice((set, frozenset))({_atom(random) for _ in items})


def _atom(random: Random) -> Any:
    return random.choice((None, 1, 2**70, "k", b"b", 1.5, (1, "t"), date(2020, 2, 29), 1j))


def _special(random: Random) -> Any:
    zone = random.choice(_ZONES)
    moment = datetime(2024, 10, 27, 2, 30, 0, random.randrange(10**6), tzinfo=zone, fold=random.randrange(2))
    return random.choice((complex(1, -0.0), moment, moment.date(), moment.timetz(), time(23, 59), 2.5j))


def _array(random: Random) -> Any:
    form: Any = random.choice(_DTYPES) if random.random() < 0.7 else random.choice(_FIELDS)
    dtype, shape = np.dtype(form), random.choice(_SHAPES)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = random.randbytes(size) if dtype.kind in "biufcV" and dtype.names is None else bytes(size)
    array: Any = np.ndarray(shape, dtype, bytearray(raw), order=random.choice("CF"))
    if array.size and random.random() < 0.3:
        return array[(0,) * array.ndim]
    return array
