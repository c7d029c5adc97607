"""Which runs a worker of RabbitMQ takes part in."""

from __future__ import annotations

from transports.rabbitmq.runs import RUN_FORGOTTEN, RUN_IDLE, RUN_KNOWN, Runs


def test_a_run_begins_once_and_is_left_once() -> None:
    runs = Runs(5.0)
    assert [runs.begin("a", 1.0), runs.begin("a", 2.0), runs.begin("b", 2.0)] == [True, False, True]
    assert runs.begun() == ["a", "b"]
    assert [runs.leave("a"), runs.leave("a"), runs.leave("unknown")] == [True, False, False]
    assert runs.begun() == ["b"]
    assert runs.begin("a", 3.0)


def test_a_stopped_run_stays_stopped_however_often_it_comes_again() -> None:
    runs = Runs(5.0)
    assert not runs.stopped("a")
    runs.stop("a", 1.0)
    runs.touch("a", 2.0)
    runs.seen("a", 3.0)
    assert runs.stopped("a")
    assert not runs.unknown("a", 100.0)


def test_whether_a_run_is_over_need_not_be_asked_again_and_again() -> None:
    runs = Runs(5.0)
    assert runs.unknown("a", 0.0)
    runs.seen("a", 0.0)
    assert not runs.unknown("a", RUN_KNOWN)
    assert runs.unknown("a", RUN_KNOWN + 1)
    runs.begin("a", RUN_KNOWN + 1)
    assert not runs.unknown("a", 1000.0)


def test_a_run_whose_dispatcher_is_silent_is_left() -> None:
    runs = Runs(5.0)
    runs.begin("a", 0.0)
    runs.alive("a", 10.0)
    assert runs.idle([], 15.0) == []
    assert runs.idle(["a"], 15.1) == []
    assert runs.idle([], 15.2) == [("a", "its dispatcher is silent for 5 s")]
    assert runs.idle([], 15.3) == []


def test_a_run_without_dispatcher_is_left_when_nothing_of_it_is_here() -> None:
    runs = Runs(5.0)
    runs.begin("a", 0.0)
    assert runs.idle(["a"], 100.0) == []
    assert runs.idle([], 100.0 + RUN_IDLE) == []
    assert runs.idle([], 100.1 + RUN_IDLE) == [("a", "nothing more of it is here")]


def test_a_run_that_was_left_is_forgotten_in_time() -> None:
    runs = Runs(5.0)
    runs.stop("a", 0.0)
    runs.idle([], RUN_FORGOTTEN)
    assert runs.stopped("a")
    runs.idle([], RUN_FORGOTTEN + 0.1)
    assert not runs.stopped("a")
    assert runs.unknown("a", RUN_FORGOTTEN + 0.1)


def test_a_run_that_was_gone_goes_on_by_its_dispatchers_word_and_one_that_was_stopped_never() -> None:
    runs = Runs(5.0)
    for name in ("gone", "stopped first", "stopped then"):
        runs.seen(name, 0.0)
    runs.stop("stopped first", 1.0)
    for name in ("gone", "stopped first", "stopped then"):
        runs.vanish(name, 1.0)
        runs.vanish(name, 1.1)
        assert runs.stopped(name)
    assert runs.told() == ["stopped first"]
    runs.stop("stopped then", 2.0)
    assert runs.told() == ["stopped first", "stopped then"]
    for name in ("gone", "stopped first", "stopped then"):
        runs.alive(name, 3.0)
    assert [runs.stopped(name) for name in ("gone", "stopped first", "stopped then")] == [False, True, True]
    assert runs.unknown("gone", 3.0), "whether it is there is looked for anew"
