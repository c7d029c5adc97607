"""Queues of RabbitMQ: their names and arguments."""

from __future__ import annotations

import pytest

from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 2.5, 3600.0)


def test_all_queues_are_quorum_queues() -> None:
    queues = {
        **NAMES.of_width(3),
        **NAMES.of_worker("w", (3, 10, 8)),
        **NAMES.of_kept_run("n", "r"),
        **NAMES.common(),
    }
    assert {arguments["x-queue-type"] for arguments in queues.values()} == {"quorum"}
    assert len(queues) == 3 + 2 + 2 + 1


def test_who_finds_a_width_by_its_line_finds_the_other_queues_too() -> None:
    assert list(NAMES.of_width(3))[-1] == NAMES.line(3) == "q.3"


def test_what_a_worker_held_goes_on_by_way_of_its_orphans_after_its_patience() -> None:
    held, orphaned = NAMES.of_worker("w", (3, 10)).values()
    assert held["x-dead-letter-routing-key"] == "q.orphaned.w"
    assert orphaned["x-dead-letter-routing-key"] == "q.returned"
    assert held["x-message-ttl"] == orphaned["x-message-ttl"] == 2500
    for arguments in (held, orphaned):
        assert arguments["x-dead-letter-strategy"] == "at-least-once"


@pytest.mark.parametrize(("version", "knows"), [((3, 10, 8), False), ((3, 12), True), ((4, 1, 2), True)])
def test_the_acknowledgement_timeout_is_asked_for_where_the_broker_knows_that(
    version: tuple[int, ...], knows: bool
) -> None:
    for arguments in NAMES.of_worker("w", version).values():
        assert arguments.get("x-consumer-timeout") == (3_600_000 if knows else None)


def test_only_a_run_that_is_left_there_outlives_its_dispatcher() -> None:
    (expires,) = (arguments["x-expires"] for arguments in NAMES.of_run("r").values())
    assert expires == 600_000
    assert not any("x-expires" in arguments for arguments in NAMES.of_kept_run("n", "r").values())
