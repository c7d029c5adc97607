"""Results are written before they are acknowledged, and tried again when they can't be."""

from __future__ import annotations

from typing import Any, cast

import pytest

from executor import recording
from executor.errors import OutputFailed
from executor.journal import Journal
from executor.recording import Recording
from executor.task import Result
from transports.base import DispatcherEnd


class World:
    """A journal, an end and a clock, and what was done with them."""

    resumable = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, file: bool = True) -> None:
        self.now = 100.0
        self.fails: dict[str, OutputFailed] = {}
        self.done: list[str] = []
        self.said: list[str] = []
        self.unwritten = 0
        monkeypatch.setattr(recording.time, "monotonic", lambda: self.now)
        journal, end = cast(Journal, Both(self, file)), cast(DispatcherEnd, self)
        self.recording = Recording(journal, end, self.said.append, 10.0)

    def acknowledge(self) -> None:
        self.done.append("acknowledge")

    def take(self) -> None:
        self.recording.take([cast(Result, None)])
        self.recording.save()

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.done.clear()
        self.recording.turn()


class Both:
    """The journal."""

    def __init__(self, world: World, resumable: bool) -> None:
        self.world = world
        self.resumable = resumable

    def __getattr__(self, name: str) -> Any:
        if name == "unwritten":
            return self.world.unwritten
        return lambda *_: self.do(name)

    def do(self, name: str) -> int:
        if name == "write":
            self.world.unwritten += 1
            return 0
        if name in self.world.fails:
            raise self.world.fails[name]
        before, self.world.unwritten = self.world.unwritten, 0
        self.world.done.append(name)
        return before


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


FULL = OutputFailed("results can't be written: No space left on device")


def test_written_and_then_acknowledged(world: World) -> None:
    world.take()
    assert world.done == ["flush", "acknowledge"]
    assert not world.recording.stuck
    world.turn(0.2)
    assert world.done == ["tick"]
    assert world.recording.finish()
    assert world.done == ["tick", "flush", "sync", "acknowledge"]


@pytest.mark.parametrize("what", ["flush", "sync"])
def test_nothing_is_acknowledged_until_it_can_be_written_and_synced(world: World, what: str) -> None:
    world.fails = {"flush": FULL}
    world.take()
    world.take()
    assert (world.done, world.recording.stuck) == ([], True)
    assert world.said == [f"{FULL}; trying again for 10 s, and handing out nothing meanwhile"]
    world.fails = {what: FULL}
    for _ in range(12):
        world.turn(0.5)
        assert "acknowledge" not in world.done
        assert not world.recording.finish()
    world.unwritten = 2
    world.fails.clear()
    world.turn(0.5)
    assert world.done == ["flush", "sync", "acknowledge"]
    assert world.said[1:] == ["results can be written again: 2 results that came meanwhile are"]
    assert not world.recording.stuck


def test_a_sync_that_fails_by_itself(world: World) -> None:
    world.take()
    world.fails = {"tick": FULL, "sync": FULL}
    world.turn(1)
    assert world.recording.stuck
    world.take()
    assert "acknowledge" not in world.done


def test_in_the_end_it_is_given_up_and_all_is_left_for_a_resume(world: World) -> None:
    world.fails = {"flush": FULL}
    world.take()
    world.turn(9.9)
    with pytest.raises(OutputFailed, match=str(FULL)):
        world.turn(0.2)
    assert not world.resumable
    world.recording.leave()
    assert world.resumable
    assert world.done == ["drop"]
    assert world.recording.unwritten == 1
    world.recording.leave()  # once is enough
    assert world.recording.unwritten == 1
    assert len(world.said) == 1


def test_what_no_patience_mends_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, file=False)
    world.fails = {"flush": OutputFailed("results can't be written: Broken pipe", for_good=True)}
    with pytest.raises(OutputFailed, match="Broken pipe"):
        world.take()
    assert world.said == []
    world.recording.leave()
    assert world.recording.left
    assert not world.resumable  # there is no going on with a pipe: let the workers forget it


def test_a_run_that_could_write_all_is_not_left_for_a_resume(world: World) -> None:
    world.take()
    world.recording.leave()
    assert not world.resumable
