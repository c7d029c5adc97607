from __future__ import annotations

import msgspec
import pytest

from executor.messages import (
    NIL,
    PROTOCOL,
    Beat,
    Cancel,
    Hello,
    Holding,
    Item,
    Leaving,
    Message,
    Over,
    Recall,
    Recorded,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Tasks,
    Unknown,
    Welcome,
    decode,
    encode,
    introduce,
)
from executor.packed import pack
from executor.session import GREETING_SECONDS, Begin, Ended, GiveBack, Session, Stop, Take
from executor.unclaimed import REPORT_BYTES, Unclaimed

HEARTBEAT, PATIENCE = 1.0, 5.0
KEPT = 60.0
WELCOME = Welcome(PROTOCOL, "r1", HEARTBEAT, PATIENCE)


class Talk:
    """A session, its owner and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.greeted = 0  # the episode of the latest greeting
        self.holding: Holding = {}
        self.unclaimed = Unclaimed(KEPT, 10**9)
        self.session = Session(introduce("w", 4), lambda: self.holding, self.unclaimed)

    def tick(self, seconds: float = 0.0) -> list[object]:
        self.now += seconds
        return list(self.session.tick(self.now))

    def hear(self, message: Message) -> list[object]:
        if isinstance(message, Welcome) and not message.episode:  # it answers the latest greeting
            message = msgspec.structs.replace(message, episode=self.greeted)
        return list(self.session.hear(message, [], self.now))

    def sent(self) -> list[Message]:
        messages = [decode(encode(*each))[0] for each in self.session.outbox]
        self.session.outbox.clear()
        for message in messages:
            if isinstance(message, Hello):
                self.greeted = message.episode
        return messages

    def greeting(self) -> Hello:
        self.tick()
        (hello,) = self.sent()
        assert isinstance(hello, Hello)
        return hello

    def report(self, *places: int, run: str = "r1") -> None:
        self.session.report(run, pack([report(place) for place in places]))


def report(place: int) -> Report:
    return Report(place, 1, "ok", NIL)


def item(place: int) -> Item:
    return Item(place, 1, 1, None, None, NIL)


def places(messages: list[Message]) -> list[list[int]]:
    return [[each.place for each in m.items] for m in messages if isinstance(m, Reports)]


@pytest.fixture
def talk() -> Talk:
    made = Talk()
    made.session.connected(made.now)
    return made


@pytest.fixture
def welcomed(talk: Talk) -> Talk:
    talk.greeting()
    assert talk.hear(WELCOME) == [Begin("r1")]
    assert talk.sent() == []
    return talk


def test_it_greets_until_it_is_welcomed(talk: Talk) -> None:
    first = talk.greeting()
    assert (first.name, first.cores, first.protocol, first.holding) == ("w", 4, PROTOCOL, {})
    assert talk.session.deadline() == talk.now + GREETING_SECONDS
    talk.tick(GREETING_SECONDS / 2)
    assert talk.sent() == []
    talk.tick(GREETING_SECONDS)
    assert talk.sent() == [first]
    talk.hear(WELCOME)
    talk.tick(GREETING_SECONDS)
    assert talk.sent() == []
    assert talk.session.welcomed


def test_an_answer_to_an_earlier_greeting_is_none(talk: Talk) -> None:
    """What was sent with it is handed out anew when the present greeting is read, which doesn't name it."""
    first = talk.greeting()
    talk.session.lost(talk.now)
    second = talk.greeting()
    assert second.episode > first.episode
    assert talk.hear(msgspec.structs.replace(WELCOME, episode=first.episode)) == []
    assert talk.hear(Tasks("r1", [item(1)])) == []
    assert not talk.session.welcomed
    assert talk.hear(msgspec.structs.replace(WELCOME, episode=second.episode)) == [Begin("r1")]


def test_it_beats_while_welcomed(welcomed: Talk) -> None:
    assert welcomed.session.deadline() == welcomed.now + HEARTBEAT
    welcomed.tick(HEARTBEAT / 2)
    assert welcomed.sent() == []
    welcomed.tick(HEARTBEAT / 2)
    assert welcomed.sent() == [Beat()]
    welcomed.tick()
    assert welcomed.sent() == []


def test_a_beat_tells_what_runs_longest(welcomed: Talk) -> None:
    session, asked = welcomed.session, []

    def running() -> list[Running]:
        asked.append(welcomed.now)
        return [Running("r1", 1, 0.2), Running("r1", 2, 3.5), Running("r1", 3, 40.0)]

    session.tick(welcomed.now + HEARTBEAT / 2, running)
    assert not asked  # once for each beat, and no more often
    session.tick(welcomed.now + HEARTBEAT, running)
    assert welcomed.sent() == [Beat([Running("r1", 3, 40.0), Running("r1", 2, 3.5)])]
    assert len(asked) == 1


def test_orders_of_the_dispatcher_come_through(welcomed: Talk) -> None:
    items = [item(1), item(2)]
    assert welcomed.session.hear(Tasks("r1", items), [b"x"], welcomed.now) == [Take("r1", items, [b"x"])]
    assert welcomed.hear(Recall("r1", 3)) == [GiveBack("r1", 3)]
    assert welcomed.hear(Cancel("r1", [1])) == [Stop("r1", [1])]
    assert welcomed.hear(Cancel("r1")) == [Stop("r1", None)]
    assert welcomed.hear(Beat()) == []


def test_what_belongs_to_another_run_is_ignored(welcomed: Talk) -> None:
    for message in (Tasks("r0", [item(1)]), Recall("r0", 3), Cancel("r0"), Over("r0"), Recorded("r0", 10**9)):
        assert welcomed.hear(message) == []
    welcomed.report(1, run="r0")
    welcomed.session.give_back("r0", [1])
    assert welcomed.sent() == []
    assert welcomed.session.settled


def test_reports_are_kept_until_they_are_recorded(welcomed: Talk) -> None:
    welcomed.report(1, 2)
    welcomed.report(3)
    first, second = welcomed.sent()
    assert isinstance(first, Reports)
    assert isinstance(second, Reports)
    assert first.number < second.number
    welcomed.hear(Recorded("r1", first.number))
    assert not welcomed.session.settled
    welcomed.session.connected(welcomed.now)
    assert welcomed.greeting().holding == {"r1": {3: 1}}
    welcomed.hear(WELCOME)
    assert welcomed.sent() == [second]
    welcomed.hear(Recorded("r1", second.number))
    assert welcomed.session.settled


def test_what_ends_while_the_link_is_broken_is_sent_after_the_welcome(welcomed: Talk) -> None:
    welcomed.holding = {"r1": {4: 1, 5: 2}, "r0": {9: 1}}
    welcomed.session.lost(welcomed.now + 1)
    welcomed.report(1)
    assert welcomed.sent() == []
    welcomed.tick()
    assert welcomed.sent() == []
    welcomed.now += 1
    assert welcomed.greeting().holding == {"r1": {1: 1, 4: 1, 5: 2}, "r0": {9: 1}}
    assert welcomed.hear(WELCOME) == []
    assert places(welcomed.sent()) == [[1]]


def test_a_second_welcome_to_one_greeting_repeats_nothing(welcomed: Talk) -> None:
    welcomed.report(1)
    welcomed.sent()
    assert welcomed.hear(WELCOME) == []
    assert welcomed.sent() == []


def test_a_greeting_that_is_repeated_is_known_by_its_episode(talk: Talk) -> None:
    episodes = [talk.greeting().episode]
    talk.tick(GREETING_SECONDS)
    episodes.append(talk.sent()[0].episode)  # type: ignore[union-attr]
    talk.session.lost(talk.now)
    episodes.append(talk.greeting().episode)
    talk.hear(WELCOME)
    talk.hear(Unknown())
    episodes.append(talk.greeting().episode)
    talk.hear(WELCOME)
    talk.hear(Over("r1"))
    talk.sent()
    episodes.append(talk.greeting().episode)
    assert episodes[0] == episodes[1]
    assert episodes == sorted(episodes)
    assert len(set(episodes)) == 4


def test_sessions_of_one_process_share_no_numbers(welcomed: Talk) -> None:
    """A dispatcher knows a worker by its process: a new session is not to be taken for the earlier one."""
    welcomed.report(1)
    (first,) = welcomed.sent()
    welcomed.session.lost(welcomed.now)
    episode = welcomed.greeting().episode
    other = Talk()
    other.session.connected(other.now)
    assert other.greeting().episode > episode
    other.hear(WELCOME)
    other.report(1)
    (second,) = other.sent()
    assert first.number < second.number  # type: ignore[union-attr]


def test_tasks_that_come_before_the_welcome_are_not_taken(welcomed: Talk) -> None:
    """They were sent before the greeting was read, which does not name them: others get them."""
    welcomed.session.lost(welcomed.now)
    welcomed.greeting()
    assert welcomed.hear(Tasks("r1", [item(1)])) == []
    assert welcomed.hear(Recall("r1", 1)) == []
    assert welcomed.hear(Cancel("r1")) == [Stop("r1", None)]
    welcomed.hear(WELCOME)
    assert welcomed.hear(Tasks("r1", [item(1)])) == [Take("r1", [item(1)], [])]


def test_what_goes_back_after_the_greeting_named_it_is_said_after_the_welcome(welcomed: Talk) -> None:
    welcomed.holding = {"r1": {4: 1, 5: 1}}
    welcomed.session.lost(welcomed.now)
    assert welcomed.greeting().holding == {"r1": {4: 1, 5: 1}}
    welcomed.session.give_back("r1", [5])
    welcomed.holding = {"r1": {4: 1}}
    welcomed.tick(GREETING_SECONDS)  # the same greeting: the dispatcher reads the first of them
    welcomed.sent()
    welcomed.hear(WELCOME)
    assert welcomed.sent() == [Returned("r1", [5])]


def test_what_goes_back_before_the_greeting_is_only_missing_in_it(welcomed: Talk) -> None:
    welcomed.session.lost(welcomed.now)
    welcomed.session.give_back("r1", [5])
    assert welcomed.greeting().holding == {}
    welcomed.hear(WELCOME)
    assert welcomed.sent() == []


def test_a_greeting_names_what_came_just_before_the_link_broke(welcomed: Talk) -> None:
    assert welcomed.hear(Tasks("r1", [item(7)])) == [Take("r1", [item(7)], [])]
    welcomed.session.connected(welcomed.now)
    welcomed.tick()
    assert welcomed.sent() == []  # its owner has not got to it yet
    welcomed.holding = {"r1": {7: 1}}
    assert welcomed.session.deadline() <= welcomed.now
    assert welcomed.greeting().holding == {"r1": {7: 1}}


def test_a_silent_dispatcher_is_left(welcomed: Talk) -> None:
    welcomed.report(1)
    welcomed.tick(PATIENCE)
    assert welcomed.session.run == "r1"
    (ended,) = welcomed.tick(0.001)
    assert isinstance(ended, Ended)
    assert (ended.run, ended.complete) == ("r1", False)
    assert "silent for 5 s" in ended.why
    assert welcomed.session.settled
    assert welcomed.session.run is None
    assert welcomed.greeting().holding == {"r1": {1: 1}}
    assert welcomed.hear(WELCOME) == [Begin("r1")]
    assert places(welcomed.sent()) == [[1]]


@pytest.mark.parametrize("sign", [Beat(), Recorded("r1", 1), None])
def test_any_sign_of_life_counts(welcomed: Talk, sign: Message | None) -> None:
    for _ in range(3):
        welcomed.tick(PATIENCE - 0.1)
        if sign is None:
            welcomed.session.sign(welcomed.now)
        else:
            welcomed.hear(sign)
    assert welcomed.session.run == "r1"


def test_the_patience_ends_while_it_greets_too(welcomed: Talk) -> None:
    welcomed.session.lost(welcomed.now + 60)
    assert welcomed.session.deadline() == welcomed.now + PATIENCE
    (ended,) = welcomed.tick(PATIENCE + 0.001)
    assert isinstance(ended, Ended)


def test_a_run_that_is_over_ends_and_is_answered(welcomed: Talk) -> None:
    (ended,) = welcomed.hear(Over("r1"))
    assert isinstance(ended, Ended)
    assert (ended.run, ended.complete) == ("r1", True)
    welcomed.tick()
    answer, hello = welcomed.sent()
    assert answer == Over("r1")
    assert isinstance(hello, Hello)
    assert welcomed.hear(msgspec.structs.replace(WELCOME, run="r2")) == [Begin("r2")]


def test_another_run_in_the_place_of_the_first_ends_it(welcomed: Talk) -> None:
    welcomed.report(1)
    welcomed.session.connected(welcomed.now)
    welcomed.greeting()
    ended, began = welcomed.hear(msgspec.structs.replace(WELCOME, run="r2"))
    assert isinstance(ended, Ended)
    assert (ended.run, ended.complete) == ("r1", False)
    assert began == Begin("r2")
    assert welcomed.sent() == []
    assert welcomed.session.settled


def test_an_unknown_worker_greets_at_once(welcomed: Talk) -> None:
    welcomed.report(1)
    welcomed.sent()
    welcomed.hear(Unknown())
    assert welcomed.greeting().holding == {"r1": {1: 1}}
    welcomed.hear(WELCOME)
    assert places(welcomed.sent()) == [[1]]


def test_a_refused_worker_keeps_the_reason_and_asks_again_later(talk: Talk) -> None:
    talk.greeting()
    talk.hear(Refused("go away"))
    assert talk.session.refused == "go away"
    talk.tick(1)
    assert talk.sent() == []
    talk.tick(10)
    assert len(talk.sent()) == 1
    talk.hear(WELCOME)
    assert talk.session.refused is None


def test_a_dispatcher_of_another_protocol_is_not_served(talk: Talk) -> None:
    talk.greeting()
    assert talk.hear(msgspec.structs.replace(WELCOME, protocol=PROTOCOL + 1)) == []
    assert f"speaks protocol {PROTOCOL + 1}" in (talk.session.refused or "")
    assert not talk.session.welcomed
    assert talk.session.run is None


def test_a_drain_says_so_and_gives_all_back(welcomed: Talk) -> None:
    assert welcomed.session.drain() == [GiveBack("r1", None)]
    assert welcomed.sent() == [Leaving()]
    assert welcomed.hear(Tasks("r1", [item(1), item(2)])) == []
    assert welcomed.sent() == [Returned("r1", [1, 2])]


def test_a_drained_worker_still_brings_its_results_home(welcomed: Talk) -> None:
    welcomed.session.lost(welcomed.now)
    assert welcomed.session.drain() == [GiveBack("r1", None)]
    welcomed.report(1)
    assert welcomed.greeting().holding == {"r1": {1: 1}}
    welcomed.hear(WELCOME)
    leaving, *rest = welcomed.sent()
    assert leaving == Leaving()
    assert places(rest) == [[1]]


def test_a_drained_worker_without_a_run_greets_nobody(talk: Talk) -> None:
    assert talk.session.drain() == []
    talk.tick()
    assert talk.sent() == []
    assert talk.session.deadline() > talk.now


def test_a_welcome_that_meets_a_drain_is_answered_with_it(talk: Talk) -> None:
    talk.greeting()
    talk.session.drain()
    assert talk.hear(WELCOME) == [Begin("r1")]
    assert talk.sent() == [Leaving()]


# -- runs that are continued

NEXT = Welcome(PROTOCOL, "r2", HEARTBEAT, PATIENCE, ["r0", "r1"])


def left(welcomed: Talk, *, at: int = 1) -> None:
    """The dispatcher of r1 vanishes, which had not recorded one result."""
    welcomed.report(at)
    welcomed.tick(PATIENCE + 0.001)
    welcomed.sent()
    assert welcomed.session.run is None


def test_what_was_left_goes_to_the_run_that_continues_it(welcomed: Talk) -> None:
    left(welcomed)
    welcomed.holding = {"r1": {4: 2}}
    welcomed.tick(GREETING_SECONDS)
    (hello,) = welcomed.sent()
    assert isinstance(hello, Hello)
    assert hello.holding == {"r1": {1: 1, 4: 2}}
    # What has begun of r1 can't be told from what has not: the pool gives back what has not.
    assert welcomed.hear(NEXT) == [Begin("r2", ("r0", "r1")), GiveBack("r1", None)]
    (kept,) = welcomed.sent()
    assert isinstance(kept, Reports)
    assert (kept.run, places([kept])) == ("r1", [[1]])
    welcomed.session.give_back("r1", [])
    welcomed.session.give_back("r1", [5])
    welcomed.report(4)
    back, late = welcomed.sent()
    assert back == Returned("r1", [5])
    assert isinstance(late, Reports)
    assert (late.run, places([late])) == ("r1", [[4]])
    welcomed.hear(Recorded("r2", late.number))
    assert welcomed.session.settled
    assert welcomed.unclaimed.results() == {}


def test_a_run_that_continues_the_present_one_takes_its_place_without_an_end(welcomed: Talk) -> None:
    welcomed.report(1)
    welcomed.session.lost(welcomed.now)
    welcomed.greeting()
    assert welcomed.hear(NEXT) == [Begin("r2", ("r0", "r1"))]
    assert places(welcomed.sent()) == [[1]]
    assert welcomed.hear(Recorded("r1", 10**9)) == []
    assert not welcomed.session.settled  # that was the dispatcher before


def test_what_concerns_the_run_concerns_those_that_it_continues(welcomed: Talk) -> None:
    welcomed.session.lost(welcomed.now)
    welcomed.greeting()
    welcomed.hear(NEXT)
    assert welcomed.hear(Recall("r2", 3)) == [GiveBack("r2", 3)]
    welcomed.holding = {"r1": {4: 1}}
    assert welcomed.hear(Recall("r2", 3)) == [GiveBack("r1", None), GiveBack("r2", 3)]
    assert welcomed.hear(Recall("r1", 3)) == []
    assert welcomed.hear(Cancel("r2")) == [Stop("r0", None), Stop("r1", None), Stop("r2", None)]
    assert welcomed.hear(Cancel("r2", [1])) == [Stop("r2", [1])]
    assert welcomed.session.drain() == [GiveBack(run, None) for run in ("r2", "r0", "r1")]
    (ended,) = welcomed.hear(Over("r2"))
    assert isinstance(ended, Ended)
    assert (ended.run, ended.complete, ended.earlier) == ("r2", True, ("r0", "r1"))
    welcomed.report(4)
    assert welcomed.unclaimed.results() == {}


def test_when_it_is_left_too_all_of_it_is_kept_by_its_own_run(welcomed: Talk) -> None:
    left(welcomed)
    welcomed.greeting()
    welcomed.hear(NEXT)
    welcomed.report(7, run="r2")
    (ended,) = welcomed.tick(PATIENCE + 0.001)
    assert isinstance(ended, Ended)
    assert (ended.run, ended.complete) == ("r2", False)
    assert welcomed.unclaimed.results() == {"r2": 1, "r0": 0, "r1": 1}
    welcomed.sent()
    assert welcomed.greeting().holding == {"r1": {1: 1}, "r2": {7: 1}}
    assert welcomed.hear(msgspec.structs.replace(NEXT, run="r3", earlier=["r1"])) == [Begin("r3", ("r1",))]
    assert places(welcomed.sent()) == [[1]]
    assert welcomed.unclaimed.results() == {"r2": 1, "r0": 0}  # another's


def test_what_the_greeting_named_and_is_no_more_goes_back(welcomed: Talk) -> None:
    left(welcomed)
    welcomed.holding = {"r1": {4: 2, 5: 1}, "r9": {3: 1}}
    assert welcomed.greeting().holding == {"r1": {1: 1, 4: 2, 5: 1}, "r9": {3: 1}}
    welcomed.unclaimed.expire(welcomed.now + KEPT, lambda: welcomed.holding)
    welcomed.holding = {"r1": {4: 1}}
    orders = welcomed.hear(NEXT)
    assert orders == [Begin("r2", ("r0", "r1")), GiveBack("r1", None)]
    assert welcomed.sent() == [Returned("r1", [4, 5, 1])]


def test_it_goes_back_too_where_another_run_is_left_for_it(welcomed: Talk) -> None:
    """The run that is welcomed continues not the present one, but one that was left before."""
    left(welcomed)
    welcomed.holding = {"r1": {4: 1}}
    welcomed.greeting()
    welcomed.hear(msgspec.structs.replace(WELCOME, run="other"))
    welcomed.session.lost(welcomed.now)
    assert welcomed.greeting().holding == {"r1": {1: 1, 4: 1}}
    welcomed.holding = {}
    welcomed.hear(NEXT)
    returned, kept = welcomed.sent()
    assert returned == Returned("r1", [4])
    assert places([kept]) == [[1]]


def test_what_is_claimed_makes_room_for_what_is_left(talk: Talk) -> None:
    talk.unclaimed = Unclaimed(KEPT, REPORT_BYTES * 3 // 2)
    talk.session = Session(introduce("w", 4), lambda: talk.holding, talk.unclaimed)
    talk.session.connected(talk.now)
    talk.greeting()
    talk.hear(WELCOME)
    left(talk)
    talk.greeting()
    talk.hear(msgspec.structs.replace(WELCOME, run="other"))
    talk.report(2, run="other")
    talk.session.lost(talk.now)
    talk.sent()
    talk.greeting()
    talk.hear(NEXT)
    assert places(talk.sent()) == [[1]]
    assert talk.unclaimed.results() == {"other": 1}
    assert not talk.unclaimed.dropped


def test_numbers_of_what_is_inherited_are_new(welcomed: Talk) -> None:
    """For the dispatcher may have recorded higher ones: it would take these for what it knows."""
    left(welcomed)
    welcomed.greeting()
    (lower,) = welcomed.unclaimed.claim("r1")
    welcomed.hear(NEXT)
    welcomed.sent()
    welcomed.report(2, run="r2")
    (higher,) = welcomed.sent()
    assert isinstance(higher, Reports)
    welcomed.hear(Recorded("r2", higher.number))
    welcomed.session.inherit([lower])
    (again,) = welcomed.sent()
    assert isinstance(again, Reports)
    assert again.number > higher.number > lower.number
    assert again.items == lower.reports.reports()


def test_one_that_another_session_follows_gives_what_it_kept(welcomed: Talk) -> None:
    welcomed.hear(NEXT)
    welcomed.report(1)
    welcomed.report(2, run="r2")
    (given,) = welcomed.session.release(["r3", "r2"], welcomed.now)
    assert list(given.reports.attempts()) == [(2, 1)]
    assert welcomed.session.settled
    assert welcomed.session.run is None
    assert welcomed.unclaimed.results() == {"r0": 0, "r1": 1}  # of those it does not continue


def test_a_drained_worker_greets_for_what_it_keeps(welcomed: Talk) -> None:
    left(welcomed)
    welcomed.session.drain()
    assert welcomed.greeting().holding == {"r1": {1: 1}}
    welcomed.hear(NEXT)
    leaving, *rest = welcomed.sent()
    assert leaving == Leaving()
    assert places(rest) == [[1]]
