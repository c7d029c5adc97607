"""The picture that the README shows: throughput, as so many times ProcessPoolExecutor's.

It is drawn twice, for light and for dark pages, without a background of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks import throughput
from benchmarks.measure import Part
from benchmarks.report import value

#: What is ours but no wire as it is, and what is no tool that anybody uses.
_OURS = ("ours, ", "whole command", throughput.SINGLE)
_NO_TOOLS = (throughput.BARE,)

#: By page: the colours of texts, of our bars, and of others'.
COLOURS = {"light": ("#1f2328", "#0969da", "#afb8c1"), "dark": ("#e6edf3", "#4493f8", "#59636e")}


class Bar(NamedTuple):
    """A bar: how many times the reference something is, and whether it is ours."""

    name: str
    ratio: float
    text: str
    ours: bool


def bars(parts: Iterable[Part]) -> list[Bar]:
    """Return the bars of what was measured of throughput, the longest first.

    What several parts measured is taken from the first.
    """
    found: dict[str, Bar] = {}
    for part in parts:
        for figure in part.figures:
            ratio = part.ratio(figure)
            if figure.unit != "tasks/s" or ratio is None:
                continue
            ours = figure.name in throughput.WIRES
            if not ours and (figure.name.startswith(_OURS) or figure.name in _NO_TOOLS):
                continue
            name = f"function-executor, {figure.name}" if ours else figure.name.removesuffix(".submit")
            name = name.removesuffix(" on RabbitMQ")
            text = f"{value(figure.median, '')} tasks/s"
            found.setdefault(name, Bar(name, ratio, text, ours))
    return sorted(found.values(), key=lambda bar: -bar.ratio)


def draw(some: list[Bar], folder: Path) -> list[Path]:
    """Draw the bars for both kinds of pages; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "function-executor"  # the same bars are the same file
    mpl.rcParams["font.family"] = "DejaVu Sans"
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(some, folder / f"throughput-{page}.svg", *COLOURS[page]) for page in COLOURS]


def _draw(some: list[Bar], path: Path, ink: str, ours: str, others: str) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.38 * len(some) + 0.7), layout="constrained")
    names = [bar.name for bar in some]
    axes.barh(
        names, [bar.ratio for bar in some], color=[ours if bar.ours else others for bar in some], height=0.66
    )
    longest = max(bar.ratio for bar in some)
    for position, bar in enumerate(some):
        text = f"{value(bar.ratio, '')} ×   {bar.text}"
        axes.text(bar.ratio + longest * 0.01, position, text, va="center", color=ink, fontsize=9)
    axes.set_xlim(0, longest * 1.35)
    axes.invert_yaxis()
    axes.set_title(
        "No-op calls a second, × ProcessPoolExecutor.submit in the same run",
        loc="left",
        color=ink,
        fontsize=10,
    )
    axes.tick_params(axis="y", length=0, colors=ink)
    axes.xaxis.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return path
