"""The contract suite: what every wire must do, whatever it speaks.

    from tests.contract.suite import Contract

    class TestMine(Contract):
        @pytest.fixture
        def wire(self):
            return MyWire()        # a `tests.contract.wires.Wire`

Where a process must die, or a pool must do its work, the real scripts run; all else happens between the
ends themselves, inside the test's process (`tests.contract.ends`).
"""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executor import config
from executor.errors import ConfigError
from executor.messages import PROTOCOL, introduce
from tests.contract.ends import Gathered, Place, StandIn, are_in_order, crowd, task, tasks
from tests.contract.lost import LosingWorkers
from tests.contract.proxy import Proxy, connect
from tests.contract.wires import Wire
from tests.e2e.scripts import Scripts, wait_until
from tests.e2e.scripts import task as record

JOBS = Path(__file__).parents[1] / "e2e" / "jobs.py"

#: Every kind of array without Python objects.
DTYPES = [
    "?", "i1", "u1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", ">i8", "<u8", "<f2", "<f4", "<f8", ">f8",
    "<c8", "<c16", "S5", "<U3", ">U3", "V7", "<M8[ns]", "<M8[D]", "<m8[s]",
    [("a", "<i4"), ("b", "<f8", (2,))],
]  # fmt: skip


@contextmanager
def scripts_in(folder: Path) -> Iterator[Scripts]:
    """The real scripts, in a folder that gets a module ``jobs``; no process may be left at the end."""
    folder.joinpath("jobs.py").write_text(JOBS.read_text(encoding="utf-8"))
    environment = Scripts(folder)
    try:
        yield environment
    finally:
        environment.close()


class Contract(LosingWorkers):
    """The tests; a subclass has a fixture `wire`."""

    pytestmark = pytest.mark.timeout(120)  # with the start of a broker, if it is the first

    @pytest.fixture
    def scripts(self, tmp_path: Path) -> Iterator[Scripts]:
        with scripts_in(tmp_path) as scripts:
            yield scripts

    # -- values

    def test_every_value_comes_back(self, wire: Wire) -> None:
        values: list[Any] = [
            None, True, 0, -1, 2**63, -(2**100), 1.5, float("inf"), "", "naïve ☃", "a\udcffb", b"",
            b"\0\xff" * 99, 1 + 2j, [], [1, [2, [3]]], (1, (2,)), {1, 2}, frozenset("ab"), {},
            {"a": {1: (2, 3)}}, date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            b"x" * 100_000, "y" * 100_000, np.float32(1.5), np.int64(-3),
        ]  # fmt: skip
        for dtype in DTYPES:
            array = np.zeros(24, dtype)
            array.view("V1").reshape(-1)[::3] = b"\1"  # some bits in every element
            if np.dtype(dtype).kind == "U":
                array[:] = "ab☃"
            for shape in ((24,), (4, 6), (2, 3, 4)):
                values += [array.reshape(shape), np.asfortranarray(array.reshape(shape))]
            values += [array[:0], array[:0].reshape(0, 3), array[:1].reshape(()), array[::2]]
        values += [np.arange(20_000.0).reshape(100, 200).T, {"deep": [np.arange(10_000), np.arange(9_999)]}]
        place = Place(wire)
        with place.dispatcher_end() as end, StandIn(place, cores=4):
            results = Gathered(end, [task(value) for value in values]).all()
        for value, result in zip(values, results, strict=True):
            assert result.status == "ok", (value, result)
            assert same(value, result.value), (value, result.value)

    def test_ten_megabytes_come_back(self, wire: Wire) -> None:
        place = Place(wire)
        array = np.random.default_rng(1).random((1250, 1000))
        with place.dispatcher_end() as end, StandIn(place, cores=2):
            results = Gathered(end, [task(array), task(array.T), task(array.tobytes())]).all()
        assert same(array, results[0].value)
        assert same(array.T, results[1].value)
        assert results[2].value == array.tobytes()

    def test_a_frame_too_large_is_that_tasks_error(self, wire: Wire) -> None:
        place = Place(wire, largest=1_000_000)
        with place.dispatcher_end() as end, StandIn(place, work=lambda params: len(params[0])):
            calls = [task(b"x"), task(b"x" * 1_100_000), task(["y" * 50_000] * 22), task(b"x" * 900_000)]
            results = Gathered(end, calls).all()
        assert [result.status for result in results] == ["ok", "error", "error", "ok"]
        for result in results[1:3]:
            assert result.error is not None
            assert result.error.type == "CannotTravel"
            assert re.search(
                r"the call is too large .* 1,1\d\d,\d\d\d bytes, .* 1,000,000", result.error.message
            )

    # -- who gets what

    def test_one_worker_is_given_tasks_in_order(self, wire: Wire) -> None:
        place = Place(wire)
        mixed = [*tasks(300), *tasks(100, resources=2), *tasks(50, resources=4)]
        with place.dispatcher_end() as end, StandIn(place, cores=4) as worker:
            results = Gathered(end, mixed).all()
        assert [result.value for result in results] == [task.params[0] for task in mixed]
        for places in (worker.took, worker.did):
            assert sorted(places) == list(range(len(mixed)))
            assert are_in_order(places) if wire.broker_between else places == sorted(places)

    def test_two_workers_share_and_nothing_runs_twice(self, wire: Wire) -> None:
        place = Place(wire, 2)

        def work(params: list[Any]) -> Any:
            time.sleep(0.001)
            return params[0]

        workers: list[StandIn] = []

        def waits(params: list[Any]) -> bool:
            """Until both have calls: on a slow machine one comes late, and the other had done all."""
            return not all(worker.took for worker in workers)

        with place.dispatcher_end() as end, ExitStack() as stack:
            workers += [StandIn(place, index, work=work, waits=waits) for index in range(2)]
            for worker in workers:
                stack.enter_context(worker)
            results = Gathered(end, tasks(400)).all()
        assert [result.value for result in results] == list(range(400))
        assert Counter(workers[0].did + workers[1].did) == Counter(range(400))
        assert all(worker.did for worker in workers)

    def test_fifty_workers_at_once(self, wire: Wire) -> None:
        place = Place(wire, 50)
        with place.dispatcher_end() as end, crowd(place, 50) as workers:
            gathered = Gathered(end, tasks(1000, resources=1))
            results = gathered.all()
            gathered.until(lambda: len(end.workers()) == 50, "fifty workers")
        assert [result.value for result in results] == list(range(1000))
        assert sorted(place for worker in workers for place in worker.did) == list(range(1000))

    def test_a_task_that_is_too_wide_waits_and_can_be_withdrawn(self, wire: Wire) -> None:
        place = Place(wire)
        mixed = [*tasks(5), *tasks(2, resources=9)]
        with place.dispatcher_end() as end, StandIn(place, cores=2):
            gathered = Gathered(end, mixed)
            gathered.until(lambda: len(gathered.results) == 5, "five results")
            assert end.waiting() == {9: 2}
            assert end.withdraw(9) == [5, 6]
            assert end.waiting() == {}

    # -- who is there when

    def test_the_dispatcher_may_come_first(self, wire: Wire) -> None:
        place = Place(wire)
        with place.dispatcher_end() as end:
            gathered = Gathered(end, tasks(10))
            gathered.turn(0.3)
            assert end.workers() == []
            with StandIn(place):
                assert len(gathered.all()) == 10

    def test_the_worker_may_come_first(self, wire: Wire) -> None:
        place = Place(wire)
        with StandIn(place) as worker:
            time.sleep(0.3)  # it looks for a dispatcher that is not there
            with place.dispatcher_end() as end:
                assert len(Gathered(end, tasks(10)).all()) == 10
            wait_until(lambda: worker.left, "the worker knows that the run is over")
            assert worker.left[0].complete, worker.left

    def test_one_dispatcher_after_another(self, wire: Wire) -> None:
        place = Place(wire)
        with StandIn(place) as worker:
            for number in range(3):
                with place.dispatcher_end() as end:
                    gathered = Gathered(end, tasks(30))
                    if number == 1:  # leaves before it is done
                        gathered.until(lambda: gathered.results, "a result")  # noqa: B023 — now
                    else:
                        gathered.all()
        assert len(worker.runs) == len(set(worker.runs)) == 3

    def test_closing_twice_is_harmless(self, wire: Wire) -> None:
        place = Place(wire)
        dispatcher = place.dispatcher_end()
        worker = place.worker_end(introduce("worker", 1))
        worker.pull(0.1)
        for end in (worker, dispatcher, worker, dispatcher):
            end.close()
        with place.dispatcher_end(), place.worker_end(introduce("worker", 1)):
            pass  # and the addresses are free

    # -- broken links

    def test_a_link_that_is_cut_and_healed_costs_nothing(self, wire: Wire) -> None:
        place = Place(wire)
        with Proxy(place.listen[0]) as proxy:
            place.reach = [proxy.address]

            def work(params: list[Any]) -> Any:
                time.sleep(0.02)
                return params[0]

            with place.dispatcher_end() as end, StandIn(place, work=work) as worker:
                gathered = Gathered(end, tasks(40))
                for goal in (5, 20):
                    gathered.until(lambda: len(gathered.results) >= goal, "some results")  # noqa: B023 — now
                    proxy.cut()
                    gathered.turn(0.2)
                    proxy.heal()
                results = gathered.all()
            assert [(result.status, result.attempt) for result in results] == [("ok", 1)] * 40
            assert Counter(worker.did) == Counter(range(40))
            assert len(worker.runs) == 1

    def test_a_link_that_stalls_for_a_moment_costs_nothing(self, wire: Wire) -> None:
        place = Place(wire)
        with Proxy(place.listen[0]) as proxy:
            place.reach = [proxy.address]
            with place.dispatcher_end() as end, StandIn(place) as worker:
                gathered = Gathered(end, tasks(2000))
                gathered.until(lambda: gathered.results, "a result")
                proxy.stall()
                gathered.turn(0.5)
                proxy.heal()
                results = gathered.all()
            assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
            assert Counter(worker.did) == Counter(range(2000))

    @pytest.mark.parametrize("how", ["cut", "stall"])
    def test_a_link_that_is_cut_for_good_moves_the_tasks_elsewhere(self, wire: Wire, how: str) -> None:
        place = Place(wire, 2, heartbeat=0.2, patience=1.0)

        def slow(params: list[Any]) -> Any:
            time.sleep(0.1)
            return params[0]

        def waits(params: list[Any]) -> bool:
            """So that some are left for the other, however late we hear of the first ones."""
            return bool(params[0] >= 10)

        with Proxy(place.listen[0]) as proxy:
            direct = place.reach
            place.reach = [proxy.address, direct[1]] if wire.workers_listen else direct
            other = Place(wire)
            other.listen, other.reach, other._more = (
                place.listen,
                [proxy.address, *place.reach[1:]],
                place._more,
            )
            said: list[str] = []
            with place.dispatcher_end(said.append) as end, StandIn(other, work=slow, waits=waits) as lost:
                gathered = Gathered(end, tasks(20, retries=5))
                gathered.until(lambda: len(gathered.results) >= 2, "some results")
                getattr(proxy, how)()
                with StandIn(place, 1) as saver:
                    results = gathered.all()
                    wait_until(lambda: lost.left, "the worker knows that it lost its dispatcher")
                assert not lost.left[0].complete
                assert [result.value for result in results] == list(range(20))
                assert saver.did
                gathered.until(
                    lambda: any("stand-in-0" in line and "gone" in line for line in said), "it is said"
                )

    # -- those who don't belong

    def test_garbage_from_a_stranger_is_ignored(self, wire: Wire) -> None:
        place = Place(wire)
        said: list[str] = []
        with place.dispatcher_end(said.append) as end, StandIn(place) as worker:
            gathered = Gathered(end, tasks(200))
            gathered.until(lambda: gathered.results, "a result")
            held: list[socket.socket] = []
            for garbage in (
                b"",
                b"GET / HTTP/1.1\r\n\r\n",
                b"\xff" * 100,
                bytes(range(256)) * 300,
                b"\0" * 20,
            ):
                stranger = connect(place.listen[0])
                held.append(stranger)
                try:
                    stranger.sendall(garbage)
                except OSError:
                    continue  # hung up on already
                gathered.turn(0)
            results = gathered.all()
            for stranger in held:
                stranger.close()
            assert {result.status for result in results} == {"ok"}
            heard = worker.said if wire.workers_listen else said
            if wire.says_garbage:
                gathered.until(lambda: any("stranger" in line for line in heard), "a stranger is said")
            assert len(worker.runs) == 1

    def test_frames_of_a_stranger_are_ignored_and_said(self, wire: Wire) -> None:
        place = Place(wire)
        said: list[str] = []
        with place.dispatcher_end(said.append) as end, StandIn(place) as worker:
            gathered = Gathered(end, tasks(50))
            gathered.until(lambda: gathered.results, "a result")
            listener = worker.said if wire.workers_listen else said
            stranger: Any = (
                place.dispatcher_end() if wire.workers_listen else place.worker_end(introduce("stranger", 1))
            )
            peers: set[bytes] = set()
            with stranger:
                for frame in ([b"garbage"], [b""], [b"\xc1" * 99, b"more"], [b"\x92\xa5tasks"], []):
                    sent = False
                    deadline = time.monotonic() + 10
                    while not sent and time.monotonic() < deadline:
                        peers |= {event.peer for event in stranger._link.receive()}
                        sent = any(stranger._link.send(peer, frame or [b"\x90"]) for peer in peers)
                        gathered.turn(0.01)
                    assert sent
                gathered.until(lambda: any("stranger" in line for line in listener), "the stranger is said")
            results = gathered.all()
        assert {result.status for result in results} == {"ok"}
        assert Counter(worker.did) == Counter(range(50))

    def test_another_protocol_version_is_said_on_both_sides(self, wire: Wire) -> None:
        place = Place(wire)
        hello = introduce("future", 1)
        hello.protocol = PROTOCOL + 1
        said: list[str] = []
        with place.dispatcher_end(said.append) as end, StandIn(place, hello=hello) as worker:
            gathered = Gathered(end, tasks(1))
            gathered.until(lambda: said and worker.said, "both have said it")
            gathered.turn(0.3)
            assert not gathered.results
            assert end.workers() == []
        assert len(said) == 1
        assert f"refused worker future on {hello.host}: it speaks protocol {PROTOCOL + 1}" in said[0]
        assert len(worker.said) == 1
        assert f"it speaks protocol {PROTOCOL}, this worker {PROTOCOL + 1}" in worker.said[0]

    # -- settings

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("hartbeat", 1, "hartbeat: unknown key .*did you mean heartbeat"),
            ("heartbeat", "often", "heartbeat: .*a number"),
            ("heartbeat", 0, "heartbeat: must be at least 0.001 seconds"),
            ("patience", 0.1, "patience: must be at least twice the heartbeat"),
            ("largest", 2**40, "largest: "),
            ("keep", {"seconds": -1}, "keep.seconds: "),
            ("keep", {"seconds": "long"}, "keep.seconds: .*a number"),
            ("keep", {"bytes": "much"}, "keep.bytes: must be an integer of bytes, or text such as 2GB"),
            ("keep", 3600, "keep: expected keys and values"),
        ],
    )
    def test_a_wrong_key_is_named(
        self, wire: Wire, tmp_path: Path, key: str, value: object, words: str
    ) -> None:
        file = tmp_path / "wire.yml"
        file.write_text(json.dumps({"transport": wire.transport, key: value}))
        with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: {words}"):
            config.read(str(file))

    # -- the scripts

    def yaml(self, scripts: Scripts, place: Place) -> tuple[Path, list[Path]]:
        """Write the YAML of a dispatcher and of each worker."""
        own = scripts.folder / "dispatcher.yml"
        own.write_text(json.dumps(place.dispatcher()))
        each = []
        for index in range(len(place.reach)):
            each.append(scripts.folder / f"worker-{index}.yml")
            each[-1].write_text(json.dumps(place.worker(index)))
        return own, each

    def test_every_kind_of_end(self, wire: Wire, scripts: Scripts) -> None:
        own, (each, *_) = self.yaml(scripts, Place(wire, largest=1_000_000))
        records = [
            record("jobs.echo", [1, 2], id="ok"),
            record("jobs.fail", "no", id="fails"),
            record("jobs.exit_", 3, id="dies", retries=0),
            record("jobs.hold_the_gil", "gil", id="hangs", timeout=0.3),
            record("jobs.echo", id="wide", resources=64),
            record("jobs.nothing", id="nowhere"),
            record("jobs.unsendable", id="unsendable"),
            record("jobs.echo", "x" * 1_000_100, id="large call"),
            record("jobs.ones", 1000, 1000, id="large result"),
            record("jobs.echo", "last", id="last"),
        ]
        worker = scripts.worker("--yaml", each, "--cores", "2", "--no-pin")
        worker.says("ready on")
        scripts.run(
            "--yaml", own, "--tasks", scripts.tasks(*records), "--output", "results.jsonl", "--wait", "5",
            status=1,
        )  # fmt: skip
        found = scripts.by_id()
        assert {key: result["status"] for key, result in found.items()} == {
            "ok": "ok", "fails": "error", "dies": "crashed", "hangs": "timeout", "wide": "rejected",
            "nowhere": "rejected", "unsendable": "error", "large call": "error", "large result": "error",
            "last": "ok",
        }  # fmt: skip
        assert "the call is too large" in found["large call"]["error"]["message"]
        assert "the result is too large" in found["large result"]["error"]["message"]
        assert "1,000,000" in found["large result"]["error"]["message"]
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def test_a_repeated_attempt_goes_first_in_line(self, wire: Wire, scripts: Scripts) -> None:
        """Before what the worker holds as well, which is much: after such a first call all look tiny."""
        own, (each, *_) = self.yaml(scripts, Place(wire))
        records = [record("jobs.flaky", "marker", id="flaky", retries=1)]
        records += [record("time.sleep", 0.1, id=str(number)) for number in range(20)]
        worker = scripts.worker("--yaml", each, "--cores", "1", "--no-pin")
        scripts.run("--yaml", own, "--tasks", scripts.tasks(*records), "--output", "results.jsonl")
        order = [result["id"] for result in sorted(scripts.results(), key=lambda result: result["started"])]
        assert order.index("flaky") <= 10, "behind what ran when it failed, and more on a busy machine"
        assert scripts.by_id()["flaky"]["attempt"] == 2
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def test_at_the_tail_what_has_not_begun_moves_to_an_idle_worker(
        self, wire: Wire, scripts: Scripts
    ) -> None:
        """One worker is given much that looks tiny and turns out to be long; another comes and idles."""
        place = Place(wire, 2, heartbeat=0.2)
        _, each = self.yaml(scripts, place)
        tiny, long, seconds = 400, 40, 0.25
        calls = [task(number, function="jobs.echo") for number in range(tiny)]
        calls += [task(seconds, function="time.sleep") for _ in range(long)]
        calls += [task(number, function="jobs.echo") for number in range(2 * long)]
        first = scripts.worker("--yaml", each[0], "--cores", "1", "--no-pin", "--name", "first")
        with place.dispatcher_end() as end:
            gathered = Gathered(end, calls)
            gathered.until(lambda: len(gathered.results) >= tiny, "the tiny ones")
            gathered.until(lambda: any(view.held >= 4 for view in end.workers()), "it has a backlog")
            second = scripts.worker("--yaml", each[-1], "--cores", "1", "--no-pin", "--name", "second")
            gathered.until(lambda: len(end.workers()) == 2, "the second worker")
            came = time.time()
            results = gathered.all()[tiny : tiny + long]
        left = sum((result.finished or 0.0) > came for result in results)
        helped = sum(result.worker == "second" for result in results)
        assert left > long / 2, "it came too late to be of help"
        assert helped >= left / 4, "about half of them are the second's"
        assert {result.attempt for result in results} == {1}
        for worker in (first, second):
            worker.send(signal.SIGTERM)
            assert worker.ends() == 0

    def test_the_dispatcher_knows_what_runs_longest_and_where(self, wire: Wire, scripts: Scripts) -> None:
        place = Place(wire, heartbeat=0.2)
        _, (each, *_) = self.yaml(scripts, place)
        worker = scripts.worker("--yaml", each, "--cores", "2", "--no-pin", "--name", "the-one")
        calls = [task("short", function="jobs.echo"), task("long", function="jobs.hold")]
        calls.append(task("later", function="jobs.hold"))

        def longest() -> dict[int, float]:
            return {
                at: seconds
                for view in end.workers()
                for at, seconds in view.longest
                if view.name == "the-one"
            }

        with place.dispatcher_end() as end:
            gathered = Gathered(end, calls)
            gathered.until(lambda: 1 in longest(), "it names what runs")
            gathered.until(lambda: 2 in longest() and not end.waiting(), "the other one, too, and none waits")
            before = longest()[1]
            gathered.until(lambda: longest().get(1, 0) > before + 0.5, "it runs on")
            assert 0 not in longest()
            (scripts.folder / "long.go").touch()
            gathered.until(lambda: 1 in gathered.results, "its end")
            gathered.until(lambda: set(longest()) == {2}, "that it runs no more")
            (scripts.folder / "later.go").touch()
            gathered.all()
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def test_a_worker_that_is_killed_and_then_a_dispatcher(self, wire: Wire, scripts: Scripts) -> None:
        own, each = self.yaml(scripts, Place(wire, 2, heartbeat=0.3, patience=1.5))
        first = scripts.worker("--yaml", each[0], "--cores", "1", "--name", "first")
        held = [record("jobs.hold_once", f"held-{number}", id=f"{number}") for number in range(4)]
        dispatcher = scripts.dispatcher(
            "--yaml", own, "--tasks", scripts.tasks(*held), "--output", "results.jsonl", "--quiet"
        )
        wait_until((scripts.folder / "held-0.runs").exists)
        second = scripts.worker("--yaml", each[-1], "--cores", "1", "--name", "second")
        first.kill()
        for number in range(1, 4):
            (scripts.folder / f"held-{number}.go").touch()
        assert dispatcher.ends() == 0, dispatcher.log()
        found = scripts.by_id()
        assert {key: result["status"] for key, result in found.items()} == dict.fromkeys("0123", "ok")
        assert {result["worker"] for result in found.values()} == {"second"}
        assert (found["0"]["attempt"], found["3"]["attempt"]) == (2, 1)

        doomed = scripts.dispatcher("--yaml", own, "--tasks", scripts.tasks(record("jobs.hold", "stays")))
        wait_until((scripts.folder / "stays.runs").exists)
        doomed.kill()
        (scripts.folder / "stays.go").touch()
        second.says("is left")
        scripts.run(
            "--yaml", own, "--tasks", scripts.tasks(record("jobs.echo", 1)), "--output", "after.jsonl"
        )
        assert [result["worker"] for result in scripts.results("after.jsonl")] == ["second"]
        second.send(signal.SIGTERM)
        assert second.ends() == 0

    def test_ctrl_c_cancels_what_runs_and_frees_the_cores(self, wire: Wire, scripts: Scripts) -> None:
        own, (each, *_) = self.yaml(scripts, Place(wire))
        worker = scripts.worker("--yaml", each, "--cores", "2", "--no-pin")
        held = [record("jobs.hold", f"held-{number}", id=str(number)) for number in range(20)]
        dispatcher = scripts.dispatcher(
            "--yaml", own, "--tasks", scripts.tasks(*held), "--output", "results.jsonl"
        )
        wait_until(lambda: len(list(scripts.folder.glob("held-*.runs"))) == 2)
        dispatcher.send(signal.SIGINT)
        assert dispatcher.ends() == 130
        found = scripts.by_id()
        begun = {path.stem.removeprefix("held-") for path in scripts.folder.glob("held-*.runs")}
        assert {key: result["status"] for key, result in found.items()} == dict.fromkeys(begun, "cancelled")
        assert wire.broker_between or begun == {"0", "1"}
        assert all(len(result["cores"]) == 1 for result in found.values())
        wide = record("jobs.echo", "next", resources=2, id="wide")  # needs both cores
        scripts.run(
            "--yaml", own, "--tasks", scripts.tasks(wide, name="next.jsonl"), "--output", "next-results.jsonl"
        )
        assert [result["value"] for result in scripts.results("next-results.jsonl")] == ["next"]
        assert len(list(scripts.folder.glob("held-*.runs"))) == 2  # nobody runs the rest
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def test_a_worker_that_drains_while_its_link_is_cut_sends_what_it_ran(
        self, wire: Wire, scripts: Scripts
    ) -> None:
        place = Place(wire)
        with Proxy(place.listen[0]) as proxy:
            place.reach = [proxy.address]
            own, (each, *_) = self.yaml(scripts, place)
            worker = scripts.worker("--yaml", each, "--cores", "1", "--no-pin")
            dispatcher = scripts.dispatcher(
                "--yaml",
                own,
                "--tasks",
                scripts.tasks(record("jobs.hold", "held")),
                "--output",
                "results.jsonl",
            )
            wait_until((scripts.folder / "held.runs").exists)
            proxy.cut()
            worker.send(signal.SIGTERM)
            worker.says("draining")
            proxy.heal()
            (scripts.folder / "held.go").touch()
            assert worker.ends() == 0
            assert dispatcher.ends() == 0
        assert [(result["status"], result["attempt"]) for result in scripts.results()] == [("ok", 1)]

    def test_what_still_runs_of_a_run_that_is_over_is_killed(self, wire: Wire, scripts: Scripts) -> None:
        """As after a stop that could not be heard: nobody would ever take its result."""
        place = Place(wire)
        _, (each, *_) = self.yaml(scripts, place)
        worker = scripts.worker("--yaml", each, "--cores", "1", "--no-pin")
        with place.dispatcher_end() as end:
            gathered = Gathered(
                end, [task("held", function="jobs.hold"), task("behind", function="jobs.hold")]
            )
            gathered.until((scripts.folder / "held.runs").exists, "it runs")
        worker.says("is over")
        with place.dispatcher_end() as end:
            assert Gathered(end, [task("next", function="jobs.echo")]).all()[0].value == "next"
        assert not (scripts.folder / "behind.runs").exists()
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0

    def test_workers_of_its_own(self, wire: Wire, scripts: Scripts) -> None:
        own, _ = self.yaml(scripts, Place(wire))
        scripts.run(
            "--yaml", own, "--workers", "2", "--cores", "1", "--output", "results.jsonl",
            "--tasks", scripts.tasks(*(record("jobs.meet", 2, id=str(number)) for number in range(2))),
        )  # fmt: skip
        assert {result["worker"] for result in scripts.results()} == {"local-1", "local-2"}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in type and content, arrays bit for bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
            and (one.flags.f_contiguous == other.flags.f_contiguous or not one.flags.forc)
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
