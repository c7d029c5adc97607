"""Values in bytes that nobody vouches for: what must hold, whatever they are."""

from __future__ import annotations

import contextlib
from random import Random

import msgspec

from executor import codec, content, jsonform
from executor.errors import BadFrame, CannotTravel
from tests.fuzz.choices import parts, whole
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target, in_proportion
from tests.fuzz.values import value


def make_value(random: Random) -> bytes:
    try:
        head, *buffers = map(bytes, codec.encode(value(random)))
    except CannotTravel:  # a float of any bits may be the key of two
        head, buffers = b"\xc0", []
    if random.random() < 0.2:  # a large one, small
        head = codec.encode([1, 2])[0] + b""
        beside = codec.Ext(codec.BUFFER, msgspec.msgpack.encode(0))
        head, buffers = msgspec.msgpack.encode([beside, 1]), [random.randbytes(3)]
    if random.random() < 0.95:
        head = Mutator(random).msgpack(head)
    return whole(head, *buffers)


def run_value(data: bytes) -> None:
    """What decodes encodes again, to the same, or can't travel; and it has a JSON form, or none."""
    try:
        found = codec.decode(parts(data))
    except BadFrame:
        return
    try:
        again = codec.encode(found)
        hashed = content.canonical(found)
    except CannotTravel:
        pass
    else:
        assert content.canonical(codec.decode([bytes(part) for part in again])) == hashed
    try:
        jsonform.dumps(found)
    except CannotTravel:
        pass


def run_value_memory(data: bytes) -> None:
    with in_proportion(len(data)), contextlib.suppress(BadFrame):
        codec.decode(parts(data))


CODEC = [Target("codec", make_value, run_value), Target("codec-memory", make_value, run_value_memory)]
