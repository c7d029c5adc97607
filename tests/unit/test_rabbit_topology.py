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


@pytest.mark.parametrize(("keep", "expires"), [(7200.0, 7_200_000), (0.0, 15_000)])
def test_a_run_outlives_its_dispatcher_for_as_long_as_is_kept_or_a_connection_may_break(
    keep: float, expires: int
) -> None:
    (arguments,) = NAMES._replace(keep=keep).of_run("r").values()
    assert arguments["x-expires"] == expires
    assert not any("x-expires" in arguments for arguments in NAMES.of_kept_run("n", "r").values())


def test_what_goes_with_its_run_goes_at_last_when_nobody_is_left_to_remove_it() -> None:
    temporary = NAMES._replace(temporary=True)
    for queues in (temporary.of_width(2), temporary.common()):
        assert {arguments["x-expires"] for arguments in queues.values()} == {7 * 86_400_000}
    for queues in (NAMES.of_width(2), NAMES.common()):
        assert not any("x-expires" in arguments for arguments in queues.values())
