"""Children are given calls ahead, and their reports wait for others, but nobody waits for that in vain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from driving import Driver, item

Start = Callable[..., Driver]


@pytest.fixture
def driver(start: Start, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A pool of two cores that knows calls to take 10 ms, and takes none for slow."""
    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)  # what waits behind one is left where it is
    driver = start(2)
    driver.run(*(item(place, "time.sleep", 0.01) for place in range(10)))
    return driver


def reported(driver: Driver) -> set[int]:
    return {each.report.place for each in driver.finished}


def test_what_waits_goes_to_a_core_for_which_the_next_in_line_is_too_wide(driver: Driver) -> None:
    driver.add(
        item(10, "calls.wait_for", "a"), item(11, "calls.wait_for", "b"),
        item(12, "calls.pid"), item(13, "calls.pid"), item(14, "calls.pid", width=2),
    )  # fmt: skip
    driver.until(lambda: len(driver.pool.running()) == 2)
    Path("b").touch()
    driver.until(lambda: reported(driver) >= {11, 12, 13})
    assert not reported(driver) & {10, 14}
    Path("a").touch()
    driver.until(lambda: driver.pool.idle)
    assert reported(driver) == set(range(15))


def test_a_free_core_lets_it_be_known_what_has_ended_on_others(driver: Driver) -> None:
    """One child has ended a call, and says so no sooner than it has to, as it has another."""
    driver.add(item(10, "calls.pid"), item(11, "calls.wait_for", "a"), item(12, "time.sleep", 0.05))
    driver.until(lambda: 12 in reported(driver))
    driver.until(lambda: 10 in reported(driver))
    assert 11 not in reported(driver)
    Path("a").touch()
    driver.until(lambda: driver.pool.idle)
    assert reported(driver) == set(range(13))


def test_reports_travel_together_as_long_as_they_may(start: Start) -> None:
    frames = []
    for linger in (0.0, 60.0):
        driver = start(1, linger=linger)
        driver.run(*(item(place, "time.sleep", 0.001) for place in range(200)))
        frames.append(driver.frames)
    assert frames[0] > 5 * frames[1], frames
