"""Calls on their way from a common queue into a worker's own: a copy first, and then the originals go.

As long as the copy is not confirmed the originals are unacknowledged, so that the broker has one or the
other at least. The calls are in the worker's hands when the copy is delivered, and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from executor.messages import Hello
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Tag
from transports.rabbitmq.frames import BODY_BYTES, Call, body_of, headers
from transports.rabbitmq.held import Held
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.replies import Replies
from transports.rabbitmq.topology import Topology


class _Move:
    __slots__ = ("acknowledged", "fresh", "open", "run", "tags")

    def __init__(self, run: str, tags: Sequence[Tag], fresh: list[Call]) -> None:
        self.run = run
        self.tags = tags
        self.fresh = fresh  # handed to the owner when the copy came
        self.open = 0  # publications that are not confirmed
        self.acknowledged = False


class Moving:
    """Moves messages for the worker that `hello` introduces."""

    def __init__(
        self, connection: Connection, post: Post, held: Held, replies: Replies, names: Topology, hello: Hello
    ) -> None:
        self._connection = connection
        self._post = post
        self._held = held
        self._replies = replies
        self._names = names
        self._instance = hello.instance
        self._headers = headers(worker=hello.name, host=hello.host)
        self._moves: dict[str, _Move] = {}  # by the copy's message id
        self._copies = 0

    def __bool__(self) -> bool:
        return bool(self._moves)

    @property
    def unconfirmed(self) -> bool:
        """Whether it is not known yet that all copies are safe."""
        return any(move.open for move in self._moves.values())

    @property
    def most(self) -> int:
        """Bytes that one copy should have at most."""
        return min(BODY_BYTES, self._post.most or BODY_BYTES)

    def runs(self) -> set[str]:
        """Return the runs of the calls under way."""
        return {move.run for move in self._moves.values()}

    def move(
        self, tags: Sequence[Tag], run: str, ours: Sequence[Call], rest: Sequence[Call], *, anew: bool = False
    ) -> None:
        """Move what is `ours` of messages into our own queue, and the rest to where it comes first.

        `anew` is whether the messages were pushed as their calls had been lost.
        """
        self._copies += 1
        message_id = f"{self._instance}.{self._copies}"
        fresh, done = self._held.add(message_id, run, ours)
        self._replies.release(done)
        move = self._moves[message_id] = _Move(run, tags, fresh)

        def confirmed(some: Sequence[Call], size: int, outcome: Outcome) -> None:
            if outcome is Outcome.NO_QUEUE:  # somebody deleted it: the original goes back into line
                self._connection.break_off("a queue was deleted")
                return
            if outcome is Outcome.TOO_LARGE:  # the broker took it once
                move.fresh = []
                self._replies.refuse(run, some, size)
            move.open -= 1
            if not move.open and not move.acknowledged:
                move.acknowledged = True
                self._connection.ack(*move.tags)
                if not move.fresh and message_id in self._moves:  # the run ended meanwhile
                    del self._moves[message_id]

        move.open = 1 + bool(rest)
        body = body_of(run, ours)
        self._post.send(
            self._names.held(self._instance), body, partial(confirmed, ours, len(body)),
            message_id=message_id, headers=self._headers, lasts=False,
        )  # fmt: skip
        if rest:
            first = self._names.first(rest[0].item.width)
            body = body_of(run, rest)
            own = headers(anew="yes") if anew else headers()
            self._post.send(first, body, partial(confirmed, rest, len(body)), headers=own, lasts=False)

    def came(self, message_id: str) -> tuple[str, list[Call]] | None:
        """A copy was delivered; return its run and those of its calls that are to be begun, if any are."""
        move = self._moves.pop(message_id, None)
        if move is None or not move.fresh:
            return None
        if move.open:  # it came before its confirmation; the original is acknowledged then
            self._moves[message_id] = move
        fresh, move.fresh = move.fresh, []
        return move.run, fresh

    def lost(self) -> None:
        """The connection broke: what was not acknowledged goes back into line."""
        for message_id, move in list(self._moves.items()):
            if not move.acknowledged:
                del self._moves[message_id]
                if (copy := self._held.copy(message_id)) is None or copy.tag is None:
                    self._held.void(message_id)

    def over(self, run: str) -> None:
        """A run is over: nothing of it is to be begun."""
        for message_id, move in list(self._moves.items()):
            if move.run == run:
                move.fresh = []
                if not move.open:
                    del self._moves[message_id]
