"""Copies of calls that run for long: they are published anew before the broker wants them acknowledged."""

from __future__ import annotations

from executor.messages import Hello
from transports.rabbitmq.frames import body_of, headers
from transports.rabbitmq.held import Held
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.topology import Topology


class Renewing:
    """Renews the copies that are `held` by the worker that `hello` introduces; `now` is the owner's clock."""

    def __init__(self, post: Post, held: Held, names: Topology, hello: Hello) -> None:
        self._post = post
        self._held = held
        self._queue = names.held(hello.instance)
        self._after = names.acknowledgement_timeout / 2
        self._headers = headers(worker=hello.name, host=hello.host)

    def go_on(self, now: float) -> None:
        """Publish anew what would else soon have taken too long."""
        for copy in self._held.copies():
            if not copy.renewing and now - copy.since > self._after:
                copy.renewing = True
                self._post.send(
                    self._queue, body_of(copy.run, self._held.calls_of(copy)), _confirmed,
                    message_id=copy.id, headers=self._headers, lasts=False,
                )  # fmt: skip


def _confirmed(outcome: Outcome) -> None:
    """Nothing to do yet: the old copy is acknowledged when the new one comes."""
