"""What is special to RabbitMQ: its queues, what it refuses, and its connections and itself going away."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from executor.messages import introduce
from executor.session import GiveBack, Order, Take
from tests.contract.conftest import start_rabbitmq
from tests.contract.ends import LIMIT, Gathered, Place, StandIn, are_in_order, task, tasks
from tests.contract.proxy import Proxy
from tests.contract.rabbit import RabbitMQ as Broker
from tests.contract.wires import RabbitMQ, free_addresses
from tests.e2e.scripts import Script, Scripts, wait_until
from tests.e2e.scripts import task as record
from transports.rabbitmq import moving, pushing
from transports.rabbitmq.topology import DELIVERIES

pytestmark = pytest.mark.timeout(120)

#: Have `rabbitmqctl` print rows alone.
PLAIN = ("--quiet", "--no-table-headers")


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that these tests may kill; it takes small messages only, and wants quick acknowledgements."""
    server = start_rabbitmq("consumer_timeout = 5000", "max_message_size = 300000")
    yield server
    server.close()


@pytest.fixture
def wire(rabbitmq_url: str) -> RabbitMQ:
    return RabbitMQ(rabbitmq_url)


@pytest.fixture
def own(broker: Broker) -> RabbitMQ:
    """The wire to the broker that may be killed."""
    return RabbitMQ(broker.url)


def slowly(params: list[Any]) -> Any:
    time.sleep(0.02)
    return params[0]


def yaml(scripts: Scripts, wire: RabbitMQ, **more: Any) -> Path:
    """Write the YAML of both ends."""
    file = scripts.folder / "wire.yml"
    file.write_text(json.dumps(Place(wire, **more).dispatcher()))
    return file


# -- queues


def test_a_durable_quorum_queue_for_each_width_in_use(broker: Broker, own: RabbitMQ) -> None:
    place = Place(own)
    with place.dispatcher_end() as end:
        gathered = Gathered(end, [*tasks(3), *tasks(2, resources=3)])

        def queues() -> dict[str, list[str]]:
            gathered.turn(0)
            said = broker.control("list_queues", *PLAIN, "name", "type", "durable", "messages")
            rows = [line.split("\t") for line in said.splitlines()]
            return {name: more for name, *more in rows if name.startswith(f"{own.queue}.")}

        found = wait_until(lambda: all_pushed(queues(), own.queue), "all is pushed")
        common = {name: tuple(row[:2]) for name, row in found.items() if ".dispatcher." not in name}
        lines = [f"{own.queue}.{width}{more}" for width in (1, 3) for more in ("", ".first", ".alone")]
        results = f"{own.queue}.results.{gathered.run.id}"
        assert common == dict.fromkeys([*lines, results, f"{own.queue}.returned"], ("quorum", "true"))
        with StandIn(place, cores=3) as worker:
            gathered.all()
        assert sorted(worker.did) == [0, 1, 2, 3, 4]


def all_pushed(queues: dict[str, list[str]], queue: str) -> dict[str, list[str]] | None:
    counts = {name: row[2] for name, row in queues.items()}
    return queues if (counts.get(f"{queue}.1"), counts.get(f"{queue}.3")) == ("3", "2") else None


def test_a_worker_takes_no_more_than_it_can_start(broker: Broker, own: RabbitMQ, scripts: Scripts) -> None:
    file = yaml(scripts, own)
    scripts.worker("--yaml", file, "--cores", "2", "--no-pin")
    held = [record("jobs.hold", f"held-{number}") for number in range(20)]
    dispatcher = scripts.dispatcher("--yaml", file, "--tasks", scripts.tasks(*held), "--quiet")
    wait_until(lambda: len(list(scripts.folder.glob("held-*.runs"))) == 2)

    def counts() -> dict[str, tuple[int, int]]:
        said = broker.control("list_queues", *PLAIN, "name", "messages_ready", "messages_unacknowledged")
        rows = [line.split("\t") for line in said.splitlines()]
        return {name.removeprefix(own.queue): (int(ready), int(not_yet)) for name, ready, not_yet in rows}

    def two_are_held() -> bool:
        found = counts()
        held = [row for name, row in found.items() if name.startswith(".held.")]
        return found.get(".1") == (18, 0) and held == [(0, 2)]

    wait_until(two_are_held, "18 wait in line, and a worker holds two")
    for number in range(20):
        (scripts.folder / f"held-{number}.go").touch()
    assert dispatcher.ends() == 0


def test_calls_in_messages_of_their_own_run_once_and_in_order(
    wire: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of such tiny ones a worker fetches hundreds at once."""
    monkeypatch.setattr(pushing, "CALLS_MOST", 1)
    place = Place(wire)
    with place.dispatcher_end() as end, StandIn(place, 0) as one, StandIn(place, 1) as other:
        results = Gathered(end, tasks(1000)).all()
    assert [(result.status, result.attempt) for result in results] == [("ok", 1)] * 1000
    assert sorted(one.did + other.did) == list(range(1000))
    for worker in (one, other):
        assert are_in_order(worker.did)


# -- who may have begun what


def test_the_frame_of_a_killed_worker_charges_only_what_it_may_have_begun(
    wire: RabbitMQ, scripts: Scripts
) -> None:
    file = yaml(scripts, wire, heartbeat=0.3, patience=1.5)
    records = [record("jobs.hold_once", f"held-{number}", id=str(number)) for number in range(600)]
    for number in range(1, 600):  # three calls in a message; all but the first run through
        (scripts.folder / f"held-{number}.go").touch()
    doomed = scripts.worker("--yaml", file, "--cores", "1", "--name", "doomed")
    dispatcher = scripts.dispatcher(
        "--yaml", file, "--tasks", scripts.tasks(*records), "--output", "results.jsonl", "--quiet"
    )
    wait_until((scripts.folder / "held-0.runs").exists)
    doomed.kill()
    scripts.worker("--yaml", file, "--cores", "1", "--name", "saver")
    assert dispatcher.ends() == 0
    found = scripts.by_id()
    assert {result["status"] for result in found.values()} == {"ok"}
    assert {key: result["attempt"] for key, result in found.items()} == {**dict.fromkeys(found, 1), "0": 2}
    assert len(found) == 600


def test_a_dead_letter_is_split_and_nobody_is_charged(wire: RabbitMQ) -> None:
    place = Place(wire)
    with place.dispatcher_end() as end, wire.channel() as channel:
        gathered = Gathered(end, tasks(600))  # three in a message

        gathered.until(lambda: wire.waiting("1") == 200, "all is pushed")
        for _ in range(DELIVERIES + 1):  # somebody takes a message, and lets go of it, again and again
            method, _, _ = channel.basic_get(f"{wire.queue}.1")
            channel.basic_nack(method.delivery_tag, requeue=True)
        wait_until(lambda: wire.waiting("returned") == 1, "the broker has given up")
        with StandIn(place) as worker:
            results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(worker.did) == Counter(range(600))


def test_a_worker_that_drains_begins_nothing_that_was_on_its_way(wire: RabbitMQ) -> None:
    place = Place(wire)
    with place.dispatcher_end() as end:
        gathered = Gathered(end, tasks(60))
        gathered.until(lambda: end.pushed == 60, "all is pushed")
        for count in range(1, 6):  # calls after which it drains, and the next is on its way
            with place.worker_end(introduce(f"draining-{count}", 8)) as worker:
                taken: list[int] = []

                def obey(orders: list[Order]) -> None:
                    for order in orders:
                        if isinstance(order, Take):
                            taken.extend(item.place for item in order.items)  # noqa: B023 — now
                        elif isinstance(order, GiveBack):
                            worker.give_back(order.run, taken)  # noqa: B023 — now

                while len(taken) < count:
                    obey(worker.pull(1.0))
                before = len(taken)
                obey(worker.drain())
                while not worker.settled:
                    obey(worker.pull(0.01))
                assert len(taken) == before, "it took calls while it drained"
        with StandIn(place) as last:
            results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(last.did) == Counter(range(60))


@pytest.mark.parametrize("queue", ["1.first", "1.alone", "held", "orphaned", "returned"])
def test_an_empty_queue_that_somebody_deletes_is_made_anew(wire: RabbitMQ, queue: str) -> None:
    place = Place(wire)
    hello = introduce("worker", 1)
    name = f"{queue}.{hello.instance}" if queue in ("held", "orphaned") else queue
    with place.dispatcher_end() as end, StandIn(place, hello=hello, work=slowly) as worker:
        gathered = Gathered(end, tasks(200))  # each a message of its own, so that none is put back
        for goal in (10, 60, 110):
            gathered.until(lambda: len(gathered.results) >= goal, "some results")  # noqa: B023 — now
            with wire.channel() as channel:
                channel.queue_delete(f"{wire.queue}.{name}")
        results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(worker.did) == Counter(range(200))


def test_a_copy_that_was_lost_with_its_queue_before_it_came_is_published_anew(wire: RabbitMQ) -> None:
    """The calls' originals are acknowledged by then, and the worker counts on calls that never came to it."""
    place = Place(wire)
    hello = introduce("worker", 1)
    taken: list[object] = []
    with place.dispatcher_end() as end, StandIn(place, hello=hello) as worker, wire.channel() as channel:
        held = f"held.{hello.instance}"
        wait_until(lambda: wire.waiting(held) is not None, "the worker's queue is there")
        first = {"x-priority": 10}  # so that what is in it goes there, and not to the worker
        channel.basic_consume(
            f"{wire.queue}.{held}", lambda *each: taken.append(each), arguments=first, consumer_tag="thief"
        )
        gathered = Gathered(end, tasks(5))
        gathered.until(lambda: channel.connection.process_data_events(0) or taken, "a copy")
        gathered.turn(1.0)  # so that its original, too, is gone
        assert not gathered.results
        channel.queue_delete(f"{wire.queue}.{held}")
        results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(worker.did) == Counter(range(5))


def test_a_copy_that_comes_after_it_was_given_up_is_not_lost(
    wire: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is if a link was silent, and the broker kept what it had sent over it for that much longer."""
    monkeypatch.setattr(moving, "LATE", 0.2)
    place, behind = Place(wire, patience=60.0), Place(wire, patience=1.0)  # the one looks for no lost calls
    hello = introduce("worker", 1)
    held, tags = f"{wire.queue}.held.{hello.instance}", list[int]()
    with Proxy(place.listen[0]) as proxy, place.dispatcher_end() as end, wire.channel() as channel:
        behind.reach = [proxy.address]
        with StandIn(behind, hello=hello) as worker:
            wait_until(lambda: wire.waiting(f"orphaned.{hello.instance}") is not None, "its queues are there")
            channel.basic_consume(
                held, lambda _, method, *__: tags.append(method.delivery_tag), arguments={"x-priority": 10}
            )
            gathered = Gathered(end, tasks(1))
            gathered.until(lambda: channel.connection.process_data_events(0) or tags, "a copy")
            gathered.until(lambda: any(view.held for view in end.workers()), "it counts on the copy")
            proxy.cut()
            gathered.until(lambda: any("can't reach" in line for line in worker.said), "it is said")
            proxy.heal()
            gathered.until(lambda: [view.held for view in end.workers()] == [0], "it has given it up")
            channel.basic_nack(tags[0])
            (result,) = gathered.all()
            assert worker.did == [0]
    assert (result.status, result.attempt) == ("ok", 1)


def test_what_came_back_is_found_though_somebody_deleted_the_line(wire: RabbitMQ) -> None:
    """A worker that comes sees no line, and what waits beside it keeps the dispatcher from missing it."""
    place = Place(wire, heartbeat=0.3, patience=1.0)
    hello = introduce("second", 1)
    with place.dispatcher_end() as end:
        gathered = Gathered(end, tasks(1))
        gathered.until(lambda: end.pushed == 1, "it is pushed")
        with place.worker_end(introduce("first", 1)) as first:
            while not any(isinstance(order, Take) for order in first.pull(0.1)):
                gathered.turn(0.0)
            first.drain()
            first.give_back(gathered.run.id, [0])
            while not first.settled:
                first.pull(0.1)
        assert wire.waiting("1.first") == 1
        with wire.channel() as channel:
            channel.queue_delete(f"{wire.queue}.1")
        with StandIn(place, hello=hello):
            wait_until(lambda: wire.waiting(f"orphaned.{hello.instance}") is not None, "it is connected")
            (result,) = gathered.all()
    assert (result.status, result.attempt) == ("ok", 1)


# -- connections


def test_one_link_of_two_is_cut_and_healed(wire: RabbitMQ) -> None:
    place, behind = Place(wire), Place(wire)
    with Proxy(place.listen[0]) as proxy:
        behind.reach = [proxy.address]
        with place.dispatcher_end() as end, ExitStack() as stack:
            workers = [
                stack.enter_context(StandIn(at, n, work=slowly)) for n, at in enumerate((place, behind))
            ]
            gathered = Gathered(end, tasks(120))
            for cut in (10, 40, 70):
                gathered.until(lambda: len(gathered.results) >= cut, "some results")  # noqa: B023 — now
                proxy.cut()
                gathered.turn(0.1)
                proxy.heal()
            results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    did = Counter(workers[0].did + workers[1].did)
    assert set(did) == set(range(120))
    # What was on its way from the line into a worker's hands may be in both when the link breaks.
    assert did.total() <= 120 + 3
    assert workers[1].runs == [gathered.run.id]


def test_a_broker_that_answers_no_more_is_left_and_said(wire: RabbitMQ) -> None:
    place, behind = Place(wire), Place(wire, patience=60.0)  # no heartbeat is missed for a minute
    with Proxy(place.listen[0]) as proxy:
        behind.reach = [proxy.address]
        with place.dispatcher_end() as end, StandIn(behind, work=slowly) as worker:
            gathered = Gathered(end, tasks(60))
            gathered.until(lambda: gathered.results, "a result")
            proxy.stall()
            gathered.until(lambda: any("does not answer" in line for line in worker.said), "it is said")
            proxy.heal()
            results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(worker.did) == Counter(range(60))


def test_a_dispatcher_that_was_held_up_takes_nobody_for_gone_whom_it_has_not_read_yet(
    wire: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, said = Place(wire, patience=1.0), list[str]()
    with place.dispatcher_end(said.append) as end, StandIn(place, work=slowly):
        gathered = Gathered(end, tasks(20))
        gathered.until(end.workers, "the worker is there")
        said.clear()
        time.sleep(1.1)  # nobody turns it
        with monkeypatch.context() as patch:
            patch.setattr(end, "_connection", Unread(end._connection))  # type: ignore[attr-defined]
            gathered.turn(0.0)
        assert not said
        gathered.all()


class Unread:
    """A connection from which all has still to come."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def take(self) -> list[Any]:
        return []


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_broker_ends_and_is_started_again(broker: Broker, own: RabbitMQ, how: str) -> None:
    place = Place(own, patience=60.0)
    said: list[str] = []
    down = threading.Event()

    def waits(params: list[Any]) -> bool:
        """So that some are left to do when it is there again: to end it takes seconds."""
        return bool(params[0] >= 200) and not down.is_set()

    def is_said(said: list[str], text: str) -> bool:
        return any(text in line for line in said)

    with place.dispatcher_end(said.append) as end, ExitStack() as stack:
        workers = [stack.enter_context(StandIn(place, index, work=slowly, waits=waits)) for index in range(2)]
        gathered = Gathered(end, tasks(400))
        gathered.until(lambda: len(gathered.results) >= 50, "some results")
        getattr(broker, how)()
        for some in (said, *(worker.said for worker in workers)):
            gathered.until(lambda some=some: is_said(some, "can't reach RabbitMQ"), "it is said")
        down.set()
        broker.start()
        results = gathered.all(60.0)
        gathered.until(lambda: is_said(said, "reached RabbitMQ again"), "that, too")
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    for worker in workers:
        assert worker.did


@pytest.mark.parametrize(("key", "overdue"), [({"acknowledgement_timeout": 5}, False), ({}, True)])
def test_a_task_outlasts_the_brokers_patience_with_acknowledgements(
    broker: Broker, own: RabbitMQ, scripts: Scripts, key: dict[str, Any], overdue: bool
) -> None:
    """Told of the broker's timeout, a worker renews its hold; not told, it is cut off, and goes on."""
    file = yaml(scripts, own, **key)
    before = broker.log().count("timed out")
    worker = scripts.worker("--yaml", file, "--cores", "1")
    records = [record("jobs.count", "long", 11, id="long"), record("jobs.echo", 1, id="short")]
    scripts.run("--yaml", file, "--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    found = scripts.by_id()
    assert {key: (r["status"], r["attempt"]) for key, r in found.items()} == {
        "long": ("ok", 1), "short": ("ok", 1),
    }  # fmt: skip
    assert found["long"]["value"] == 1, "it was begun again"
    assert (broker.log().count("timed out") > before) == overdue
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


# -- what the broker refuses


def test_a_message_beyond_what_the_broker_takes_is_that_tasks_error(own: RabbitMQ) -> None:
    place = Place(own)
    kilo = b"x" * 1000

    def work(params: list[Any]) -> Any:
        return kilo * params[1]

    # Calls and results that are too large only together come first: they travel in one message.
    sizes = [*[(1, 1)] * 600, *[(60, 60)] * 20, (400, 1), (1, 400), (250, 250), (1, 1)]
    with place.dispatcher_end() as end, StandIn(place, work=work) as worker:
        results = Gathered(end, [task(kilo * call, result) for call, result in sizes]).all()
    failed = {place: result for place, result in enumerate(results) if result.status != "ok"}
    assert sorted(failed) == [620, 621]
    for place_, what in ((620, "call"), (621, "result")):
        error = failed[place_].error
        assert error is not None
        assert error.type == "CannotTravel"
        assert f"the {what} is too large for the wire: 400," in error.message
        assert "the broker's `max_message_size` is 300,000" in error.message
    assert {result.attempt for place, result in enumerate(results) if place != 620} == {1}
    assert [len(result.value) for result in results if result.value is not None] == [
        1000 * size for place, (_, size) in enumerate(sizes) if place not in failed
    ]
    assert 620 not in worker.did


def test_calls_that_are_too_large_only_together_are_put_back(own: RabbitMQ) -> None:
    place = Place(own)
    with place.dispatcher_end() as end:
        gathered = Gathered(end, [task(number, b"x" * 60_000) for number in range(16)])
        gathered.turn(0.3)
        with place.worker_end(introduce("draining", 8)) as worker:
            taken: list[int] = []
            deadline = time.monotonic() + LIMIT
            while len(taken) < 8:
                assert time.monotonic() < deadline
                for order in worker.pull(1.0):
                    if isinstance(order, Take):
                        taken += [item.place for item in order.items]
            worker.drain()
            worker.give_back(gathered.run.id, taken)
            while not worker.settled:
                assert time.monotonic() < deadline
                worker.pull(0.01)
        with StandIn(place) as last:
            results = gathered.all()
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}
    assert Counter(last.did) == Counter(range(16))


def test_a_broker_that_takes_nothing_is_said(broker: Broker, own: RabbitMQ, scripts: Scripts) -> None:
    file = yaml(scripts, own)
    scripts.worker("--yaml", file, "--cores", "1").says("ready on")
    tasks_file = scripts.tasks(record("jobs.echo", 1))
    broker.control("set_disk_free_limit", str(10**15))
    try:
        waits = scripts.dispatcher("--yaml", file, "--tasks", tasks_file, "--quiet")
        stopped = scripts.dispatcher("--yaml", file, "--tasks", tasks_file, "--quiet")
        for dispatcher in (waits, stopped):
            assert "low on disk; waiting until it does" in dispatcher.says("takes no more for now")
        stopped.send(signal.SIGINT)
        assert stopped.ends() == 130
    finally:
        broker.control("set_disk_free_limit", "10MB")
    assert waits.ends() == 0
    waits.says("takes messages again")


@pytest.mark.parametrize("script", ["worker.py", "dispatcher.py"])
@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (
            ("guest:guest@", "guest:se-cret@"),
            2,
            "it does not let the user 'guest' in: check name and password",
        ),
        (("/", "/nowhere"), 2, "the user 'guest' may not use the virtual host 'nowhere': check the url"),
        (None, 3, "can't reach RabbitMQ at amqp://127.0.0.1:"),
    ],
)
def test_a_broker_that_cannot_be_used(
    broker: Broker, scripts: Scripts, script: str, change: tuple[str, str] | None, status: int, says: str
) -> None:
    if change is None:
        url = f"amqp://guest:se-cret@{free_addresses(1)[0]}/"
    elif change[0] == "/":
        url = broker.url.removesuffix("/") + change[1]
    else:
        url = broker.url.replace(*change)
    wait = "2" if change is None else "30"  # who is refused does not wait
    started: Script = scripts.start(script, "--yaml", yaml(scripts, RabbitMQ(url)), "--wait", wait)
    assert started.ends() == status
    assert says in (started.stderr.splitlines()[-1] if status == 2 else started.stderr)
    assert "se-cret" not in started.stderr + started.stdout
    assert "Traceback" not in started.stderr


def test_a_run_is_left_with_a_broker_that_takes_small_messages_only(own: RabbitMQ, scripts: Scripts) -> None:
    file = yaml(scripts, own)
    sizes = [100_000] * 20 + [400_000]
    records = [record("jobs.echo", "x" * size, id=str(number)) for number, size in enumerate(sizes)]
    scripts.run("--yaml", file, "--tasks", scripts.tasks(*records), "--detach", "--run", "large")
    scripts.worker("--yaml", file, "--cores", "1")
    scripts.run("--yaml", file, "--collect", "large", "--output", "results.jsonl", status=1)
    found = scripts.by_id()
    assert [len(found[str(number)]["value"] or "") for number in range(21)] == [*sizes[:20], 0]
    assert "the broker's `max_message_size` is 300,000" in found["20"]["error"]["message"]
