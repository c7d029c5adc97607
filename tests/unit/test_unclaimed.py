"""What a worker keeps of runs whose dispatcher is gone, and for how long."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from executor.messages import NIL, Report
from executor.packed import pack
from executor.unclaimed import REPORT_BYTES, Frame, Unclaimed, merged, named

ROOM = 10 * REPORT_BYTES


def frame(run: str, *places: int, value: int = 0, buffers: int = 0, **texts: str) -> Frame:
    reports = [Report(place, 1, "ok", NIL, **texts) for place in places]
    if value:
        reports[0].value = msgspec.Raw(msgspec.msgpack.encode(bytes(value)))
    return Frame(run, 1, pack(reports, [bytes(buffers)] if buffers else []))


def lines(unclaimed: Unclaimed) -> list[str]:
    said = [str(each) for each in unclaimed.dropped]
    unclaimed.dropped.clear()
    return said


def test_what_is_kept_can_be_claimed_once() -> None:
    unclaimed = Unclaimed(60, ROOM)
    first, second, other = frame("a", 1, 2), frame("a", 3), frame("b", 1)
    unclaimed.leave("a", [first], 0)
    unclaimed.leave("b", [other], 0)
    unclaimed.add("a", second)
    assert unclaimed.results() == {"a": 3, "b": 1}
    assert unclaimed.holding() == {"a": {1: 1, 2: 1, 3: 1}, "b": {1: 1}}
    assert unclaimed.claim("a") == [first, second]
    assert unclaimed.claim("a") == []
    unclaimed.add("a", second)  # it has a dispatcher again, or is over
    assert unclaimed.results() == {"b": 1}
    assert lines(unclaimed) == []


def test_after_its_time_it_is_dropped_and_so_is_what_still_comes() -> None:
    unclaimed = Unclaimed(90, ROOM)
    unclaimed.leave("a", [frame("a", 1, 2)], 100)
    unclaimed.leave("b", [frame("b", 1)], 150)
    assert unclaimed.deadline() == 190
    unclaimed.expire(189, dict)
    assert unclaimed.results() == {"a": 2, "b": 1}
    unclaimed.expire(190, lambda: {"a": {7: 1}})
    assert lines(unclaimed) == ["dropped 2 results of run a: nobody continued it within 90 s"]
    assert (unclaimed.results(), unclaimed.deadline()) == ({"b": 1}, 240)
    unclaimed.add("a", frame("a", 7))
    assert lines(unclaimed) == ["dropped 1 result of run a: nobody continued it within 90 s"]
    unclaimed.expire(240, dict)
    assert lines(unclaimed) == ["dropped 1 result of run b: nobody continued it within 90 s"]
    assert (unclaimed.results(), unclaimed.deadline(), unclaimed.holding()) == ({}, None, {})


def test_what_is_left_again_has_its_time_again() -> None:
    unclaimed = Unclaimed(60, ROOM)
    unclaimed.leave("a", [frame("a", 1)], 0)
    unclaimed.leave("a", [frame("a", 2)], 50)
    unclaimed.expire(60, dict)
    assert unclaimed.results() == {"a": 2}
    unclaimed.expire(110, dict)
    assert unclaimed.results() == {}


def test_when_it_is_too_much_the_oldest_run_goes_first() -> None:
    unclaimed = Unclaimed(60, ROOM)
    for run in "ab":
        unclaimed.leave(run, [frame(run, place) for place in range(4)], 0)
    unclaimed.add("a", frame("a", 4, 5))
    assert unclaimed.results() == {"a": 0, "b": 4}
    assert lines(unclaimed) == ["dropped 6 results of run a: more than 5 kB would be kept"]


def test_of_the_last_run_the_oldest_results_go() -> None:
    unclaimed = Unclaimed(60, ROOM)
    unclaimed.leave("a", [frame("a", place) for place in range(9)], 0)
    unclaimed.add("a", frame("a", 9, value=2 * REPORT_BYTES))
    assert unclaimed.holding() == {"a": dict.fromkeys(range(3, 10), 1)}
    assert lines(unclaimed) == ["dropped 3 results of run a: more than 5 kB would be kept"]


def test_all_that_a_report_takes_is_counted() -> None:
    long = "x" * ROOM
    for too_much in (
        frame("a", 1, value=ROOM),
        frame("a", 1, buffers=ROOM),
        frame("a", 1, stdout=long),
        frame("a", 1, stderr=long),
        frame("a", *range(11)),
    ):
        unclaimed = Unclaimed(60, ROOM)
        unclaimed.leave("a", [too_much], 0)
        assert unclaimed.results() == {"a": 0}
        assert len(lines(unclaimed)) == 1


def test_nothing_is_kept_where_nothing_may_be() -> None:
    for unclaimed in (Unclaimed(0, ROOM), Unclaimed(60, 0)):
        unclaimed.leave("a", [], 0)
        assert lines(unclaimed) == []
        unclaimed.leave("a", [frame("a", 1)], 0)
        unclaimed.add("a", frame("a", 2))
        assert (unclaimed.results(), unclaimed.deadline()) == ({}, None)
        assert lines(unclaimed) == ["dropped 1 result of run a: nothing is kept (keep)"]


def test_of_two_attempts_the_later_one_is_named() -> None:
    frames = [Frame("a", n, pack([Report(3, n, "error", NIL)])) for n in (2, 1)]
    assert named(frames) == {"a": {3: 2}}
    assert merged({"a": {3: 2, 4: 1}}, {"a": {3: 1}, "b": {3: 1}}) == {"a": {3: 2, 4: 1}, "b": {3: 1}}


STEPS = st.tuples(
    st.sampled_from(["leave", "add", "claim", "expire"]), st.sampled_from("abc"), st.integers(1, 4)
)


@given(st.lists(STEPS, max_size=60))
def test_each_result_is_claimed_or_dropped_once_and_never_too_much_is_kept(
    steps: list[tuple[str, str, int]],
) -> None:
    unclaimed = Unclaimed(10, ROOM)
    now, given_, claimed, late = 0.0, 0, 0, 0
    for what, run, count in steps:
        if what == "leave":
            unclaimed.leave(run, [frame(run, *range(count))], now)
            given_ += count
        elif what == "add":
            nobodys = run not in unclaimed.results()
            dropped = sum(each.results for each in unclaimed.dropped)
            unclaimed.add(run, frame(run, *range(count)))
            if nobodys:  # of a run that is over, or whose time was
                late += sum(each.results for each in unclaimed.dropped) - dropped
            else:
                given_ += count
        elif what == "claim":
            claimed += sum(frame.reports.count for frame in unclaimed.claim(run))
        else:
            now += count
            unclaimed.expire(now, lambda: {"a": {1: 1}})
        kept = sum(unclaimed.results().values())
        assert kept * REPORT_BYTES <= ROOM
        assert given_ == claimed + kept + sum(each.results for each in unclaimed.dropped) - late
