"""Large buffers of calls and results, on their way to a child and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from driving import Driver

from executor import codec
from executor.arena import Arena
from executor.messages import Buffer, Item

Start = Callable[..., Driver]

ARRAY = np.arange(300_000.0)


def call(place: int, function: str, *params: Any) -> tuple[Item, list[Buffer]]:
    head, *buffers = codec.encode([function, list(params), {}])
    return Item(place, 1, 1, None, None, msgspec.Raw(head), len(buffers)), list(buffers)


def run(driver: Driver, *given: tuple[Item, list[Buffer]]) -> list[Any]:
    """Run calls; return their values by place."""
    driver.finished.clear()
    driver.pool.add("run", [item for item, _ in given], [each for _, buffers in given for each in buffers])
    driver.until(lambda: len(driver.finished) == len(given))
    found = {}
    for finished in driver.finished:
        assert finished.report.status == "ok", finished.report.error
        found[finished.report.place] = codec.decode([finished.report.value, *finished.buffers])
    return [found[place] for place in sorted(found)]


def test_arrays_come_back_as_they_were_sent(start: Start) -> None:
    driver = start(2)
    more = Arena.SIZE // ARRAY.nbytes + 5  # than are lent at once, and one that is larger than all that
    sent = [*(ARRAY + number for number in range(more)), np.arange(Arena.SIZE // 8)]
    got = run(driver, *(call(place, "numpy.asarray", array) for place, array in enumerate(sent)))
    assert all(np.array_equal(*pair) for pair in zip(sent, got, strict=True))


def test_what_a_call_changes_of_its_array_no_other_sees(start: Start) -> None:
    driver = start(1)
    changed, same = run(driver, call(0, "calls.double", ARRAY), call(1, "numpy.asarray", ARRAY))
    assert np.array_equal(changed, 2 * ARRAY)
    assert np.array_equal(same, ARRAY)


def test_what_a_call_keeps_of_its_array_stays_as_it_is(start: Start) -> None:
    driver = start(1)
    run(driver, call(0, "calls.keep_array", ARRAY))
    run(driver, *(call(place, "numpy.negative", ARRAY) for place in range(1, 40)))
    (kept,) = run(driver, call(40, "calls.kept_array"))
    assert np.array_equal(kept, ARRAY)
