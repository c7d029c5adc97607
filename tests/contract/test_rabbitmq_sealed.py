"""Others on the broker: they read nothing of ours, and nothing that they send is taken for ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor import keys
from tests.contract.ends import Gathered, Place, StandIn, task, tasks
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import ROOT, Scripts, wait_until

pytestmark = pytest.mark.timeout(120)


def test_other_keys_have_other_queues(rabbitmq_url: str, tmp_path: Path) -> None:
    """Who shares a broker, and even the name in the YAML, takes nothing of what only others can read."""
    wire = RabbitMQ(rabbitmq_url)
    other = str(keys.load(tmp_path / "other").folder)
    theirs = Place(wire, keys=other)
    with Place(wire).dispatcher_end() as end, StandIn(theirs) as stranger:
        gathered = Gathered(end, tasks(20))
        with theirs.dispatcher_end() as another:
            assert len(Gathered(another, tasks(5)).all()) == 5
        assert not gathered.results
        assert len(stranger.did) == 5
        assert not end.workers()
        with StandIn(Place(wire)):
            assert {result.status for result in gathered.all()} == {"ok"}


def test_what_lies_in_the_broker_can_be_read_by_nobody_else_and_not_be_sent_again(rabbitmq_url: str) -> None:
    wire = RabbitMQ(rabbitmq_url)
    said: list[str] = []
    with Place(wire).dispatcher_end(said.append) as end, wire.channel() as channel:
        gathered = Gathered(end, [task(f"told to nobody {number}") for number in range(10)])
        wait_until(lambda: gathered.turn(0.05) or wire.waiting("1"), "calls in the broker")
        _, properties, body = channel.basic_get(f"{wire.queue}.1")
        assert b"told to nobody" not in body
        assert b"jobs" not in body
        channel.basic_recover(requeue=True)
        with StandIn(Place(wire)) as worker:
            assert {result.status for result in gathered.all()} == {"ok"}
            done = len(worker.did)
            for queue in ("1", "1.first", "1.alone", "returned"):  # as it was, and where it never belonged
                channel.basic_publish("", f"{wire.queue}.{queue}", body, properties)
            gathered.until(lambda: any("stranger" in line for line in worker.said), "a stranger is said")
            wait_until(
                lambda: not any(wire.waiting(q) for q in ("1", "1.first", "1.alone")), "all is looked at"
            )
            assert len(worker.did) == done


@pytest.mark.parametrize("script", ["dispatcher.py", "worker.py"])
def test_the_password_goes_to_no_other_machine_in_the_clear(scripts: Scripts, script: str) -> None:
    refused = scripts.start(script, "--yaml", ROOT / "rabbitmq.yml", "--address", "amqp://me:pw@192.0.2.1/")
    assert refused.ends() == 2
    assert refused.stderr.count("\n") == 1
    assert "write amqps://, or set `insecure: true`" in refused.stderr
    assert "pw" not in refused.stderr.replace("password", "")
