"""Figures, the ratios between them, and whether a target is met. Pure.

Everything is measured several times, in rounds: each round measures all cases once, one after the other. A
ratio is taken within each round, and its median over the rounds, so that a machine that slows down for a
while slows both sides of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

#: Measures something once; returns what it measured, by name, the same names each time.
Case: TypeAlias = Callable[[], Mapping[str, float]]


class Figure(msgspec.Struct, frozen=True):
    """What was measured: one value for each round, in `unit`.

    Where several things are measured of each of many, `column` says which of them this is.
    """

    name: str
    unit: str
    values: list[float]
    note: str = ""
    column: str = ""

    @property
    def median(self) -> float:
        """The value that half of the rounds reach."""
        return statistics.median(self.values)


class Target(msgspec.Struct, frozen=True):
    """Something to reach, what was reached of it in each round, and so whether it is met."""

    text: str
    unit: str
    bound: float
    sense: Literal["at least", "at most"]
    values: list[float]

    @property
    def reached(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the median keeps the bound."""
        return self.reached >= self.bound if self.sense == "at least" else self.reached <= self.bound

    @property
    def share(self) -> float:
        """How much of the target is reached: 1 just meets it, 0.5 is half way, whatever its sense."""
        over, under = (self.reached, self.bound) if self.sense == "at least" else (self.bound, self.reached)
        return over / under if under else float("inf")


class Part(msgspec.Struct, frozen=True):
    """What one part of the benchmarks found.

    The table's last column compares all figures of its unit with that of the name `reference`.
    """

    name: str
    title: str
    figures: list[Figure]
    targets: list[Target]
    reference: str = ""
    remarks: list[str] = []

    def ratio(self, figure: Figure) -> float | None:
        """Return how many times the reference a figure is; None where they can't be compared."""
        of = (self.reference, figure.column, figure.unit)
        base = next((each for each in self.figures if (each.name, each.column, each.unit) == of), None)
        if base is None or len(base.values) != len(figure.values):
            return None
        return statistics.median(ratios(figure, base))


class Failed(Exception):
    """Something could not be measured, and why."""


def ratios(one: Figure, other: Figure) -> list[float]:
    """Return how many times `other` a figure is, round by round."""
    return [a / b if b else float("inf") for a, b in zip(one.values, other.values, strict=True)]


def at_least(text: str, bound: float, values: Sequence[float], unit: str = "") -> Target:
    """Return a target that is met by `bound` and more."""
    return Target(text, unit, bound, "at least", list(values))


def at_most(text: str, bound: float, values: Sequence[float], unit: str = "") -> Target:
    """Return a target that is met by `bound` and less."""
    return Target(text, unit, bound, "at most", list(values))


def rounds(
    repeats: int,
    cases: Mapping[str, Case],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[float]]:
    """Measure all cases in turn, `repeats` times over; return the values of each figure, by its name."""
    values: dict[str, list[float]] = {}
    for number in range(repeats):
        for name, case in cases.items():
            say(f"{name}, round {number + 1} of {repeats}")
            for figure, value in case().items():
                values.setdefault(figure, []).append(value)
    return values


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a `share` of the values is at most (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


class Bench(NamedTuple):
    """How much is measured, and with what.

    `size` is what all numbers of tasks are multiplied by; `rabbitmq` returns the URL of a broker, or raises
    `Failed`; `say` tells what is being measured.
    """

    repeats: int
    size: float
    rabbitmq: Callable[[], str]
    say: Callable[[str], None]

    def count(self, tasks: int, least: int = 1) -> int:
        """Return how many tasks to take where the whole benchmark takes so many."""
        return max(least, round(tasks * self.size))
