"""A peer that is known and breaks the protocol is cut off and named; its part goes to others."""

from __future__ import annotations

import msgspec

from executor.messages import (
    NIL,
    Beat,
    Leaving,
    Message,
    Parts,
    Refused,
    Report,
    Reports,
    Running,
    Tasks,
    Welcome,
    decode,
    encode,
    introduce,
)
from executor.packed import pack
from executor.session import Ended
from tests.unit.world import HEARTBEAT, PATIENCE, FakeDispatcher, World, number
from transports.direct.outcasts import Outcasts
from transports.link import Came, Event, Frame

#: Not only bytes that are none of ours: a message that is, but for a bound that it breaks.
BEYOND = encode(Beat([Running("r", 1, float("inf"))]))


def lines(said: list[str], text: str) -> list[str]:
    return [line for line in said if text in line]


def test_a_worker_that_breaks_the_protocol_is_cut_off_and_its_tasks_go_to_others(world: World) -> None:
    dispatcher = world.dispatcher(6)
    mad, good = world.worker("mad", at=dispatcher), world.worker("good", at=dispatcher)
    mad.lazy = good.lazy = True
    world.until(lambda: mad.queue and good.queue)
    for _ in range(3):
        dispatcher.link.put(Frame(mad.cable.peers[0], BEYOND))
    world.turn()
    (line,) = lines(dispatcher.said, "cut off worker mad on ")
    assert "it broke the protocol" in line
    assert "`float` <= " in line
    assert [view.name for view in dispatcher.end.workers()] == ["good"]
    good.lazy = False
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    assert not mad.ran
    assert not lines(dispatcher.said, "stranger")


def test_a_worker_that_was_cut_off_gets_nothing_over_another_connection(world: World) -> None:
    dispatcher = world.dispatcher(4)
    mad = world.worker("mad", at=dispatcher)
    mad.lazy = True
    world.until(lambda: mad.queue)
    dispatcher.link.put(Frame(mad.cable.peers[0], [b"junk"]))
    world.turn()
    mad.cable.cut(noticed=True)
    mad.cable.heal()
    world.turns(3 * PATIENCE)
    assert dispatcher.end.workers() == []
    assert lines(mad.said, "refused by the dispatcher")
    good = world.worker("good", at=dispatcher)
    world.until(dispatcher.done, seconds=PATIENCE)
    assert sum(good.ran.values()) == 4


def test_what_a_worker_had_reported_before_it_was_cut_off_counts(world: World) -> None:
    dispatcher = world.dispatcher(4)
    mad = world.worker("mad", at=dispatcher)
    mad.lazy = True
    world.until(lambda: len(mad.queue) > 1)
    mad.work(2)
    dispatcher.link.put(Frame(mad.cable.peers[0], [b"junk"]))
    world.turn()
    assert len(dispatcher.results) == 2


def test_a_dispatcher_that_breaks_the_protocol_is_cut_off_until_it_connects_anew(world: World) -> None:
    dispatcher = world.dispatcher(6)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) > 1)
    for _ in range(3):
        worker.link.put(Frame(b"dispatcher", BEYOND))
    world.turn()
    (line,) = lines(worker.said, f"cut off the dispatcher of run {dispatcher.run.id}")
    assert "it broke the protocol" in line
    assert worker.count(Ended) == 1
    assert len(worker.queue) == 1  # what ran goes on, what had not begun is dropped
    world.turns(PATIENCE / 2)
    assert not worker.end.connected
    worker.lazy = False
    worker.cable.cut(noticed=True)
    worker.cable.heal()
    world.until(dispatcher.done, seconds=4 * PATIENCE)
    dispatcher.check()


def test_who_sends_without_end_has_a_worker_hear_others_too(world: World) -> None:
    dispatcher = world.dispatcher(4)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    beat, receive, heard = Frame(b"mad", encode(Beat())), worker.link.receive, 0

    def endless() -> list[Event]:
        nonlocal heard
        heard += 1
        assert heard < 10_000, "it hears nobody else"
        return [*receive(), beat]

    worker.link.receive = endless  # type: ignore[method-assign]
    worker.link.ready = lambda: True  # type: ignore[method-assign]
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)


def test_another_dispatcher_of_the_worker_does_not_notice(world: World) -> None:
    dispatcher, other = world.dispatcher(4), FakeDispatcher(world, range(10, 14))
    world.dispatchers.append(other)
    other.push()
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.link.put(Came(b"mad"))
    worker.link.put(Frame(b"mad", [b"junk"]))
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    assert not lines(worker.said, "cut off")


def test_a_worker_of_which_another_said_that_it_leaves_takes_more_when_it_greets_anew(world: World) -> None:
    dispatcher = world.dispatcher(6)
    worker = world.worker("good", at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    as_if = msgspec.structs.replace(worker.end._hello, episode=10**9)
    for message in (as_if, Leaving()):
        dispatcher.link.put(Frame(b"mad", encode(message)))
    world.turn()
    world.turn()
    assert dispatcher.end._roster.peers[as_if.instance].draining
    worker.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert [view.name for view in dispatcher.end.workers()] == ["good"]


def test_a_worker_for_which_another_counted_reports_is_heard_when_it_greets_anew(world: World) -> None:
    """Else all that it reports would be told to be safe, and be nowhere."""
    dispatcher = world.dispatcher(6)
    worker = world.worker("good", at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    as_if = msgspec.structs.replace(worker.end._hello, episode=10**9)
    for message in (as_if, Reports(dispatcher.run.id, 10**9, [])):
        dispatcher.link.put(Frame(b"mad", encode(message)))
    world.turn()
    world.turn()
    assert dispatcher.end._roster.peers[as_if.instance].recorded == 10**9
    worker.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()


def test_who_greeted_as_nobody_can_say_that_a_worker_leaves(world: World) -> None:
    dispatcher = world.dispatcher(6)
    worker = world.worker("good", at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    dispatcher.link.put(Frame(b"mad", encode(Leaving())))
    world.turn()
    assert [view.name for view in dispatcher.end.workers()] == ["good"]
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)


def test_who_drains_says_so_when_it_greets(world: World) -> None:
    """So nothing is sent to it that it would only return, by a dispatcher that it is new to either."""
    dispatcher = world.dispatcher(6)
    worker = world.worker("leaving", at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.drain()
    dispatcher.die()
    resumed = world.resume(dispatcher)
    sent: list[Message] = []
    send = resumed.link.send

    def listened(peer: bytes, parts: Parts) -> bool:
        sent.append(decode(parts)[0])
        return send(peer, parts)

    resumed.link.send = listened  # type: ignore[method-assign]
    worker.cable.plug(resumed.link, worker.link)
    world.turns(PATIENCE)
    kinds = {type(message) for message in sent}
    assert Welcome in kinds
    assert Tasks not in kinds
    worker.lazy = False
    world.until(lambda: resumed.results, seconds=1)


def test_a_worker_reports_only_what_it_was_given(world: World) -> None:
    """Neither what waits, nor what another has; it is named, once."""
    dispatcher = world.dispatcher(40)
    mad, good = world.worker("mad", at=dispatcher), world.worker("good", at=dispatcher)
    mad.lazy = good.lazy = True
    world.until(lambda: mad.queue and good.queue)
    waits = 39
    assert waits not in {number(item) for _, item in (*mad.queue, *good.queue)}
    for place in (waits, good.next()):
        mad.end.reply(dispatcher.run.id, pack([Report(place, 1, "ok", msgspec.Raw(b"\xff"))]))
        error = ("TooWide", "it says so", "")
        mad.end.reply(dispatcher.run.id, pack([Report(place, 0, "rejected", NIL, error=error)]))
    world.turns(0.1)
    (line,) = lines(dispatcher.said, "ignored 1 report of worker mad on ")
    assert "it never had the tasks" in line
    assert not dispatcher.results
    dispatcher.said.clear()
    mad.lazy = good.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert all(result.value != -1 for result in dispatcher.results)


def test_what_a_worker_had_is_its_to_report_though_another_has_it_now(world: World) -> None:
    dispatcher = world.dispatcher(4)
    slow, other = world.worker("slow", at=dispatcher), world.worker("other", cores=8)
    slow.lazy = other.lazy = True
    world.until(lambda: len(slow.queue) > 1)
    had = slow.next()
    slow.asleep = True  # longer than its patience
    other.cable.join(dispatcher.link, other.link)
    world.until(lambda: had in {number(item) for _, item in other.queue}, seconds=3 * PATIENCE)
    slow.asleep = False
    slow.work(1)
    world.until(lambda: dispatcher.results, seconds=PATIENCE)
    slow.lazy = other.lazy = False
    world.until(dispatcher.done, seconds=PATIENCE)
    dispatcher.check()


def test_a_greeting_takes_nothing_that_its_worker_was_never_given(world: World) -> None:
    """Else one that says that it has all of a run, and sends nothing, would hold all of it for ever."""
    dispatcher = world.dispatcher(6)
    good = world.worker("good", at=dispatcher)
    good.lazy = True
    world.until(lambda: good.queue)
    all_of_it = {dispatcher.run.id: dict.fromkeys(range(6), 1)}
    dispatcher.link.put(
        Frame(b"mad", encode(msgspec.structs.replace(introduce("mad", 1), holding=all_of_it)))
    )
    dispatcher.end.paused = True
    world.turn()
    world.turn()
    assert {view.name: view.held for view in dispatcher.end.workers()} == {"good": len(good.queue), "mad": 0}


def test_one_connection_is_one_worker(world: World) -> None:
    dispatcher = world.dispatcher(6)
    mad = world.worker("mad", at=dispatcher)
    mad.lazy = True
    world.until(lambda: mad.queue)
    dispatcher.link.put(Frame(mad.cable.peers[0], encode(introduce("another", 99))))
    world.turn()
    assert lines(dispatcher.said, "cut off worker mad on ")
    assert dispatcher.end.workers() == []
    world.worker("good", at=dispatcher)
    world.until(dispatcher.done, seconds=PATIENCE)
    dispatcher.check()


def test_no_more_workers_are_known_than_may_be(world: World, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("transports.direct.roster.MOST_PEERS", 2)
    dispatcher = world.dispatcher(2)
    for n in range(5):
        dispatcher.link.put(Frame(b"p%d" % n, encode(introduce(f"w{n}", 1))))
    world.turns(0.2)
    assert [view.name for view in dispatcher.end.workers()] == ["w0", "w1"]


def test_of_those_that_broke_the_protocol_no_more_is_kept_than_may_be() -> None:
    said: list[str] = []
    outcasts = Outcasts(said.append, most=3)
    for n in range(10):
        outcasts.add(b"%d" % n)
        outcasts.complain(b"%d" % n, f"line {n}")
        outcasts.complain(b"%d" % n, f"line {n}")
    assert [n for n in range(10) if b"%d" % n in outcasts] == [7, 8, 9]
    assert said == ["line 0", "line 1", "line 2"]


def test_who_was_cut_off_is_told_why(world: World) -> None:
    dispatcher = world.dispatcher(4)
    mad = world.worker("mad", at=dispatcher)
    mad.lazy = True
    world.until(lambda: mad.queue)
    mad.cable.slow = True  # what is sent waits, and can be looked at
    dispatcher.link.put(Frame(mad.cable.peers[0], [b"junk"]))
    world.turn()
    told = [decode(parts)[0] for end, parts in mad.cable.transit if end == 1]
    assert any(isinstance(each, Refused) and "broke the protocol" in each.reason for each in told)


def test_tasks_that_overtake_a_welcome_are_handed_out_anew(world: World) -> None:
    dispatcher = world.dispatcher(4)
    send, refused = dispatcher.link.send, list[bytes]()

    def full_at_first(peer: bytes, parts: Parts) -> bool:
        if not refused and isinstance(decode(parts)[0], Welcome):
            refused.append(peer)
            return False
        return send(peer, parts)

    dispatcher.link.send = full_at_first
    world.turns(0.95 * HEARTBEAT)  # a beat goes out next, and shows that the worker can be reached
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done, seconds=PATIENCE)
    assert refused
    assert sum(worker.ran.values()) == 4
