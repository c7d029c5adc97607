"""What is special to the wires where the worker is the server."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executor.errors import ConfigError
from executor.messages import introduce
from tests.contract.ends import Gathered, Place, StandIn, task, tasks
from tests.contract.proxy import Proxy
from tests.contract.suite import same
from tests.contract.wires import WIRES, Wire
from tests.e2e.scripts import Scripts, wait_until
from tests.e2e.scripts import task as record
from transports.link import Came, Frame
from transports.served import address

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=[wire for wire in WIRES if wire.workers_listen], ids=repr)
def wire(request: pytest.FixtureRequest) -> Wire:
    served: Wire = request.param
    return served


def test_several_dispatchers_at_once_never_exceed_the_cores(wire: Wire, scripts: Scripts) -> None:
    place = Place(wire, heartbeat=0.3, patience=1.5)
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps(place.dispatcher() | place.worker()))
    worker = scripts.worker("--yaml", own, "--cores", "2", "--no-pin")
    runs = []
    for run in range(3):
        widths = [1, 1, 1, 1, 1, 1, 2, 2]
        records = [record("time.sleep", 0.1, resources=width, id=f"{n}") for n, width in enumerate(widths)]
        records.append(record("jobs.hold", f"held-{run}", id="held", timeout=60))
        runs.append(
            scripts.dispatcher(
                "--yaml", own, "--tasks", scripts.tasks(*records, name=f"{run}.jsonl"), "--order", "file",
                "--output", f"out-{run}.jsonl",
            )
        )  # fmt: skip
    wait_until(lambda: worker.stderr.count("serving run") == 3, "the worker serves all")
    runs[2].kill()
    for run in range(3):
        (scripts.folder / f"held-{run}.go").touch()
    results = []
    for run in range(2):
        assert runs[run].ends() == 0, runs[run].log()
        found = scripts.by_id(f"out-{run}.jsonl")
        assert len(found) == 9
        assert {(result["status"], result["attempt"]) for result in found.values()} == {("ok", 1)}
        results += found.values()
    for moment in sorted(result["started"] for result in results):
        running = [r for r in results if r["started"] <= moment < r["finished"]]
        assert sum(result["resources"] for result in running) <= 2
    worker.says("is left")
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0


def test_one_hundred_megabytes_each_way_at_once(wire: Wire) -> None:
    """Neither side reads what comes only after all that it has to send."""
    place = Place(wire)
    arrays = [np.full(megabytes * 125_000, 1.5) for megabytes in (100, 40)]
    with place.dispatcher_end() as end, StandIn(place, cores=2):
        results = Gathered(end, [task(array) for array in arrays]).all()
    for array, result in zip(arrays, results, strict=True):
        assert same(array, result.value)
        assert result.attempt == 1


def test_all_that_waits_at_both_ends_goes_at_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than may be read ahead: each end reads between any two of its own messages."""
    monkeypatch.setattr("transports.rpyc_wire.stream._READ_AHEAD_MOST", 12 << 20)
    place = Place(wire, insecure=True)
    frame = [b"x" * (5 << 20)]
    with place.worker_end(introduce("worker", 1)) as worker, place.dispatcher_end() as dispatcher:
        links = dispatcher._link, worker._link
        peers = [meet(link) for link in links]
        for link, peer in zip(links, peers, strict=True):
            for _ in range(20):
                assert link.send(peer, frame)
        came: list[list[Any]] = [[], []]

        def all_came() -> bool:
            for link, some in zip(links, came, strict=True):
                some += frames(link)
            return [len(some) for some in came] == [20, 20]

        wait_until(all_came, "all", 30)
        assert came == [[frame] * 20] * 2


def test_a_peer_that_sends_more_than_is_taken_waits(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames are in one message of its."""
    monkeypatch.setattr("transports.threads.INBOX_MOST", 50)
    place = Place(wire, insecure=True)
    with place.worker_end(introduce("worker", 1)) as worker, place.dispatcher_end() as dispatcher:
        peer, _ = meet(dispatcher._link), meet(worker._link)
        outbox = dispatcher._link._outboxes[peer]
        with outbox._changed:  # so that they go together
            outbox._frames.extend([b"%d" % n] for n in range(5001))
            outbox._changed.notify_all()
        if outbox._wake is not None:
            outbox._wake()
        inbox, came = worker._link._inbox, []
        wait_until(lambda: len(inbox) >= 50, "as many as may be")
        while len(came) <= 5000:
            wait_until(lambda: len(inbox), "more")
            assert len(inbox) <= 51
            came += frames(worker._link)
        assert came == [[b"%d" % n] for n in range(5001)]


def meet(link: Any) -> bytes:
    """Return the peer that comes to a link."""
    events: list[Any] = []
    wait_until(lambda: events.extend(link.receive()) or any(isinstance(e, Came) for e in events), "a peer")
    return next(event.peer for event in events if isinstance(event, Came))


def frames(link: Any) -> list[Any]:
    """Return the frames that have come."""
    return [list(map(bytes, event.parts)) for event in link.receive() if isinstance(event, Frame)]


def test_a_second_worker_on_the_port_is_refused_in_one_line(wire: Wire, scripts: Scripts) -> None:
    place = Place(wire)
    with place.worker_end(introduce("first", 1)):
        own = scripts.folder / "wire.yml"
        own.write_text(json.dumps(place.worker()))
        second = scripts.worker("--yaml", own)
        assert second.ends() == 2
        line = f"worker.py: error: can't listen on {place.listen[0]}: another process listens there\n"
        assert second.stderr == line


def test_a_unix_socket_does_as_well(wire: Wire, scripts: Scripts) -> None:
    path = f"unix:{scripts.runtime}/sock"
    own = scripts.folder / "wire.yml"
    own.write_text(
        json.dumps({"transport": wire.transport, "workers": ["127.0.0.1:1"], "listen": "127.0.0.1:1"})
    )
    worker = scripts.worker("--yaml", own, "--listen", path, "--cores", "1")
    worker.says(f"at {path}")
    second = scripts.worker("--yaml", own, "--listen", path, "--cores", "1")
    assert second.ends() == 2
    assert second.stderr == f"worker.py: error: can't listen on {path}: another process listens there\n"
    worker.kill()  # its socket lies there still
    worker = scripts.worker("--yaml", own, "--listen", path, "--cores", "1")
    scripts.run("--yaml", own, "--connect", path, "--tasks", scripts.tasks(record("jobs.echo", 1)))
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert not Path(path.removeprefix("unix:")).exists()


def test_a_file_in_a_sockets_place_is_refused_and_stays(wire: Wire, scripts: Scripts) -> None:
    own, precious = scripts.folder / "wire.yml", scripts.runtime / "precious"
    own.write_text(json.dumps({"transport": wire.transport, "listen": f"unix:{precious}"}))
    precious.write_text("data")
    refused = scripts.worker("--yaml", own)
    assert refused.ends() == 2
    assert "precious: there is no socket there but something else" in refused.stderr
    assert precious.read_text() == "data"


def test_the_command_line_overrides(wire: Wire, scripts: Scripts) -> None:
    place = Place(wire, 2)
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps({"transport": wire.transport}))
    workers = [scripts.worker("--yaml", own, "--cores", "1", "--listen", where) for where in place.listen]
    scripts.run(
        "--yaml", own, "--connect", ",".join(place.listen), "--output", "results.jsonl",
        "--tasks", scripts.tasks(*(record("jobs.meet", 2, id=str(number)) for number in range(2))),
    )  # fmt: skip
    assert len({result["worker"] for result in scripts.results()}) == 2
    for worker in workers:
        worker.send(signal.SIGTERM)
        assert worker.ends() == 0
    refused = scripts.run("--yaml", own, "--address", "tcp://127.0.0.1:1", status=2)
    assert re.fullmatch(rf"dispatcher.py: error: --address: .*{wire.transport}.*\n", refused.stderr)


def test_a_worker_that_starts_anew_at_the_same_address(wire: Wire) -> None:
    place = Place(wire, patience=1.0)
    with place.dispatcher_end() as end:
        with StandIn(place):
            gathered = Gathered(end, tasks(20))
            gathered.until(lambda: gathered.results, "a result")
        with StandIn(place, 0):
            gathered.all()
    assert {result.status for result in gathered.results.values()} == {"ok"}


def test_who_is_slow_to_answer_is_reached_all_the_same(wire: Wire) -> None:
    """It takes some round trips, or on a busy machine some time, until a connection stands."""
    place = Place(wire)
    with Proxy(place.listen[0]) as proxy:
        place.reach = [proxy.address]
        proxy.latency = 0.3
        with StandIn(place), place.dispatcher_end() as end:
            gathered = Gathered(end, tasks(3))
            gathered.until(lambda: end.workers(), "the worker")
            proxy.latency = 0.0
            gathered.all()


def test_a_connection_that_leads_nowhere_is_replaced_once_its_worker_is_given_up(wire: Wire) -> None:
    """As one does whose state a firewall has forgotten; the worker could be reached all the time."""
    place = Place(wire, heartbeat=0.2, patience=1.0)
    with Proxy(place.listen[0]) as proxy:
        place.reach = [proxy.address]
        said: list[str] = []
        with StandIn(place), place.dispatcher_end(said.append) as end:
            gathered = Gathered(end, tasks(2000))
            gathered.until(lambda: len(gathered.results) > 10, "some results")
            proxy.lose()
            results = gathered.all()
    assert {result.status for result in results} == {"ok"}
    assert [line for line in said if "cancel" in line.lower()] == []


def test_a_connection_that_leads_nowhere_from_the_start_is_replaced(wire: Wire) -> None:
    place = Place(wire, heartbeat=0.2, patience=1.0)
    with Proxy(place.listen[0]) as proxy, place.worker_end(introduce("worker", 1)) as worker:
        place.reach = [proxy.address]
        with place.dispatcher_end() as end:
            wait_until(worker._link.ready, "a dispatcher", 30)
            proxy.lose()

            def greeted() -> bool:
                worker.pull(0.02)
                end.results(0.02)
                return bool(end.workers())

            wait_until(greeted, "a greeting", 30)


def test_a_worker_serves_several_dispatchers_in_one_process(wire: Wire) -> None:
    place = Place(wire)
    with StandIn(place) as worker, place.dispatcher_end() as one, place.dispatcher_end() as other:
        first, second = Gathered(one, tasks(100)), Gathered(other, tasks(100))
        first.until(lambda: second.turn(0) or not (first.run.unrecorded or second.run.unrecorded), "all")
    assert len(worker.runs) == 2
    assert len(worker.did) == 200


@pytest.mark.parametrize(
    ("script", "option", "says"),
    [
        ("worker.py", "--listen=host", "error: --listen: 'host': write host:port, or unix:/path"),
        ("worker.py", "--listen=no.such.host.invalid:7", "can't listen on no.such.host.invalid:7: "),
        ("worker.py", "--listen=192.0.2.1:7", "can't listen on 192.0.2.1:7: Cannot assign requested address"),
        (
            "worker.py",
            "--listen=unix:/no/such/folder/x",
            "can't listen on unix:/no/such/folder/x: No such file",
        ),
        ("dispatcher.py", "--connect=a:1,,b:1", "error: --connect: '': write host:port, or unix:/path"),
        ("dispatcher.py", "--connect=a:1,b", "error: --connect: 'b': write host:port, or unix:/path"),
        ("worker.py", "--address=tcp://127.0.0.1:1", "--address: is not for transport "),
    ],
)
def test_an_address_on_the_command_line_that_is_none(
    wire: Wire, scripts: Scripts, script: str, option: str, says: str
) -> None:
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps({"transport": wire.transport}))
    refused = scripts.start(script, "--yaml", own, option)
    assert refused.ends() == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith(f"{script}: error: ")
    assert says in line


def test_a_workers_name_that_is_not_known_is_said(wire: Wire, scripts: Scripts) -> None:
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps({"transport": wire.transport}))
    dispatcher = scripts.start("dispatcher.py", "--yaml", own, "--connect=no.such.host.invalid:7")
    dispatcher.says("can't find no.such.host.invalid:7: its name is not known here; trying again")


def test_where_local_workers_would_not_be_is_no_option_beside_them(wire: Wire, scripts: Scripts) -> None:
    own = scripts.folder / "wire.yml"
    own.write_text(json.dumps({"transport": wire.transport}))
    refused = scripts.start("dispatcher.py", "--yaml", own, "--workers=1", "--connect=a:1")
    assert refused.ends() == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith(
        "dispatcher.py: error: --connect does not go with --workers, which meet on sockets of "
    )


@pytest.mark.parametrize("script", ["worker.py", "dispatcher.py"])
@pytest.mark.parametrize(("key", "value"), [("workers", ["node1:1", "node2"]), ("listen", "node2")])
def test_an_address_in_the_file_that_is_none(
    wire: Wire, scripts: Scripts, script: str, key: str, value: object
) -> None:
    scripts.folder.joinpath("wire.yml").write_text(json.dumps({"transport": wire.transport, key: value}))
    refused = scripts.start(script, "--yaml", "wire.yml")
    assert refused.ends() == 2
    assert refused.stderr == (f"{script}: error: wire.yml: {key}: 'node2': write host:port, or unix:/path\n")


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "host:70000", "http://host:1", "unix"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"listen: '.*': write host:port, or unix:/path"):
        address(text, "listen")


@pytest.mark.parametrize("text", ["node1:50051", "[::1]:50051", "unix:/run/x"])
def test_an_address_is_shown_as_it_is_written(text: str) -> None:
    assert str(address(text, "listen")) == text
