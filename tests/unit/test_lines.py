"""The places that wait: whatever is taken, removed and put back, they stand in order, each once."""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from executor.lines import Line, Lines

WIDTHS = st.integers(1, 4)


class LinesMachine(RuleBasedStateMachine):
    """Beside the lines, what they stand for: the places that wait and those that don't, by width."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Lines()
        self.width: dict[int, int] = {}  # of each place there ever was
        self.waiting: set[int] = set()

    def of_width(self, width: int) -> list[int]:
        return sorted(place for place in self.waiting if self.width[place] == width)

    @rule(width=WIDTHS, count=st.integers(1, 40))
    def push(self, width: int, count: int) -> None:
        places = range(len(self.width), len(self.width) + count)
        self.lines.push(places, width)
        self.width.update(dict.fromkeys(places, width))
        self.waiting.update(places)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), most=st.integers(1, 50), bounded=st.booleans())
    def take(self, data: st.DataObject, most: int, bounded: bool) -> None:
        """A slice, across what came back and what is gone; what is to travel singly cuts it."""
        width = self.width[data.draw(st.sampled_from(sorted(self.waiting)))]
        found = self.lines.first_for(width)
        assert found is not None
        line, width, next_head = found
        mine = self.of_width(width)
        singly = data.draw(st.sets(st.sampled_from(mine), max_size=3))
        before = next_head
        if bounded:
            before = min(data.draw(st.sampled_from(mine)), next_head if next_head is not None else mine[-1])
        expected = [place for place in mine if before is None or place < before][:most]
        cuts = [index for index, place in enumerate(expected) if place in singly]
        if cuts:
            expected = expected[: cuts[0] or 1]
        assert self.lines.take(line, most, before, singly) == expected
        self.waiting.difference_update(expected)

    @precondition(lambda self: len(self.waiting) < len(self.width))
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """Some that were taken or removed, in any order."""
        away = sorted(self.width.keys() - self.waiting)
        for place in data.draw(st.lists(st.sampled_from(away), unique=True, max_size=8)):
            self.lines.put_back(place, self.width[place])
            self.waiting.add(place)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Some out of the middle, wherever they stand."""
        for place in data.draw(st.sets(st.sampled_from(sorted(self.waiting)), max_size=8)):
            self.lines.remove(place, self.width[place])
            self.waiting.remove(place)

    @precondition(lambda self: len(self.width) > 100)
    @rule(width=st.one_of(st.none(), WIDTHS))
    def withdraw(self, width: int | None) -> None:
        meant = {place for place in self.waiting if width in (None, self.width[place])}
        found = self.lines.withdraw(width)
        assert sorted(found) == sorted(meant)
        self.waiting -= meant

    @invariant()
    def all_that_wait_are_counted_and_the_first_is_known(self) -> None:
        assert self.lines.waiting == len(self.waiting)
        counts = {width: len(mine) for width in range(1, 5) if (mine := self.of_width(width))}
        assert self.lines.counts() == counts
        for cores in range(1, 5):
            heads = sorted(mine[0] for width in range(1, cores + 1) if (mine := self.of_width(width)))
            found = self.lines.first_for(cores)
            if found is None:
                assert not heads
                continue
            line, width, before = found
            assert (line.head, self.width[heads[0]]) == (heads[0], width)
            if before is None:
                assert len(heads) == 1
            else:  # the head of a line then, which may be further on by now
                assert heads[0] < before <= min(heads[1:], default=before)


LinesMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, phases=set(Phase) - {Phase.explain}
)
TestLines = LinesMachine.TestCase


def test_a_million_places_are_few_bytes() -> None:
    line = Line()
    line.push(range(1_000_000))
    assert len(line.runs) == 2
    assert line.take(3) == [0, 1, 2]
    assert len(line) == 999_997
