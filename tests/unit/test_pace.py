"""How long calls take, and what is told from it: whether a worker has enough, however it is asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from executor.pace import AHEAD_SECONDS, Pace


@pytest.mark.parametrize("seed", range(20))
def test_what_is_enough_by_the_shortest_calls_is_enough_by_those_in_hand(seed: int) -> None:
    chosen = random.Random(seed)
    pace, widths = Pace(), [1, 2, 3, 8]
    for width in widths:
        pace.learn(width, chosen.choice([0.01, 0.3, 5.0]))
    enough = 0
    for _ in range(300):
        pace.learn(chosen.choice(widths), chosen.lognormvariate(0.0, 1.5))
        counts = Counter(chosen.choices(widths, k=chosen.randrange(1, 9)))
        load = sum(width * count for width, count in counts.items())
        if pace.is_enough(load, 16):
            enough += 1
            assert pace.work(counts) >= 16 * AHEAD_SECONDS
            assert all(pace.ahead(width, 16, counts)[1] <= 0 for width in widths)
    assert enough, "nothing was seen to be enough"


def test_the_shortest_calls_are_forgotten_when_they_have_become_longer() -> None:
    pace = Pace()
    pace.learn(1, 0.001)
    pace.learn(2, 4.0)
    assert not pace.is_enough(16, 16)
    pace.learn(1, 8.0)
    assert pace.is_enough(16, 16)


def test_nothing_is_given_ahead_while_no_duration_is_known() -> None:
    pace = Pace()
    assert pace.is_long(1, 16)
    assert pace.ahead(1, 16, Counter()) == (0, 0)
