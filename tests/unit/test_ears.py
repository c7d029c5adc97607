"""What a worker listens with, with `epoll` and without."""

import select
import socket
from collections.abc import Iterator

import pytest

from executor.ears import READABLE, WRITABLE, Ears


@pytest.fixture(params=["epoll", "poll"])
def ears(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    if request.param == "poll":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    made = Ears()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_what_can_be_read_is_told_until_it_is_read(
    ears: Ears, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    ears.add(ours.fileno())
    assert ears.wait(0) == []
    assert ears.wait(0.001) == []
    theirs.send(b"x")
    assert ears.wait(10) == ears.wait(None) == [(ours.fileno(), READABLE)]
    ours.recv(1)
    assert ears.wait(0) == []


def test_what_can_be_written_to_is_told_only_if_asked_for(
    ears: Ears, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    ears.add(ours.fileno())
    ears.change(ours.fileno(), writable=True)
    assert ears.wait(10) == [(ours.fileno(), WRITABLE)]
    theirs.send(b"x")
    assert ears.wait(10) == [(ours.fileno(), READABLE | WRITABLE)]
    ears.change(ours.fileno(), writable=False)
    assert ears.wait(10) == [(ours.fileno(), READABLE)]


def test_an_end_is_told_as_something_to_read(ears: Ears, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ears.add(ours.fileno())
    theirs.close()
    [(descriptor, events)] = ears.wait(10)
    assert descriptor == ours.fileno()
    assert events != WRITABLE
    assert ours.recv(1) == b""


def test_nothing_is_told_of_what_is_not_listened_to(
    ears: Ears, ends: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = ends
    ears.add(ours.fileno())
    theirs.send(b"x")
    ears.remove(ours.fileno())
    assert ears.wait(0) == []
