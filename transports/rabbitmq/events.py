"""What a connection to the broker tells its owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

#: Why a connection was given up that stands, and brings no answers.
NO_ANSWER = "it does not answer"


class Tag(NamedTuple):
    """A delivery, to be acknowledged on the connection that brought it."""

    generation: int
    number: int
    bulk: bool = False  # on the channel for many at once


class Opened(NamedTuple):
    """A connection stands, to a broker of this version."""

    version: tuple[int, ...]
    generation: int


class Lost(NamedTuple):
    """The connection broke, or could not be made; `fatal` says what to do if trying again is no use.

    `most` is how many bytes the broker takes in a message, where it hung up on one that was larger; `locked`
    is whether another connection has a queue that was claimed.
    """

    why: str
    fatal: str = ""
    most: int | None = None
    locked: bool = False


class Blocked(NamedTuple):
    """The broker takes nothing for a reason (a memory or disk alarm); "" when it does again."""

    why: str


class Confirmed(NamedTuple):
    """A publication is safe with the broker (`taken`), or no queue was there for it (`unroutable`)."""

    token: int
    taken: bool
    unroutable: bool


class Delivered(NamedTuple):
    """A message from a queue; `tag` is None where it needs no acknowledgement."""

    queue: str
    tag: Tag | None
    headers: Mapping[str, Any]
    message_id: str
    body: bytes


class Fetched(NamedTuple):
    """Messages of a queue, in its order, of as many as were asked for by `fetch`."""

    queue: str
    messages: Sequence[Delivered]


class Empty(NamedTuple):
    """There was nothing to `get` or `fetch` in a queue."""

    queue: str


class Found(NamedTuple):
    """A queue that was looked for, and how many messages wait in it; None: there is no such queue."""

    queue: str
    messages: int | None


class Ended(NamedTuple):
    """The broker ended a subscription: the queue was deleted, or took too long to be acknowledged."""

    queue: str


AMQPEvent: TypeAlias = Opened | Lost | Blocked | Confirmed | Delivered | Fetched | Empty | Found | Ended
