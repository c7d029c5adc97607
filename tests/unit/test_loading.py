"""Tasks on their way to a worker: in few frames, and nothing in them that comes to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from executor import codec
from executor.messages import NIL, Report, Tasks, decode, share_out
from executor.run import Run
from executor.task import Task
from transports.base import LARGEST
from transports.direct import loading
from transports.direct.loading import Load, loads


def run(*params: Any) -> Run:
    return Run([Task(function="f", params=[each], id=str(each)[:9]) for each in params])


def params(load: Load) -> list[Any]:
    """Return the parameters of the calls in a frame, and see that they are those of its places."""
    message, buffers = decode(load.parts)
    assert isinstance(message, Tasks)
    assert [item.place for item in message.items] == list(load.places)
    shares = share_out(message.items, buffers)
    return [codec.decode([item.call, *shares.get(n, ())])[1][0] for n, item in enumerate(message.items)]


def test_small_ones_travel_together_in_their_order() -> None:
    for some in ([1, "two", [3.0], {"4": None}], [1, (2,), 3j, float("inf"), 2**70, b"six"]):
        (load,) = loads(run(*some), range(len(some)), LARGEST)
        assert params(load) == some


@pytest.mark.parametrize("kind", [list, np.array], ids=["plain", "arrays"])
def test_large_ones_are_spread_over_frames(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    monkeypatch.setattr(loading, "FRAME_BYTES", 200_000)
    some = [kind([float(n)] * 10_000) for n in range(5)]  # 80 or 90 kB each
    frames = list(loads(run(*some), range(5), LARGEST))
    assert [list(load.places) for load in frames] == [[0, 1, 2], [3, 4]]
    assert [param[0] for load in frames for param in params(load)] == [0, 1, 2, 3, 4]


def test_what_comes_to_nothing_is_told_and_the_rest_goes() -> None:
    some = run(0, 1, object(), b"x" * 2000, 4)
    some.accept(Report(1, 1, "ok", NIL))
    *nothing, frame = loads(some, range(5), 1000)
    assert [list(load.places) for load in nothing] == [[1], [2], [3]]
    assert nothing[0].error == ""
    assert "a value of type object" in nothing[1].error
    assert "the call is too large" in nothing[2].error
    assert not any(load.parts for load in nothing)
    assert params(frame) == [0, 4]


def test_of_plain_ones_too_each_is_bounded() -> None:
    some = run("x" * 600, "y" * 600, "z" * 1200)
    nothing, frame = loads(some, range(3), 1000)
    assert (list(nothing.places), nothing.parts) == ([2], ())
    assert params(frame) == ["x" * 600, "y" * 600]
