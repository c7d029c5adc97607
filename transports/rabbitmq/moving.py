"""Calls on their way from a common queue into a worker's own: a copy first, and then the originals go.

As long as the copy is not confirmed the originals are unacknowledged, so that the broker has one or the
other at least. The calls are in the worker's hands when the copy is delivered, and not before. A copy that
does not come, as somebody deleted the queue with it, is published anew.
"""

from __future__ import annotations

import math
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

#: Seconds after which a copy that is safe, and does not come, is taken for lost.
LATE = 5.0


class _Move:
    __slots__ = ("acknowledged", "came", "given_up", "open", "run", "since", "tags")

    def __init__(self, run: str, tags: Sequence[Tag], count: int) -> None:
        self.run = run
        self.tags = tags
        self.open = count  # publications that are not confirmed
        self.acknowledged = False
        self.came = False  # the copy, or it is wanted no more
        self.given_up = False
        self.since = math.inf  # when it was first missed over this connection


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
        self._given_up: dict[str, str] = {}  # runs, by the ids of copies that did not come in time
        self._copies = 0

    def __bool__(self) -> bool:
        return bool(self._moves)

    @property
    def misses(self) -> bool:
        """Whether copies that are no longer waited for may still be in our queues."""
        return bool(self._given_up)

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
        self._replies.release(self._held.add(message_id, run, ours))
        move = self._moves[message_id] = _Move(run, tags, 1 + bool(rest))
        self._send_copy(message_id, move, ours)
        if rest:
            first = self._names.first(rest[0].item.width)
            body = body_of(run, rest)
            own = headers(anew="yes") if anew else headers()
            done = partial(self._confirmed, message_id, move, rest, len(body))
            self._post.send(first, body, done, headers=own, lasts=False)

    def _send_copy(self, message_id: str, move: _Move, ours: Sequence[Call]) -> None:
        body = body_of(move.run, ours)

        def done(outcome: Outcome) -> None:
            move.came = move.came or outcome is Outcome.TOO_LARGE  # it never will
            self._confirmed(message_id, move, ours, len(body), outcome)

        self._post.send(
            self._names.held(self._instance), body, done,
            message_id=message_id, headers=self._headers, lasts=False,
        )  # fmt: skip

    def _confirmed(
        self, message_id: str, move: _Move, some: Sequence[Call], size: int, outcome: Outcome
    ) -> None:  # fmt: skip
        """Take the broker's word on the publication of some calls."""
        if outcome is Outcome.NO_QUEUE:  # somebody deleted it: the original goes back into line
            self._connection.break_off("a queue was deleted")
            return
        if outcome is Outcome.TOO_LARGE:  # the broker took it once
            self._replies.refuse(move.run, some, size)
        move.open -= 1
        if not move.open and not move.acknowledged:
            move.acknowledged = True
            self._connection.ack(*move.tags)
        self._settle(message_id, move)

    def came(self, message_id: str) -> None:
        """A copy was delivered."""
        move = self._moves.get(message_id)
        if move is not None:
            move.came = True
            self._settle(message_id, move)

    def comes_late(self, message_id: str) -> bool:
        """Whether a copy was given up; as it was delivered after all, nobody else has what it stands for."""
        return self._given_up.pop(message_id, None) is not None

    def _settle(self, message_id: str, move: _Move) -> None:
        if move.came and not move.open:  # one that came before its confirmation: the original is still there
            self._moves.pop(message_id, None)

    def again(self, now: float) -> None:
        """Publish anew the copies that are safe, and don't come; `now` is the owner's clock."""
        for message_id, move in list(self._moves.items()):
            if not move.acknowledged or move.open:
                continue
            copy = self._held.copy(message_id)
            move.since = min(move.since, now)
            if copy is None:  # its calls came in another one, and are done
                del self._moves[message_id]
            elif now - move.since <= LATE:
                continue
            elif move.given_up:  # others have its calls, or the broker has lost them, or sees the break late
                del self._moves[message_id]
                self._given_up[message_id] = move.run
                self._held.void(message_id)
            else:
                move.since = math.inf
                move.open += 1
                self._send_copy(message_id, move, self._held.calls_of(copy))

    def give_up(self) -> None:
        """The connection is broken for so long that what has not come is no longer ours, unless it comes."""
        for move in self._moves.values():
            move.given_up = True

    def lost(self) -> None:
        """The connection broke: what was not acknowledged goes back into line."""
        for message_id, move in list(self._moves.items()):
            if move.acknowledged:
                move.open, move.since = 0, math.inf
                self._settle(message_id, move)
            else:
                del self._moves[message_id]
                if (copy := self._held.copy(message_id)) is None or copy.tag is None:
                    self._held.void(message_id)

    def over(self, run: str) -> None:
        """A run is over: nothing of it is to be begun."""
        for message_id, move in list(self._moves.items()):
            if move.run == run:
                move.came = True
                self._settle(message_id, move)
        self._given_up = {message_id: other for message_id, other in self._given_up.items() if other != run}
