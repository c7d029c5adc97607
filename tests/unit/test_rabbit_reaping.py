"""When calls that came back are looked for. A stand-in takes what is asked."""

from __future__ import annotations

import math
from typing import Any

from transports.rabbitmq.reaping import LOOK_AGAIN, Reaping
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)


class StandIn:
    """A connection that answers nothing, and what mends, which is under way or not."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.mends = False

    def __bool__(self) -> bool:
        return self.mends

    def get(self, queue: str) -> None:
        self.asked.append(queue)


def test_who_waits_for_an_answer_does_not_look_at_the_time() -> None:
    """A broker that takes nothing for hours gives none, and whose time is due at once would not sleep."""
    stand_in: Any = StandIn()
    reaping = Reaping(stand_in, stand_in, NAMES)
    assert reaping.look_at <= 10.0
    reaping.tick(10.0)
    assert stand_in.asked == [NAMES.returned]
    assert reaping.look_at == math.inf
    reaping.empty()
    assert reaping.look_at == 10.0 + LOOK_AGAIN
    stand_in.mends = True
    assert reaping.look_at == math.inf
    stand_in.mends = False
    reaping.tick(20.0)
    assert stand_in.asked == [NAMES.returned] * 2
