"""What travels, as which type, and what is said of the rest: shared by the codec and the JSON form."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

from executor.errors import CannotTravel

#: So many containers may lie inside each other: far from where the interpreter's recursion limit strikes.
MAX_DEPTH = 200

_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})


class Unfit(Exception):
    """`item`, which lies somewhere in a value, can't travel; `cannot_travel` makes this the user's error."""

    def __init__(self, item: Any, what: str = "", advice: str = "") -> None:
        super().__init__(item)
        self.item = item
        self.what = what or f"a value of type {_names(type(item))[0]}"
        self.advice = advice or _advice(type(item))


class TooDeep(Unfit):
    """`item` lies in too many containers, perhaps since one of them contains itself."""


def as_base(value: Any) -> Any:
    """Return `value` as an instance of exactly a type that travels: a subclass as its base.

    A bytearray or memoryview becomes bytes, a matrix an array; NumPy's scalars stay as they are.

    Raises:
        Unfit: there is no such type.
    """
    kind = type(value)
    numpy: Any = sys.modules.get("numpy")
    # getattr: there may be no NumPy, or another thread may be in the middle of importing it.
    if issubclass(kind, getattr(numpy, "generic", ())):
        return value
    if issubclass(kind, getattr(numpy, "ndarray", ())):
        if any(name.endswith(".MaskedArray") for name in _names(kind)):
            raise Unfit(value)
        return numpy.asarray(value)
    for base, convert in _BASES.items():
        if issubclass(kind, base):
            try:
                return convert(value)
            except Exception as error:
                raise Unfit(value) from error
    raise Unfit(value)


def _as_datetime(value: datetime) -> datetime:
    if getattr(value, "nanosecond", 0):
        raise ValueError("a datetime has no nanoseconds")  # which pandas's Timestamp would lose
    return datetime.combine(value.date(), value.time(), value.tzinfo)


#: How an instance of a subclass becomes one of its base; the first base that fits is taken.
_BASES: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: bytes,
    bytearray: bytes,
    memoryview: bytes,
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    dict: dict,
    datetime: _as_datetime,
    date: lambda value: date.fromordinal(value.toordinal()),
    time: lambda value: datetime.combine(date.min, value).timetz(),
}


def cannot_travel(value: Any, error: Exception) -> CannotTravel:
    """Return what to raise about `value` after `error`: what in it can't travel, where, and the remedy."""
    if isinstance(error, CannotTravel):
        return error
    if isinstance(error, TooDeep) and _contains_itself(value):
        return CannotTravel("a value that contains itself can't travel; return a tree of plain values")
    if isinstance(error, TooDeep | RecursionError):
        return CannotTravel(
            f"a value nested deeper than {MAX_DEPTH} levels can't travel; return a flatter one"
        )
    if not isinstance(error, Unfit):
        reason = " ".join(str(error).split())
        return CannotTravel(f"a value of type {_names(type(value))[0]} can't travel: {reason}")
    where = _locate(value, error.item)
    return CannotTravel(f"{error.what}{where} can't travel; return {error.advice}")


def are_shallow(values: Sequence[Any]) -> bool:
    """Tell whether each of these decoded values has at most `MAX_DEPTH` containers inside each other."""
    if _CONTAINERS.isdisjoint(map(type, values)):
        return True
    return all(is_shallow(value, MAX_DEPTH) for value in values)


def is_shallow(value: Any, room: int) -> bool:
    """Tell whether a decoded `value` has at most `room` containers inside each other."""
    kind = type(value)
    if kind not in _CONTAINERS:
        return True
    if not room:
        return False
    items = [*value, *value.values()] if kind is dict else value
    if _CONTAINERS.isdisjoint(map(type, items)):
        return True
    return all(is_shallow(item, room - 1) for item in items)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what lies in a container, each with its index, its key, or `...` where it has none."""
    if isinstance(value, dict):
        yield from dict.items(value)
        yield from ((..., key) for key in dict.keys(value))
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, set | frozenset):
        yield from ((..., item) for item in value)


def _ways(value: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Yield the way to each thing in `value`, depth first: a key and what it leads to for each step.

    It stops at two levels more than may travel, so that it ends for what contains itself.
    """
    way, rest = [(..., value)], [_children(value)]
    while rest:
        step = next(rest[-1], None)
        if step is None:
            way.pop()
            rest.pop()
            continue
        way.append(step)
        yield way
        rest.append(_children(step[1]) if len(way) < MAX_DEPTH + 2 else iter(()))


def _locate(value: Any, item: Any) -> str:
    """Return where in `value` the `item` lies, as " at [2]['x']", or "" if it is `value` itself."""
    for way in _ways(value):
        if way[-1][1] is item:
            return " at " + "".join(f"[{'...' if key is ... else reprlib.repr(key)}]" for key, _ in way[1:])
    return ""


def _contains_itself(value: Any) -> bool:
    """Tell whether the first way that leads too deep passes the same container twice."""
    for way in _ways(value):
        if len(way) == MAX_DEPTH + 2:
            return len({id(item) for _, item in way}) < len(way)
    return False


def _names(kind: type) -> list[str]:
    """Return the full names of a class and its bases, the nearest first."""
    return [f"{base.__module__}.{base.__qualname__}".removeprefix("builtins.") for base in kind.__mro__]


def _advice(kind: type) -> str:
    for name in _names(kind):
        if name in _ADVICE:
            return _ADVICE[name]
    if hasattr(kind, "__next__"):
        return "list(...)"
    if hasattr(kind, "__dataclass_fields__"):
        return "dataclasses.asdict(...)"
    return "plain values, NumPy arrays, or write a file and return its path"


#: What to return instead of an instance of a class, or of a class derived from it.
_ADVICE = {
    **dict.fromkeys(("range", "dict_keys", "dict_values", "dict_items", "collections.deque"), "list(...)"),
    **dict.fromkeys(("decimal.Decimal", "fractions.Fraction"), "float(...) or str(...)"),
    **dict.fromkeys(("pathlib.PurePath", "pathlib._local.PurePath", "uuid.UUID"), "str(...)"),
    **dict.fromkeys(("function", "builtin_function_or_method", "method", "type", "module"), "its name"),
    **dict.fromkeys(
        ("pandas.core.frame.DataFrame", "pandas.DataFrame"), "its .to_dict('list') or .to_numpy()"
    ),
    **dict.fromkeys(("pandas.core.series.Series", "pandas.Series"), "its .to_list() or .to_numpy()"),
    **dict.fromkeys(
        ("numpy.ma.core.MaskedArray", "numpy.ma.MaskedArray"), "its .filled(...), as the mask would be lost"
    ),
    "_io._IOBase": "what it holds, or its path",
    "BaseException": "str(...)",
    "array.array": "list(...)",
    "coroutine": "what asyncio.run(...) makes of it",
    "datetime.timedelta": "its .total_seconds()",
    "enum.Enum": "its .value",
    "pandas._libs.tslibs.timestamps.Timestamp": "its .to_datetime64()",
    "polars.dataframe.frame.DataFrame": "its .to_dict(as_series=False) or .to_numpy()",
    "scipy.sparse._base._spbase": "its .toarray()",
    "torch.Tensor": "its .numpy()",
}
