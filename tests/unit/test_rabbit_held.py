from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from executor.messages import NIL, Item, Report
from executor.pace import LEAST_SECONDS
from transports.rabbitmq.frames import Call
from transports.rabbitmq.held import AHEAD_SECONDS, STALE_SECONDS, Entry, Held

RUNS = ("r1", "r2")


class Key(NamedTuple):
    run: str
    place: int


def call(place: int, *, width: int = 1, attempt: int = 1, lone: bool = False) -> Call:
    return Call(Item(place, attempt, width, None, None, NIL, lone=lone), ())


def keys(run: str, *places: int) -> list[Key]:
    return [Key(run, place) for place in places]


def places(some: list[Key]) -> list[int]:
    return [key.place for key in some]


def took(seconds: float) -> list[Report]:
    return [Report(0, 1, "ok", NIL, started=1000.0, finished=1000.0 + seconds)]


def width_of(place: int) -> int:
    return 1 + place % 3


class HeldMachine(RuleBasedStateMachine):
    """Whatever comes and goes, a copy stands for the unfinished calls in it, and is let go with the last."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.calls: dict[Key, Call] = {}  # in hand
        self.out: set[Key] = set()  # of these, those on their way back
        self.may_have_begun: dict[Key, int | None] = {}  # of these, the attempt that may have
        self.copies: dict[str, set[Key]] = {}
        self.ended: set[str] = set()  # copies that were let go
        self.on_their_way: list[tuple[str, list[Entry]]] = []
        self.doubtful: set[tuple[Key, int]] = set()
        self.attempts: Counter[Key] = Counter()
        self.begun: set[Key] = set()

    @initialize(cores=st.integers(1, 6), backfill=st.booleans())
    def start(self, cores: int, backfill: bool) -> None:
        self.held = Held(cores, backfill=backfill)
        self.room = 2 * cores if backfill else cores

    def some(self, data: st.DataObject, among: Any) -> Any:
        return data.draw(st.lists(st.sampled_from(sorted(among)), unique=True, min_size=1))

    def some_of_a_run(self, data: st.DataObject) -> tuple[str, list[Key]]:
        run = data.draw(st.sampled_from(sorted({key.run for key in self.calls})))
        return run, self.some(data, [key for key in self.calls if key.run == run])

    # -- what may happen

    @rule(run=st.sampled_from(RUNS), places=st.lists(st.integers(0, 7), unique=True, min_size=1, max_size=4),
          lone=st.booleans())  # fmt: skip
    def add(self, run: str, places: list[int], lone: bool) -> None:
        message_id = f"m{next(self.numbers)}"
        some = [call(p, width=width_of(p), attempt=1 + self.attempts[Key(run, p)], lone=lone) for p in places]
        done = self.held.add(message_id, run, some)
        for key in self.out & set(keys(run, *places)):
            self.drop(key)
        self.let_go(done)
        self.copies[message_id] = set(keys(run, *places))
        for key, each in zip(keys(run, *places), some, strict=True):
            if key not in self.calls:
                self.calls[key] = each
                self.may_have_begun[key] = each.item.attempt

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A copy came."""
        message_id = data.draw(st.sampled_from(sorted(self.copies)))
        copy = self.held.copy(message_id)
        assert copy is not None
        fresh = sorted(self.copies[message_id] - self.begun - self.out)
        assert self.held.begin(copy) == [self.calls[key] for key in fresh]
        self.begun |= set(fresh)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), tried=st.booleans())
    def leave(self, data: st.DataObject, tried: bool) -> None:
        """They are reported, or put back, with the next attempt if they were tried."""
        run, some = self.some_of_a_run(data)
        left = self.held.leave(run, places(some))
        assert {Key(run, entry.place) for entry in left} == set(some) - self.out
        assert self.held.leave(run, places(some)) == []
        self.out |= set(some)
        if left:
            self.on_their_way.append((run, left))
        for entry in left:
            self.attempts[Key(run, entry.place)] += tried

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data())
    def arrived(self, data: st.DataObject) -> None:
        """It is safe what left, whatever happened to it since."""
        run, left = self.on_their_way.pop(data.draw(st.integers(0, len(self.on_their_way) - 1)))
        done = self.held.arrived(run, left)
        for entry in left:
            key = Key(run, entry.place)
            if key in self.out and self.calls[key] is entry.call:
                self.drop(key)
        self.let_go(done)
        assert self.held.arrived(run, left) == []

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        run, some = self.some_of_a_run(data)
        done = self.held.finish(run, places(some))
        for key in some:
            self.drop(key)
        self.let_go(done)
        assert self.held.finish(run, places(some)) == []

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.copies)))
        self.held.void(message_id)
        for key in self.copies.pop(message_id):
            if not any(key in others for others in self.copies.values()):
                if key not in self.begun and (attempt := self.may_have_begun[key]):
                    self.doubtful.discard((key, attempt))
                self.drop(key)
        self.held.void(message_id)

    @rule()
    def doubt(self) -> None:
        self.held.doubt()
        self.doubtful |= {(key, attempt) for key, attempt in self.may_have_begun.items() if attempt}

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def never_begun(self, data: st.DataObject) -> None:
        run, some = self.some_of_a_run(data)
        self.held.never_begun(run, places(some))
        for key in some:
            if (attempt := self.may_have_begun[key]) is not None:
                self.doubtful.discard((key, attempt))
            self.may_have_begun[key] = None

    @rule(run=st.sampled_from(RUNS))
    def forget(self, run: str) -> None:
        self.held.forget(run)
        self.doubtful = {each for each in self.doubtful if each[0].run != run}

    def drop(self, key: Key) -> None:
        del self.calls[key], self.may_have_begun[key]
        self.out.discard(key)
        self.begun.discard(key)
        for others in self.copies.values():
            others.discard(key)

    def let_go(self, done: list[Any]) -> None:
        """These and no others stand for nothing now, and each is told once."""
        empty = {message_id for message_id, own in self.copies.items() if not own}
        assert sorted(copy.id for copy in done) == sorted(empty)
        assert not empty & self.ended
        self.ended |= empty
        for message_id in empty:
            del self.copies[message_id]

    # -- what always holds

    @invariant()
    def copies_stand_for_what_is_unfinished(self) -> None:
        found = {copy.id: set(keys(copy.run, *copy.places)) for copy in self.held.copies()}
        assert found == self.copies
        for message_id, own in self.copies.items():
            copy = self.held.copy(message_id)
            assert copy is not None
            assert self.held.calls_of(copy) == [self.calls[key] for key in sorted(own)]
        assert all(self.held.copy(message_id) is None for message_id in self.ended)

    @invariant()
    def each_call_is_in_hand_once(self) -> None:
        assert len(self.held) == len(self.calls)
        for run in RUNS:
            assert {Key(run, place) for place in self.held.of_run(run)} == {
                key for key in self.calls if key.run == run
            }
        for key, each in self.calls.items():
            assert self.held.call(*key) is (None if key in self.out else each)

    @invariant()
    def what_takes_cores_is_counted(self) -> None:
        busy = [each.item for key, each in self.calls.items() if key not in self.out]
        attempts = {run: {key.place: each.item.attempt for key, each in self.calls.items()
                          if key.run == run and key not in self.out} for run in RUNS}  # fmt: skip
        assert self.held.holding() == {run: each for run, each in attempts.items() if each}
        load = sum(item.width for item in busy)
        assert self.held.load == load
        assert self.held.lone == any(item.lone for item in busy)
        if load <= self.room:
            assert self.held.excess == 0
        else:  # so many that without them, were they the widest, the rest fits
            widest = max(item.width for item in busy)
            assert self.held.excess * widest >= load - self.room > (self.held.excess - 1) * widest

    @invariant()
    def what_was_made_here_is_known(self) -> None:
        for run, place, attempt in itertools.product(RUNS, range(8), range(1, 4)):
            key = Key(run, place)
            known = (key, attempt) in self.doubtful and key not in self.calls
            assert self.held.done_before(run, call(place, attempt=attempt)) == known
            assert self.held.doubtful or not known


TestHeldMachine = HeldMachine.TestCase


@pytest.fixture
def held() -> Held:
    return Held(4, backfill=False)


def test_a_call_put_back_that_comes_again_before_the_word_of_it_is_another(held: Held) -> None:
    """The broker answers a question at once, and confirms what was published before it later."""
    held.add("first copy", "r", [call(1)])
    left = held.leave("r", [1])
    again = call(1, attempt=2)
    assert [copy.id for copy in held.add("second copy", "r", [again])] == ["first copy"]
    assert held.arrived("r", left) == []
    assert held.call("r", 1) is again, "its report would be dropped"
    assert begin(held, "second copy") == [1]
    assert [copy.id for copy in held.arrived("r", held.leave("r", [1]))] == ["second copy"]
    assert len(held) == 0


def begin(held: Held, message_id: str) -> list[int]:
    """Say that a copy came; return the places of the calls that are to be begun."""
    copy = held.copy(message_id)
    assert copy is not None
    return [each.item.place for each in held.begin(copy)]


def test_a_copy_is_let_go_with_the_last_of_its_calls(held: Held) -> None:
    held.add("copy", "r", [call(1), call(2)])
    assert held.finish("r", [1]) == []
    assert [copy.id for copy in held.finish("r", [2])] == ["copy"]
    assert held.copy("copy") is None


@pytest.mark.parametrize("first", ["one", "other"])
def test_a_call_in_two_copies_is_begun_once_with_the_first_that_comes_and_lets_both_go(
    held: Held, first: str
) -> None:
    held.add("one", "r", [call(1)])
    assert held.add("other", "r", [call(1)]) == []
    assert begin(held, first) == [1]
    assert [begin(held, each) for each in ("one", "other")] == [[], []]
    held.void("one")
    assert held.holding() == {"r": {1: 1}}, "the other copy still stands for it"
    assert [copy.id for copy in held.finish("r", [1])] == ["other"]


def test_what_was_done_before_the_connection_broke_is_not_done_again(held: Held) -> None:
    held.add("copy", "r", [call(1), call(2), call(3)])
    held.never_begun("r", [2])
    held.doubt()
    assert not held.done_before("r", call(1)), "it is still in hand"
    held.finish("r", [1, 2, 3])
    assert held.done_before("r", call(1))
    assert not held.done_before("r", call(1, attempt=2)), "another attempt is due"
    assert not held.done_before("r", call(2)), "it was never begun"
    assert not held.done_before("other", call(1))
    held.forget("r")
    assert not held.done_before("r", call(1))


# -- how many more it wants


def test_without_a_duration_it_wants_what_can_start(held: Held) -> None:
    assert [held.appetite(width, 0.0) for width in range(1, 7)] == [4, 2, 1, 1, 0, 0]
    held.add("copy", "r", [call(1, width=3)])
    assert [held.appetite(width, 0.0) for width in range(1, 5)] == [1, 0, 0, 0]
    twice = Held(4, backfill=True)
    assert [twice.appetite(width, 0.0) for width in range(1, 7)] == [8, 4, 2, 2, 0, 0]


def test_short_calls_are_wanted_ahead_until_they_turn_out_long(held: Held) -> None:
    held.learn(took(AHEAD_SECONDS / 100), 1, now=10.0)
    assert held.appetite(1, 10.0) == pytest.approx(400, abs=1)
    held.add("copy", "r", [call(place) for place in range(4)])
    assert held.appetite(1, 10.0) > 300
    assert held.appetite(1, 10.1 + STALE_SECONDS) == 0, "nothing was heard of what runs"
    held.learn(took(100.0), 1, now=11.0)
    assert held.appetite(1, 11.0) == 0


def test_it_is_asked_for_in_halves(held: Held) -> None:
    held.learn(took(AHEAD_SECONDS / 100), 1, now=10.0)
    held.add("copy", "r", [call(place) for place in range(400)])
    assert held.appetite(1, 10.0) == 0
    held.finish("r", [*range(190)])
    assert held.appetite(1, 10.0) == 0, "not worth a question yet"
    held.finish("r", [*range(190, 202)])
    assert held.appetite(1, 10.0) >= 200


def test_when_short_calls_become_long_others_have_those_that_cannot_begin(held: Held) -> None:
    held.learn(took(AHEAD_SECONDS / 100), 1, now=10.0)
    held.add("copy", "r", [call(place) for place in range(600)])
    assert held.surplus(10.0) == 0, "for so little nothing is moved"
    held.learn(took(AHEAD_SECONDS), 1, now=10.0)
    surplus = held.surplus(10.0)
    assert 580 < surplus <= held.excess, "it keeps what it would fetch, and no less than can start"
    held.finish("r", [*range(600 - surplus, 600)])
    assert held.surplus(10.0) == 0
    assert held.surplus(10.1 + STALE_SECONDS) == held.excess > 0, "nothing is heard of what runs"


@given(
    cores=st.integers(1, 64),
    backfill=st.booleans(),
    mine=st.lists(st.integers(1, 64), max_size=20),
    durations=st.dictionaries(
        st.integers(1, 64), st.floats(-1.0, 1e6) | st.sampled_from([0.0, 1e-9]), max_size=6
    ),
    width=st.integers(1, 80),
    later=st.floats(0.0, 10.0),
)
def test_appetite_is_bounded_and_satisfied_at_once(
    cores: int, backfill: bool, mine: list[int], durations: dict[int, float], width: int, later: float
) -> None:
    held = Held(cores, backfill=backfill)
    for place, each in enumerate(mine):
        held.add(f"m{place}", "r", [call(place, width=each)])
    for each, seconds in durations.items():
        held.learn(took(seconds), each, now=100.0)
    now = 100.0 + later
    room = 2 * cores if backfill else cores
    startable = max(0, room - held.load) // width if width <= cores else 0
    wanted = held.appetite(width, now)
    assert wanted >= startable
    if wanted > startable:
        each = width * max(LEAST_SECONDS, durations[width])
        assert wanted * each <= cores * AHEAD_SECONDS * 1.001, "more than the work of a moment"
    if width not in durations or width > cores:
        assert wanted == startable
    held.add("wanted", "s", [call(place, width=width) for place in range(min(wanted, 5000))])
    if wanted <= 5000:
        assert held.appetite(width, now) == 0, "it would ask for ever more"


def test_a_clock_that_was_set_back_does_no_harm(held: Held) -> None:
    held.learn(took(-5.0), 1, now=0.0)
    assert 0 < held.appetite(1, 0.0) <= 4 * AHEAD_SECONDS / LEAST_SECONDS


def test_reports_of_what_never_started_teach_nothing(held: Held) -> None:
    held.learn([msgspec.structs.replace(took(1.0)[0], started=None, finished=None)], 1, now=1.0)
    assert held.appetite(1, 1.0) == 4
