"""What must reach the broker. A recorder stands in for the connection: no broker loses links at will."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from transports.rabbitmq.events import Confirmed
from transports.rabbitmq.post import Outcome, Post


class Recorder:
    """Stands in for a `Connection`: what is published while there is one is in flight."""

    def __init__(self) -> None:
        self.stands = True
        self.in_flight: list[int] = []  # tokens
        self.published: list[tuple[str, bytes, str, dict[str, Any]]] = []

    def publish(
        self, exchange: str, key: str, body: bytes, *, token: int, message_id: str, headers: dict[str, Any]
    ) -> None:
        assert exchange == ""
        if self.stands:
            assert token not in self.in_flight, "it goes out twice"
            self.in_flight.append(token)
            self.published.append((key, body, message_id, headers))


class PostMachine(RuleBasedStateMachine):
    """Whatever breaks, nothing is dropped, and of each publication it is told once what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = Recorder()
        self.post = Post(self.connection)  # type: ignore[arg-type]
        self.open: dict[int, tuple[int, bool]] = {}  # bytes, and whether it lasts, of what is on its way
        self.told: dict[int, list[Outcome]] = {}
        self.expected: dict[int, Outcome] = {}
        self.refused: list[int] = []
        self.most: int | None = None
        self.count = 0

    def settle(self, number: int, outcome: Outcome) -> None:
        del self.open[number]
        self.expected[number] = outcome

    def too_large(self) -> None:
        for number, (size, _) in list(self.open.items()):
            if self.most is not None and size > self.most:
                self.settle(number, Outcome.TOO_LARGE)

    @rule(size=st.integers(1, 100), lasts=st.booleans())
    def send(self, size: int, lasts: bool) -> None:
        self.count += 1
        number = self.count
        self.told[number] = []
        self.open[number] = (size, lasts)
        before = len(self.connection.published)
        self.post.send(
            f"q{number}", bytes(size), self.told[number].append,
            headers={"n": number}, message_id=f"m{number}", lasts=lasts,
        )  # fmt: skip
        if self.most is not None and size > self.most:
            self.settle(number, Outcome.TOO_LARGE)
        elif self.connection.stands:
            assert self.connection.published[before:] == [
                (f"q{number}", bytes(size), f"m{number}", {"n": number})
            ]

    @precondition(lambda self: self.connection.stands and self.connection.in_flight)
    @rule(data=st.data(), taken=st.booleans(), unroutable=st.booleans())
    def hear(self, data: st.DataObject, taken: bool, unroutable: bool) -> None:
        token = data.draw(st.sampled_from(self.connection.in_flight))
        self.connection.in_flight.remove(token)
        self.post.confirmed(Confirmed(token, taken, unroutable))
        number = token  # they count what is sent
        if taken:
            self.settle(number, Outcome.NO_QUEUE if unroutable else Outcome.SAFE)
        else:
            self.refused.append(number)

    @precondition(lambda self: self.connection.stands)
    @rule()
    def again(self) -> None:
        before = len(self.connection.published)
        self.post.again()
        assert self.numbers_since(before) == self.refused
        self.refused = []

    @precondition(lambda self: self.connection.stands)
    @rule(most=st.none() | st.integers(20, 90))
    def lose(self, most: int | None) -> None:
        self.connection.stands = False
        self.connection.in_flight.clear()
        self.refused = []
        self.post.lost(most)
        self.most = self.most if most is None else most
        self.open = {number: each for number, each in self.open.items() if each[1]}

    @precondition(lambda self: not self.connection.stands)
    @rule()
    def open_again(self) -> None:
        self.connection.stands = True
        self.too_large()
        before = len(self.connection.published)
        self.post.opened()
        assert self.numbers_since(before) == list(self.open), "in the order in which they were sent"

    def numbers_since(self, before: int) -> list[int]:
        return [headers["n"] for *_, headers in self.connection.published[before:]]

    @invariant()
    def what_came_of_each_is_told_once(self) -> None:
        for number, told in self.told.items():
            assert told == ([self.expected[number]] if number in self.expected else [])

    @invariant()
    def what_is_unconfirmed_is_counted(self) -> None:
        assert len(self.post) == len(self.open)
        assert self.post.size == sum(size for size, _ in self.open.values())


TestPostMachine = PostMachine.TestCase


@pytest.fixture
def connection() -> Recorder:
    return Recorder()


@pytest.fixture
def post(connection: Recorder) -> Post:
    return Post(connection)  # type: ignore[arg-type]


def test_a_publication_is_safe_when_it_is_confirmed(post: Post, connection: Recorder) -> None:
    told: list[Outcome] = []
    for _ in range(3):
        post.send("queue", b"body", told.append)
    assert (len(post), post.size, told) == (3, 12, [])
    post.confirmed(Confirmed(2, taken=True, unroutable=False))
    post.confirmed(Confirmed(1, taken=True, unroutable=True))
    assert (len(post), post.size, told) == (1, 4, [Outcome.SAFE, Outcome.NO_QUEUE])


def test_a_word_on_what_is_settled_changes_nothing(post: Post) -> None:
    told: list[Outcome] = []
    post.send("queue", b"body", told.append)
    for _ in range(2):
        post.confirmed(Confirmed(1, taken=True, unroutable=False))
    post.confirmed(Confirmed(99, taken=True, unroutable=False))
    post.confirmed(Confirmed(1, taken=False, unroutable=False))
    post.again()
    assert told == [Outcome.SAFE]
    assert (len(post), post.size) == (0, 0)


def test_what_has_no_queue_may_be_sent_again_from_within(post: Post, connection: Recorder) -> None:
    """As a worker does that declares the queue first."""
    told: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        if outcome is Outcome.NO_QUEUE:
            post.send("queue", b"again", told.append)

    post.send("queue", b"body", done)
    post.confirmed(Confirmed(1, taken=True, unroutable=True))
    post.confirmed(Confirmed(2, taken=True, unroutable=False))
    assert [body for _, body, *_ in connection.published] == [b"body", b"again"]
    assert told == [Outcome.SAFE]


def test_parts_of_what_was_too_large_go_out_from_within(post: Post, connection: Recorder) -> None:
    told: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        assert outcome is Outcome.TOO_LARGE
        for _ in range(2):
            post.send("queue", b"x" * 50, told.append)

    post.send("queue", b"x" * 100, done)
    post.send("queue", b"small", told.append)
    post.lost(most=60)
    connection.in_flight.clear()
    post.opened()
    assert sorted(len(body) for _, body, *_ in connection.published[2:]) == [5, 50, 50]
    for token in list(connection.in_flight):
        post.confirmed(Confirmed(token, taken=True, unroutable=False))
    assert told == [Outcome.SAFE] * 3
    assert (len(post), post.size) == (0, 0)
