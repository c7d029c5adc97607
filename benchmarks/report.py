"""What was measured, as tables for a terminal and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.measure import Figure, Part, Target

#: Seconds in the units that are shown for seconds, the largest first.
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))

#: Bytes in the units that are shown for bytes, the largest first.
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


class Record(msgspec.Struct, frozen=True):
    """One run of the benchmarks."""

    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    repeats: int
    size: float
    parts: list[Part]


def wide(*, stderr: bool = False) -> Console:
    """Return a console whose tables have room, where there is no terminal too."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=120)


def now() -> str:
    """Return the time as it stands in a record."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def write(record: Record, path: Path) -> None:
    """Write a run as JSON, for people too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")


def read(path: Path) -> Record:
    """Read a run that was written."""
    return msgspec.json.decode(path.read_bytes(), type=Record)


def value(number: float, unit: str) -> str:
    """Return a value with its unit, in three digits or so; times and sizes in what suits them."""
    for name, scale in (("s", _SECONDS), ("bytes", _BYTES)):
        if unit == name:
            factor, unit = next((each for each in scale if abs(number) >= each[0]), scale[-1])
            number /= factor
    if abs(number) >= 99.95:
        text = f"{number:,.0f}"
    else:
        text = f"{number:.3g}"
    return f"{text} {unit}".rstrip()


def figures_table(part: Part) -> Table:
    """Return the table of a part's figures."""
    compared = bool(part.reference)
    table = Table(title=part.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("lowest to highest", justify="right", style="dim")
    if compared:
        table.add_column(f"× {part.reference}", justify="right")
    table.add_column("")
    for figure in part.figures:
        row = [figure.name, value(figure.median, figure.unit), _spread(figure)]
        if compared:
            ratio = part.ratio(figure)
            row.append("" if ratio is None else value(ratio, ""))
        table.add_row(*row, figure.note)
    return table


def grid(part: Part) -> Table:
    """Return the table of a part that measures several things of each of many: one row for each of them."""
    columns = {figure.column: figure.unit for figure in part.figures}
    title = f"{part.title}; × is of {part.reference}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for column, unit in columns.items():
        told = unit in ("s", "bytes")  # beside each value
        table.add_column(column if told else f"{column}\n{unit}", justify="right", no_wrap=True)
        table.add_column("×", justify="right", style="dim", no_wrap=True)
    for name in dict.fromkeys(figure.name for figure in part.figures):
        row = [name]
        for column in columns:
            at = (name, column)
            figure = next((each for each in part.figures if (each.name, each.column) == at), None)
            ratio = None if figure is None else part.ratio(figure)
            shown = "" if figure is None else value(figure.median, figure.unit)
            row.append(
                shown if columns[column] in ("s", "bytes") else shown.removesuffix(columns[column]).rstrip()
            )
            row.append("" if ratio is None else value(ratio, ""))
        table.add_row(*row)
    return table


def _spread(figure: Figure) -> str:
    if len(figure.values) < 2:
        return ""
    return f"{value(min(figure.values), figure.unit)} to {value(max(figure.values), figure.unit)}"


def targets_table(targets: Sequence[Target]) -> Table:
    """Return the table that says which targets are met."""
    table = Table(box=None, pad_edge=False)
    table.add_column("to reach")
    table.add_column("target", justify="right")
    table.add_column("reached", justify="right")
    table.add_column("")
    for target in targets:
        verdict = Text("met", "green") if target.met else Text(f"not met: {target.share:.0%} of it", "red")
        bound = f"{'≥' if target.sense == 'at least' else '≤'} {value(target.bound, target.unit)}"
        table.add_row(target.text, bound, value(target.reached, target.unit), verdict)
    return table


def show(part: Part, console: Console) -> None:
    """Print what a part found."""
    console.print()
    console.print(grid(part) if any(figure.column for figure in part.figures) else figures_table(part))
    if part.targets:
        console.print()
        console.print(targets_table(part.targets))
    for remark in part.remarks:
        console.print(Text(remark, "dim"))


def verdict(parts: Sequence[Part]) -> str:
    """Return one line about all targets."""
    targets = [target for part in parts for target in part.targets]
    if not targets:
        return "no targets"
    met = sum(target.met for target in targets)
    return f"{met} of {len(targets)} targets met"
