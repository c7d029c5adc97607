"""Links that break, workers that vanish or sleep, and reports that come late."""

from __future__ import annotations

from collections import Counter

import pytest

from executor.messages import Buffer
from executor.packed import pack
from executor.session import Begin, Ended
from tests.unit.world import HEARTBEAT, PATIENCE, FakeDispatcher, FakeWorker, World
from transports.link import Came, Gone


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("swallows", [True, False])
def test_results_survive_a_cut(world: World, noticed: bool, swallows: bool) -> None:
    dispatcher = world.dispatcher(20)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) >= 2)
    worker.cable.cut(noticed=noticed, swallows=swallows)
    worker.work()
    world.turns(1)
    assert not dispatcher.results
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.ran == Counter(range(20))
    assert worker.count(Begin) == 1
    assert {result.attempt for result in dispatcher.results} == {1}


@pytest.mark.parametrize("swallows", [True, False])
@pytest.mark.parametrize("stop", ["halt", "cancel"])
def test_a_worker_that_was_away_as_its_run_was_stopped_is_told_when_it_is_back(
    world: World, stop: str, swallows: bool
) -> None:
    dispatcher = world.dispatcher(20)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) >= 2)
    worker.cable.cut(swallows=swallows)
    getattr(dispatcher.end, stop)()
    world.turns(1)
    assert len(worker.queue) >= 2
    worker.cable.heal()
    left = 1 if stop == "halt" else 0  # what runs finishes, or is cancelled
    world.until(lambda: len(worker.queue) == left)
    world.until(lambda: sum(view.held for view in dispatcher.end.workers()) == left)
    assert [result.status for result in dispatcher.results] == ["cancelled"] * (1 - left)


def test_what_was_recorded_already_is_not_recorded_again(world: World) -> None:
    """The worker did not hear that it was, and sends it again."""
    dispatcher = world.dispatcher(2)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work()
    dispatcher.turn()
    worker.cable.slow = True
    dispatcher.turn()
    worker.cable.cut()
    assert len(dispatcher.results) == 1
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    world.until(lambda: worker.end.settled)
    dispatcher.check()
    assert worker.ran == Counter(range(2))


def test_tasks_that_got_lost_on_the_way_are_handed_out_again(world: World) -> None:
    dispatcher = world.dispatcher(push=False)
    worker = world.worker(at=dispatcher)
    world.turns(1)
    dispatcher.push()
    world.until(lambda: worker.end.connected)
    worker.lazy = True
    world.until(lambda: not dispatcher.link.events)
    worker.cable.slow = True
    worker.work(10)
    world.turns(0.1)
    worker.cable.cut()
    world.turns(0.1)
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert {result.attempt for result in dispatcher.results} == {1}


def test_a_worker_that_stays_away_is_lost_and_its_tasks_go_to_others(world: World) -> None:
    dispatcher = world.dispatcher(6)
    gone = world.worker("gone", at=dispatcher)
    gone.lazy = True
    world.until(lambda: len(gone.queue) == 2)
    gone.cable.cut(swallows=True)
    other = world.worker("other", at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 4, seconds=1)
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert other.ran == Counter(range(6))
    assert [line for line in dispatcher.said if "worker gone on" in line and "held 2" in line]
    assert sorted(result.attempt for result in dispatcher.results) == [1, 1, 1, 1, 2, 2]


def test_a_worker_whose_process_died_is_not_waited_for(world: World) -> None:
    dispatcher = world.dispatcher(6)
    dead = world.worker("dead", at=dispatcher)
    dead.lazy = True
    world.until(lambda: len(dead.queue) == 2)
    dead.asleep = True
    dispatcher.end.worker_died(dead.pid)
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


def test_a_silent_dispatcher_is_left(world: World) -> None:
    dispatcher = world.dispatcher(6)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut(swallows=True)
    world.turns(PATIENCE - 0.5)
    assert worker.end.connected
    world.turns(1)
    assert not worker.end.connected
    ended = [order for order in worker.orders if isinstance(order, Ended)]
    assert [(end.run, end.complete) for end in ended] == [(dispatcher.run.id, False)]
    assert "silent" in ended[0].why


def test_a_dispatcher_that_was_held_up_takes_nobody_for_gone_whom_it_has_not_read_yet(world: World) -> None:
    dispatcher = world.dispatcher(20)
    workers = [world.worker(f"worker-{number}", at=dispatcher) for number in range(5)]
    for worker in workers:
        worker.lazy = True
    world.until(lambda: all(len(worker.queue) >= 2 for worker in workers))
    world.turns(2 * HEARTBEAT)
    dispatcher.asleep = True
    world.turns(PATIENCE)
    dispatcher.asleep = False
    for worker in workers:
        worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert not [line for line in dispatcher.said if "is gone" in line]
    assert {result.attempt for result in dispatcher.results} == {1}


def test_no_result_is_swallowed_when_the_dispatcher_slept(world: World) -> None:
    """Its workers left it and come back to the same run: what they send is new, whatever its number."""
    dispatcher = world.dispatcher(400)
    worker = world.worker(at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 10)
    dispatcher.asleep = True
    world.turns(2 * PATIENCE)
    assert not worker.end.connected
    dispatcher.asleep = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert worker.count(Begin) == 2


def test_a_dispatcher_that_comes_back_by_another_name_goes_on_with_its_run(world: World) -> None:
    """Over a link that names it anew for each connection."""
    dispatcher = world.dispatcher(6)
    worker = world.worker()
    worker.lazy = worker.cable.renames = True
    worker.cable.join(dispatcher.link, worker.link)
    world.until(lambda: len(worker.queue) == 2)
    worker.cable.cut()
    worker.cable.heal()
    world.turns(2 * PATIENCE)
    assert worker.count(Ended) == 0
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    dispatcher.end.close()
    world.turns(1)
    assert worker.count(Ended) == 1


def test_a_repeat_that_got_lost_on_the_way_to_who_failed_is_handed_out_again(world: World) -> None:
    """When it greets, it still answers for the first attempt, as it did not hear that this was recorded."""
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work()
    worker.cable.cut(swallows=True)
    world.turns(0.1)
    assert dispatcher.run.attempt(0) == 2
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    assert worker.ran == Counter({0: 2})


def with_both_attempts(world: World) -> tuple[FakeDispatcher, FakeWorker]:
    """Return a dispatcher of one task, and a worker that slept over one attempt and has the next, too."""
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    sleeper = world.worker("sleeper", at=dispatcher)
    sleeper.lazy = True
    world.until(lambda: sleeper.queue)
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    sleeper.asleep = False
    world.until(lambda: len(sleeper.queue) == 2)
    return dispatcher, sleeper


def test_a_repeat_that_got_lost_on_the_way_to_who_still_runs_an_earlier_one(world: World) -> None:
    dispatcher, sleeper = with_both_attempts(world)
    sleeper.cable.cut(swallows=True)
    _, (_, lost) = sleeper.queue
    assert lost.attempt == 2
    del sleeper.queue[1]
    sleeper.cable.heal()
    sleeper.lazy = False
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


@pytest.mark.parametrize("failed", [True, False])
def test_a_worker_that_slept_comes_back(world: World, failed: bool) -> None:
    """It was given up: what it reports of that time is recorded if it is ok, and stops nothing if not."""
    if failed:
        world.fails = {(0, 1), (1, 1)}
    dispatcher = world.dispatcher(4)
    sleeper = world.worker("sleeper", at=dispatcher)
    sleeper.lazy = True
    world.until(lambda: len(sleeper.queue) == 2)
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    assert "gone" in dispatcher.said[0]
    sleeper.asleep = False
    sleeper.work(2)
    sleeper.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert {result.status for result in dispatcher.results} == {"ok"}


def test_a_late_failure_leaves_the_next_attempt_with_its_worker(world: World) -> None:
    """It has both, and dies: what is lost then is the next attempt, which nobody else has."""
    dispatcher, sleeper = with_both_attempts(world)
    sleeper.work(1)
    world.turns(0.1)
    sleeper.die()
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert [(result.status, result.attempt) for result in dispatcher.results] == [("ok", 3)]


def test_who_was_given_up_and_tells_of_a_failure_takes_nothing_from_the_next_attempt(world: World) -> None:
    """What it had not begun, as it seemed, was handed out uncharged: its attempt is the present one."""
    dispatcher = world.dispatcher(60)
    sleeper = world.worker("sleeper", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 10)
    sleeper.lazy = True
    world.until(lambda: len(sleeper.queue) > 2)
    *_, (_, last) = sleeper.queue
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    other = world.worker("other", cores=sum(dispatcher.end.waiting().values()), at=dispatcher)
    other.lazy = True
    world.until(lambda: any(item.place == last.place for _, item in other.queue))
    third = world.worker("third", at=dispatcher)
    world.fails = {(last.place, 1)}
    sleeper.asleep = False
    world.until(lambda: sleeper.end.connected)
    sleeper.end.reply(dispatcher.run.id, pack([world.outcome(last, [])]))
    world.until(lambda: third.ran)
    sleeper.die()
    other.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_what_was_recorded_while_it_waited_is_not_handed_out(world: World) -> None:
    """A worker that was given up had done it."""
    dispatcher = world.dispatcher(5)
    buffers: list[Buffer] = []
    done = world.outcome(dispatcher.run.item(2)[0], buffers)
    result = dispatcher.run.accept(done, buffers)
    assert result is not None
    dispatcher.results.append(result)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.ran == Counter([0, 1, 3, 4])
    assert dispatcher.end.waiting() == {}
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_greetings_that_were_long_on_their_way_bring_nothing_twice(world: World) -> None:
    """A link that stalled for longer than the patience delivers all at once what was sent meanwhile."""
    dispatcher = world.dispatcher(30)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.slow = True
    world.turns(PATIENCE + 3 * HEARTBEAT)
    assert any("is gone" in line for line in dispatcher.said)
    worker.cable.arrive()
    world.turns(1.0)
    assert len(worker.queue) > 1
    given = Counter((item.place, item.attempt) for _, item in worker.queue)
    assert set(given.values()) == {1}, given
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()


def test_the_link_of_who_is_silent_for_too_long_is_cut(world: World) -> None:
    """It may lead nowhere, though nobody was told. Who comes and never says a word is no other."""
    dispatcher = world.dispatcher(2)
    cut: list[bytes] = []
    dispatcher.link.cut = cut.append  # type: ignore[method-assign]
    worker, dead = world.worker("worker", at=dispatcher), world.worker("dead", at=dispatcher)
    dispatcher.link.put(Came(b"mute"))
    dispatcher.link.put(Came(b"gone"))
    dispatcher.link.put(Gone(b"gone", "it hung up"))
    world.turns(0.5)
    dead.asleep = True
    world.turns(PATIENCE - 1)
    assert cut == []
    world.turns(2.5)
    assert sorted(cut) == sorted([b"mute", dead.cable.peers[0]])
    assert worker.end.connected
