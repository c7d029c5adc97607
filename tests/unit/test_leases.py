"""What one worker holds: the places in the order of their handing out, whatever came of them in between."""

from __future__ import annotations

from executor.leases import SETTLED, WAITING, Holder, Leases

WIDTHS = [1, 1, 2, 2, 3, 1]


def two(cores: int = 4) -> tuple[Leases, Leases, list[Holder]]:
    """Two workers, and who holds what."""
    holders: list[Holder] = [WAITING] * len(WIDTHS)
    return (*(Leases(cores, holders, WIDTHS, backfill=False) for _ in range(2)), holders)


def test_a_place_that_came_back_and_was_handed_out_again_is_held_once_and_behind_the_others() -> None:
    mine, _, holders = two()
    mine.hold([0, 1], 1)
    mine.hold([2], 2)
    assert mine.drop([0], 1) == [0]
    holders[0] = WAITING
    mine.hold([0], 1, again=True)
    assert (list(mine), mine.count, mine.load) == ([1, 2, 0], 3, 4)
    assert mine.widths == {1: 2, 2: 1}


def test_what_another_has_now_is_not_held_and_can_not_be_dropped() -> None:
    mine, other, holders = two()
    mine.hold([0, 1], 1)
    mine.drop([0], 1)
    holders[0] = WAITING
    other.hold([0], 1)
    assert (list(mine), list(other)) == ([1], [0])
    assert mine.drop([0, 0], 1) == []
    assert other.drop([0, 0], 1) == [0]
    assert (mine.load, other.load) == (1, 0)
    assert holders[:2] == [SETTLED, mine]


def test_what_ended_long_ago_takes_no_room() -> None:
    count = 10_000
    holders: list[Holder] = [WAITING] * count
    mine = Leases(2, holders, [1] * count, backfill=False)
    mine.hold([0], 1)
    for place in range(1, count):
        mine.hold([place], 1)
        mine.drop([place - 1], 1)
        assert list(mine) == [place]
        assert mine.noted < 100
