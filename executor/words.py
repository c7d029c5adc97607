"""Numbers and long texts in words that fit a line."""

from __future__ import annotations

from reprlib import Repr

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 40
_SHORT.maxlevel = 2


def columns(text: str) -> int:
    """Return how many columns of a terminal a text of printable characters takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # knows newer editions of Unicode than Python; few texts need it

    return cell_len(text)


def one_line(text: str, width: int) -> str:
    """Return text on one line of at most `width` columns (at least 1)."""
    start = text[: 20 * width + 1000]  # a message may be as long as memory allows
    cut = len(start) < len(text)
    if not start.isprintable():
        if any(c in start for c in "\n\r\t"):
            start = " ".join(start.split())
        start = "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)
    if columns(start) <= width and not cut:
        return start
    start = start[: max(0, width - 1)]
    while columns(start) > width - 1:
        start = start[:-1]
    return start + "…"


def shown(value: object) -> str:
    """Return a value as a message shows it: what Python writes for it, cut to a few words on one line."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python refuses to write an integer of thousands of digits
        return f"an {type(value).__name__} of thousands of digits"


def duration(seconds: float) -> str:
    """Return a duration for people: ``85 µs``, ``213 ms``, ``4.2 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.5:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def round_duration(seconds: float) -> str:
    """Return a duration that somebody chose, for people: ``90 min``, ``1 h``, ``0.5 s``."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:g} s"


def size(count: int) -> str:
    """Return a number of bytes for people: ``17 bytes``, ``512 MB``, ``2.1 GB``."""
    if count < 1000:
        return plural(count, "byte")
    value, unit = float(count), ""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 task``, ``2 tasks``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def rate(per_second: float) -> str:
    """Return a rate such as ``8,064/s`` or ``0.25/s``."""
    return f"{per_second:,.0f}/s" if per_second >= 99.5 else f"{per_second:.2g}/s"
