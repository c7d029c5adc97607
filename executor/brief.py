"""Values and calls as one would write them, shortened."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

from executor.words import one_line


class _Brief(reprlib.Repr):
    """Reprs that look at no more of a large value than they show."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fillvalue = "…"
        self.maxstring = self.maxlong = self.maxother = max(20, width)

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 10_000:  # slow, and refused beyond `sys.get_int_max_str_digits`
            return f"<int of {x.bit_length():,} bits>"
        return super().repr_int(x, level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return self.repr_str(x, level)  # type: ignore[arg-type]  # it only slices and joins

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)  # else it sorts all

    def repr_set(self, x: set[Any], level: int) -> str:
        return super().repr_set(set(islice(x, self.maxset + 1)), level)

    def repr_frozenset(self, x: frozenset[Any], level: int) -> str:
        return super().repr_frozenset(frozenset(islice(x, self.maxfrozenset + 1)), level)

    def repr_ndarray(self, x: Any, level: int) -> str:
        if x.size > 8:
            return f"{x.dtype} array of {' × '.join(map(str, x.shape))}"
        return self.repr_instance(x, level)


@lru_cache(256)  # there are as many widths as a terminal has columns
def _brief_of(width: int) -> _Brief:
    return _Brief(width)


def brief(value: object, width: int = 60) -> str:
    """Return a value's repr, shortened where it is large."""
    if type(value) is float:
        return f"{value:.6g}"
    try:
        return one_line(_brief_of(width).repr(value), width)
    except Exception as error:  # a repr of the user's may raise
        return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"


def call(function: str, params: Sequence[Any], kwargs: Mapping[str, Any], width: int = 60) -> str:
    """Return a call as one would write it, shortened to `width`: first the module, then the arguments."""
    texts = [brief(param, width) for param in params[:8]]
    if len(params) > 8:
        texts.append("…")
    texts += [f"{name}={brief(value, width)}" for name, value in kwargs.items()]
    arguments = ", ".join(texts)
    if len(function) + len(arguments) + 2 > width and "." in function:
        function = "…" + function.rpartition(".")[2]
    room = width - len(function) - 2
    return one_line(f"{function}({one_line(arguments, room) if room > 0 else '…'})", width)
