"""Runs that RabbitMQ keeps while no dispatcher is there: left, collected, gone on with by another."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.contract.proxy import Proxy
from tests.contract.runs import NAME, Runs, echoes, holds, one_line
from tests.contract.wires import RabbitMQ, free_addresses
from tests.e2e.scripts import ROOT, Script, Scripts, wait_until
from tests.e2e.scripts import task as record

# -- to leave a run, and to collect it


def test_a_run_is_left_before_any_worker_is_there_and_collected_elsewhere(runs: Runs, tmp_path: Path) -> None:
    many = [
        *echoes(2500),
        record("jobs.ones", 40, 50, id="array", resources=2),
        record("jobs.values", id="values"),
    ]
    left = runs.detach(*many)
    assert left.stdout == f"{NAME}\n"
    assert f"2,502 tasks of run {NAME} now at" in left.stderr
    assert f"--collect {NAME} --output FILE" in left.stderr
    assert runs.waiting("2") == 1
    assert runs.results() == 0

    worker = runs.worker(2)
    away, home = tmp_path / "away", tmp_path / "home"
    away.mkdir(), home.mkdir()
    runs.run(
        "--collect", NAME, "--output", "here.jsonl", "--quiet",
        folder=away, environment={"HOME": str(home), "XDG_RUNTIME_DIR": str(home)},
    )  # fmt: skip
    found = runs.scripts.by_id("away/here.jsonl")
    assert {key for key, result in found.items() if result["status"] != "ok"} == set()
    assert [found[str(number)]["value"] for number in range(2500)] == list(range(2500))
    assert (np.load(away / found["array"]["value"]["$npy"]) == np.arange(2000.0).reshape(40, 50)).all()
    assert found["values"]["value"]["big"] == 2**100
    assert found["values"]["submitted"] <= found["values"]["started"]
    runs.nothing_is_left()
    assert "no run of that name" in one_line(runs.collect(output="again.jsonl", status=2))
    runs.drain(worker)


def test_a_run_is_done_while_no_dispatcher_is_there(runs: Runs) -> None:
    worker = runs.worker()
    runs.detach(
        *echoes(3), record("jobs.flaky", "flaky", id="flaky", retries=1), record("jobs.fail", id="fails")
    )
    wait_until(lambda: runs.results() == 5, "all reports lie in the broker")
    runs.drain(worker)
    collected = runs.collect(status=1)
    found = runs.scripts.by_id()
    assert {key: (result["status"], result["attempt"]) for key, result in found.items()} == {
        "0": ("ok", 1), "1": ("ok", 1), "2": ("ok", 1), "flaky": ("ok", 2), "fails": ("error", 1),
    }  # fmt: skip
    assert "5 of 5 tasks done: 4 ok, 1 error" in collected.stdout
    runs.nothing_is_left()


def test_the_runs_own_retries_and_timeout_go_with_it(runs: Runs) -> None:
    some = [record("jobs.flaky", "flaky", id="flaky", timeout=60), record("time.sleep", 60, id="long")]
    runs.run(
        "--tasks", runs.scripts.tasks(*some), "--detach", "--run", NAME, "--retries", "1", "--timeout", "0.3"
    )
    runs.worker(2)
    runs.collect(status=1)
    found = runs.scripts.by_id()
    assert (found["flaky"]["status"], found["flaky"]["attempt"]) == ("ok", 2)
    assert found["long"]["status"] == "timeout"


def test_without_a_name_one_is_made(runs: Runs) -> None:
    names = []
    for _ in range(2):
        names.append(runs.run("--tasks", runs.scripts.tasks(*echoes(1)), "--detach").stdout)
        assert re.fullmatch(r"run-\d{8}-\d{6}-[0-9a-f]{6}\n", names[-1])
    assert len(set(names)) == 2
    for name in names:
        runs.run("--cancel", name.strip())


def test_a_name_in_use_is_refused(runs: Runs) -> None:
    runs.detach(*echoes(3))
    line = one_line(runs.detach(*echoes(5), status=2))
    assert f"--run {NAME}: there is a run of that name; collect it (--collect {NAME})" in line
    runs.worker()
    runs.collect()
    assert sorted(runs.recorded("results.jsonl")) == ["0", "1", "2"]
    runs.detach(*echoes(1))  # now it is free again
    runs.collect(output="again.jsonl")


def test_of_two_that_take_a_name_at_once_one_gets_it(runs: Runs) -> None:
    both = [
        runs.dispatcher(
            "--tasks", runs.scripts.tasks(*echoes(count), name=f"{count}.jsonl"), "--detach", "--run", NAME
        )
        for count in (3000, 4000)
    ]
    ends = [script.ends() for script in both]
    assert sorted(ends) == [0, 2], [script.log() for script in both]
    runs.worker(2)
    runs.collect("--quiet")
    assert len(runs.scripts.by_id()) == (3000 if ends[0] == 0 else 4000)


@pytest.mark.parametrize("name", ["", "two words", ".hidden", "a/b", "n" * 101, "nàme"])
def test_a_name_that_is_none_is_refused(runs: Runs, name: str) -> None:
    assert "a run's name has letters, digits" in one_line(runs.detach(*echoes(1), name=name, status=2))
    assert "a run's name has letters, digits" in one_line(runs.run("--collect", name, status=2))


@pytest.mark.parametrize("option", [["--detach"], ["--collect", NAME], ["--cancel", NAME]])
@pytest.mark.parametrize("yaml", ["", "zmq.yml", "grpc.yml", "rpyc.yml"])
def test_a_wire_without_a_broker_keeps_no_run(scripts: Scripts, yaml: str, option: list[str]) -> None:
    wire = ["--yaml", str(ROOT / yaml)] if yaml else []
    line = one_line(scripts.run(*wire, *option, status=2))
    assert "a run can't be left on transport" in line
    assert "--yaml rabbitmq.yml" in line


def test_a_run_that_was_never_pushed_is_said_to_be(runs: Runs) -> None:
    for option in ("--collect", "--cancel"):
        line = one_line(runs.run(option, NAME, status=2))
        assert f"{option} {NAME}: there is no run of that name at amqp://127.0.0.1" in line


@pytest.mark.parametrize("option", [["--detach"], ["--collect", NAME], ["--cancel", NAME]])
def test_a_broker_that_does_not_answer_is_waited_for_so_long(runs: Runs, option: list[str]) -> None:
    (free,) = free_addresses(1)
    ended = runs.run(*option, "--wait", "1", "--address", f"amqp://{free}", status=3)
    assert "could not be reached within 1 s" in ended.stderr.splitlines()[-1]
    assert ended.stdout == ""


def test_collect_waits_for_results_no_longer_than_it_was_told(runs: Runs) -> None:
    runs.detach(*holds(2))
    ended = runs.collect("--wait", "1", output="none.jsonl", status=3)
    assert f"no result of run {NAME} came within 1 s" in ended.stderr
    assert f"run {NAME} stays with the broker; --collect {NAME} gathers the other 2 results" in ended.stderr
    worker = runs.worker(2)
    runs.runs("held-0").touch()
    wait_until(lambda: runs.results() == 1, "its report lies in the broker")
    runs.collect("--wait", "2", output="one.jsonl", status=3)
    assert runs.recorded("one.jsonl") == ["0"]
    runs.runs("held-1").touch()
    ended = runs.collect("--wait", "30", output="other.jsonl")
    assert f"of run {NAME}, 1 result collected before, 1 to come" in ended.stderr
    assert runs.recorded("other.jsonl") == ["1"]
    runs.nothing_is_left()
    runs.drain(worker)


def test_what_is_too_large_for_the_wire_is_an_error_and_what_is_large_is_not(
    scripts: Scripts, rabbitmq_url: str
) -> None:
    runs = Runs(scripts, RabbitMQ(rabbitmq_url), largest=3_000_000)
    runs.detach(
        *echoes(2),
        record("jobs.echo", "x" * 2_500_000, id="large"),
        record("jobs.echo", "y" * 3_500_000, id="too large"),
    )
    assert runs.results() == 1, "it was reported when it was pushed"
    runs.worker()
    runs.collect(status=1)
    found = runs.scripts.by_id()
    assert {key: result["status"] for key, result in found.items()} == {
        "0": "ok", "1": "ok", "large": "ok", "too large": "error",
    }  # fmt: skip
    assert found["large"]["value"] == found["large"]["params"][0] == "x" * 2_500_000
    assert found["too large"]["params"] == ["y" * 3_500_000]
    assert found["too large"]["attempt"] == 0
    assert "the call is too large" in found["too large"]["error"]["message"]


def pushing_through(runs: Runs, proxy: Proxy) -> Script:
    """Begin to leave a run, and stall in the middle of the push."""
    runs.place.listen = runs.place.reach = [proxy.address]
    proxy.latency = 0.1  # or on a busy machine the push is over before it is stalled
    tasks = runs.scripts.tasks(*echoes(50_000))
    yaml = runs.write("proxy.yml")
    pushing = runs.scripts.dispatcher("--yaml", yaml, "--tasks", tasks, "--detach", "--run", NAME)
    wait_until(lambda: runs.waiting("1"), "it has begun to push")
    proxy.stall()
    runs.id = runs.find_id()
    return pushing


def pushing_ends_by(runs: Runs, how: signal.Signals) -> Script:
    """Leave a run, and end that in the middle of the push."""
    with Proxy(runs.place.listen[0]) as proxy:
        pushing = pushing_through(runs, proxy)
        pushing.send(how)
        proxy.heal()
        assert pushing.ends() == 128 + how, pushing.log()
    assert pushing.stdout == ""
    return pushing


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_is_interrupted_leaves_nothing(runs: Runs, how: signal.Signals) -> None:
    pushing = pushing_ends_by(runs, how)
    assert f"removing what was pushed of run {NAME}" in pushing.stderr
    runs.nothing_is_left()
    runs.never_again(runs.worker(), 0)


def test_a_second_ctrl_c_ends_a_push_at_once(runs: Runs) -> None:
    with Proxy(runs.place.listen[0]) as proxy:
        pushing = pushing_through(runs, proxy)
        proxy.cut()
        pushing.send(signal.SIGINT)
        pushing.says(f"removing what was pushed of run {NAME}")
        pushing.send(signal.SIGINT)
        assert pushing.ends() == 130, pushing.log()


def test_a_push_that_is_killed_is_said_to_be_and_can_be_cancelled(runs: Runs) -> None:
    pushing_ends_by(runs, signal.SIGKILL)
    wait_until(lambda: runs.waiting(f"claim.{NAME}") is None, "the broker has missed it")
    line = one_line(runs.collect(status=2))
    assert f"run {NAME} was never pushed to its end; --cancel {NAME} removes it" in line
    assert "there is a run of that name" in one_line(runs.detach(*echoes(1), status=2))
    runs.run("--cancel", NAME)
    runs.nothing_is_left()
    runs.never_again(runs.worker(), 0)


# -- collectors that go, and others that come


def test_a_second_collector_is_refused_while_the_first_is_there(runs: Runs) -> None:
    runs.detach(*holds(2))
    runs.worker(2)
    first = runs.collector("first.jsonl")
    runs.runs("held-0").touch()
    wait_until(lambda: runs.recorded("first.jsonl") == ["0"], "a result is collected")
    line = one_line(runs.collect(output="second.jsonl", status=2))
    assert f"run {NAME} is being pushed or collected by another dispatcher" in line
    runs.runs("held-1").touch()
    assert first.ends() == 0
    assert runs.recorded("first.jsonl") == ["0", "1"]
    assert runs.recorded("second.jsonl") == []


def test_of_two_collectors_that_come_at_once_one_collects(runs: Runs) -> None:
    runs.detach(*holds(3))
    runs.worker(3)
    for number in range(3):
        runs.runs(f"held-{number}")
    both = {name: runs.collector(name) for name in ("a.jsonl", "b.jsonl")}
    wait_until(lambda: any(script.ended for script in both.values()), "one is refused")
    for number in range(3):
        (runs.folder / f"held-{number}.go").touch()
    ends = {name: script.ends() for name, script in both.items()}
    assert sorted(ends.values()) == [0, 2]
    assert {name: sorted(runs.recorded(name)) for name in both} == {
        name: ["0", "1", "2"] if status == 0 else [] for name, status in ends.items()
    }


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_a_collector_leaves_the_next_one_collects(runs: Runs, how: signal.Signals) -> None:
    """The union is whole, and nothing is in it twice, however the first ended."""
    runs.detach(*holds(6))
    worker = runs.worker(6)
    files = ["first.jsonl", "second.jsonl", "third.jsonl"]
    for number, output in enumerate(files[:2]):
        collector = runs.collector(output)
        for place in (2 * number, 2 * number + 1):
            runs.runs(f"held-{place}").touch()
        wait_until(lambda: len(runs.recorded(output)) == 2, "two are collected")  # noqa: B023 — now
        if how is signal.SIGKILL:  # without a word: it must have told before
            wait_until(lambda: len(runs.noted()) == 2 * number + 2, "that is noted")  # noqa: B023 — now
        collector.send(how)
        assert collector.ends() == 128 + how
        if how is not signal.SIGKILL:
            assert f"--collect {NAME} gathers the other {4 - 2 * number} results" in collector.stderr
    for place in (4, 5):
        runs.runs(f"held-{place}").touch()
    last = runs.collect(output=files[2])
    assert f"of run {NAME}, 4 results collected before, 2 to come" in last.stderr
    assert [sorted(runs.recorded(output)) for output in files] == [["0", "1"], ["2", "3"], ["4", "5"]]
    runs.nothing_is_left()
    runs.drain(worker)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_next_collector_may_go_on_with_the_same_file(runs: Runs, how: signal.Signals) -> None:
    runs.detach(*holds(4))
    worker = runs.worker(4)
    first = runs.collector("results.jsonl")
    for place in (0, 1):
        runs.runs(f"held-{place}").touch()
    wait_until(lambda: len(runs.recorded("results.jsonl")) == 2, "two are collected")
    first.send(how)  # maybe before the broker knows: then both are delivered once more
    assert first.ends() == 128 + how
    for place in (2, 3):
        runs.runs(f"held-{place}").touch()
    last = runs.collect("--resume", output="results.jsonl")
    assert "results.jsonl: 2 of 4 tasks recorded before, 2 to collect" in last.stderr
    assert f"of run {NAME}, " not in last.stderr  # said once, and not with other numbers
    assert "with those recorded before: 4 of 4 tasks done: 4 ok" in last.stdout
    assert sorted(runs.recorded("results.jsonl")) == ["0", "1", "2", "3"]
    runs.nothing_is_left()
    runs.drain(worker)


def test_a_file_that_has_all_leaves_nothing_to_collect(runs: Runs) -> None:
    runs.detach(*echoes(3))
    worker = runs.worker(1)
    runs.collect(output="results.jsonl")
    runs.detach(*echoes(3))
    done = runs.collect("--resume", output="results.jsonl")
    assert "3 of 3 tasks recorded before, nothing to collect" in done.stderr
    runs.detach(*holds(2))
    runs.runs("held-0").touch()
    wait_until(lambda: runs.results() == 1, "its report lies in the broker")
    first = runs.collect("--wait", "2", output="one.jsonl", status=3)
    assert "gathers the other 1 result, with --resume into the same file" in first.stderr
    runs.runs("held-1").touch()
    done = runs.collect("--resume", output="other.jsonl")
    assert "other.jsonl: 0 of 2 tasks recorded before, 2 to collect" in done.stderr
    assert f"of run {NAME}, 1 result collected before, 1 to come" in done.stderr
    assert sorted(runs.recorded("results.jsonl")) == ["0", "1", "2"]
    runs.nothing_is_left()
    runs.drain(worker)


def test_a_collector_whose_link_is_cut_goes_on(runs: Runs) -> None:
    runs.detach(*holds(4))
    runs.worker(4)
    with Proxy(runs.place.listen[0]) as proxy:
        runs.place.listen = runs.place.reach = [proxy.address]
        collector = runs.scripts.dispatcher(
            "--yaml", runs.write("proxy.yml"), "--collect", NAME, "--output", "results.jsonl"
        )
        for number in range(4):
            runs.runs(f"held-{number}").touch()
            wait_until(lambda: len(runs.recorded("results.jsonl")) == number + 1, "it is collected")  # noqa: B023 — now
            proxy.cut()
            proxy.heal()
        assert collector.ends() == 0, collector.log()
    assert runs.recorded("results.jsonl") == ["0", "1", "2", "3"]
    runs.nothing_is_left()


def test_a_collector_that_hung_finds_that_another_took_over(runs: Runs) -> None:
    runs.detach(*holds(3))
    runs.worker(3)
    first = runs.collector("first.jsonl")
    runs.runs("held-0").touch()
    wait_until(lambda: runs.recorded("first.jsonl") == ["0"], "a result is collected")
    wait_until(lambda: runs.noted() == {0}, "that is noted")
    first.send(signal.SIGSTOP)  # until the broker takes it for dead

    def take_over() -> Script | None:
        script = runs.collector("second.jsonl")
        wait_until(lambda: script.ended or "1 result collected before" in script.stderr, "it is answered")
        return None if script.ended else script

    second = wait_until(take_over, "another may collect")
    runs.runs("held-1").touch()
    wait_until(lambda: runs.recorded("second.jsonl") == ["1"], "it does")
    first.send(signal.SIGCONT)
    assert first.ends() == 2
    assert "pushed or collected by another dispatcher" in first.stderr.splitlines()[-1]
    runs.runs("held-2").touch()
    assert second.ends() == 0
    assert (runs.recorded("first.jsonl"), runs.recorded("second.jsonl")) == (["0"], ["1", "2"])
    runs.nothing_is_left()


# -- with no dispatcher there


def test_a_task_that_kills_its_workers_is_lost_while_no_dispatcher_is_there(runs: Runs) -> None:
    runs.detach(record("jobs.kill_worker", id="assassin"), record("jobs.echo", "alive", id="last"))
    for name in ("first", "second", "third"):
        assert runs.worker(1, "--name", name).ends() == 137
    worker = runs.worker(1, "--name", "fourth")
    wait_until(lambda: runs.results() == 2, "both reports lie in the broker")
    runs.drain(worker)
    runs.collect(status=1)
    found = runs.scripts.by_id()
    assert {key: (result["status"], result["attempt"]) for key, result in found.items()} == {
        "assassin": ("lost", 3), "last": ("ok", 1),
    }  # fmt: skip
    assert found["assassin"]["worker"] == "third"
    assert re.fullmatch(r"its worker third on .* vanished", found["assassin"]["error"]["message"])
