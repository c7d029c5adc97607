"""The JSON form of values: what result files hold, and what ``executor_cli --json`` prints.

None, bool, int of any size, finite float, str, list and dict are themselves. What JSON lacks is an object
with one key:

    {"$float": "nan" | "inf" | "-inf"}
    {"$complex": [re, im]}           numbers, or "$float" objects
    {"$bytes": base64}               bytes, and NumPy's void
    {"$date": ISO 8601}              datetime, date, time and datetime64, whose "NaT" is written so
    {"$map": [[key, value], ...]}    a dict with keys that aren't strings, or that looks like one of these
    {"$npy": path, "shape": [...], "dtype": "..."}      an array that lies in a file

Tuples are lists; so are sets, in order, and arrays, nested; an element of a structured array is the list of
its fields. A NumPy scalar is its Python value (a long double the nearest float), and a timedelta64 its
seconds: null for NaT, years and months of NumPy's mean length, the bare number where it has no unit. So this
form is for people and other programs; what must come back as it was goes through `executor.codec`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Collection, Iterable
from datetime import date, datetime, time
from itertools import chain, repeat
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from executor.arrays import dtype_form
from executor.travel import MAX_DEPTH, TooDeep, Unfit, as_base, cannot_travel

if TYPE_CHECKING:
    from executor.arrays import Array

    Store: TypeAlias = Callable[[Array], dict[str, Any] | None]

#: An array of more elements goes to a file, if there is one to go to: lines stay short.
ARRAY_INLINE = 1000

#: An array that holds no bytes may have so many rows: a few bytes on a wire are not to fill the memory.
MAX_EMPTY = 1_000_000

_AS_IS = frozenset({type(None), bool, int, str})
_SCALARS = _AS_IS | {float}
_PLAIN = _SCALARS | {list, dict}
_ONLY_STR = frozenset({str})

#: How deep, and how much on one level, `are_plain` looks: what holds one and the same thing many times may
#: have endless parts.
_PLAIN_DEPTH = 6
_PLAIN_MOST = 1_000_000

_ENCODER = msgspec.json.Encoder()

#: The seconds of a timedelta64's unit, as a fraction.
_SECONDS = {
    **{"Y": (31_556_952, 1), "M": (2_629_746, 1), "W": (604_800, 1), "D": (86_400, 1), "h": (3_600, 1)},
    **{"m": (60, 1), "s": (1, 1), "ms": (1, 10**3), "us": (1, 10**6), "ns": (1, 10**9), "ps": (1, 10**12)},
    **{"fs": (1, 10**15), "as": (1, 10**18), "generic": (1, 1)},
}

#: What a "$date" may say besides what Python's own types read: never "now" or "today", which NumPy knows.
_NUMPY_DATE = re.compile(r"NaT|[+-]?\d{4,}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?)?)?")


def to_json(value: Any, arrays: Store | None = None) -> Any:
    """Return the JSON form of `value`: only None, bool, int, finite float, str, list and dict[str, ...].

    What needs no change is the value's own part, not a copy. Ints may have any size and strings may hold
    lone surrogates, both of which `encode_line` can write. `arrays`, if given, is called with each array of
    more than `ARRAY_INLINE` elements to store it and return its "$npy" object, or None for nested lists.

    Raises:
        CannotTravel: something in the value has no such form.
        OSError: whatever `arrays` raises of it.
    """
    try:
        return _form(value, arrays, MAX_DEPTH)
    except OSError:
        raise
    except Exception as error:  # the value's own methods ran, which may raise anything
        raise cannot_travel(value, error) from error


def dumps(value: Any, arrays: Store | None = None) -> str:
    """Return the JSON form of `value` as text, on one line.

    Raises:
        CannotTravel, OSError: as `to_json`.
    """
    return encode_line(to_json(value, arrays)).decode()


def encode_line(plain: Any) -> bytes:
    r"""Return as JSON, without a line end, what `to_json` gave, or a dict or Struct with such values.

    A lone surrogate becomes its escape, ``\udXXX``, and an int has all of its digits. (Python itself reads
    back more than 4,300 of them only after `sys.set_int_max_str_digits`.)
    """
    try:
        return _ENCODER.encode(plain)
    except ValueError:  # a surrogate, or more digits than Python's limit
        return _text(msgspec.to_builtins(plain)).encode()


def are_plain(values: Collection[Any]) -> bool:
    """Tell whether all of `values` are their own JSON forms; so msgpack has them, too, but for large ints.

    They are looked at level by level, each in C: for many small ones that takes a tenth of the time of one
    after the other. What nests deeper than most, or holds very much, is not looked at: then it is False, too.
    """
    for _ in range(_PLAIN_DEPTH):
        kinds = set(map(type, values))
        if float in kinds and not all(map(isfinite, [each for each in values if type(each) is float])):
            return False
        if kinds <= _SCALARS:
            return True
        if not kinds <= _PLAIN:
            return False
        inner: list[Collection[Any]] = [each for each in values if type(each) is list]
        if dict in kinds:
            dicts = [each for each in values if type(each) is dict and each]
            keys = list(chain.from_iterable(dicts))
            if not _ONLY_STR.issuperset(map(type, keys)) or any(map(str.startswith, keys, repeat("$"))):
                return False
            inner += [each.values() for each in dicts]
        if sum(map(len, inner)) > _PLAIN_MOST:
            return False
        values = list(chain.from_iterable(inner))
    return False


def from_json(plain: Any) -> Any:
    """Return the value of a JSON form: objects with one key that begins with "$" become what they stand for.

    Lists stay lists, but for keys of a "$map", which become tuples. A "$date" is a datetime, date or time,
    and a `numpy.datetime64` if those can't hold it: NaT, nanoseconds, a month, the year 10000. What JSON
    lacks (a date that YAML read, say) stays as it is.

    Raises:
        ValueError: such an object is none of those that are known, or holds something else than it should,
            or is an array in a file, which `numpy.load` reads; or lists and objects nest too deep.
    """
    return _value(plain, MAX_DEPTH)


# --- From values to forms ---------------------------------------------------------------------------------


def _form(value: Any, arrays: Store | None, room: int) -> Any:
    kind = type(value)
    if kind in _AS_IS:
        return value
    form = _FORMS.get(kind)
    if form is None:
        value = as_base(value)
        form = _FORMS.get(type(value), _numpy_form)
    return form(value, arrays, room)


def _are_as_is(items: Collection[Any]) -> bool:
    """Tell whether all of `items` are scalars that JSON has."""
    if len(items) > 8:
        kinds = set(map(type, items))
        if kinds == {float}:  # a sum is finite only if every term is
            return isfinite(sum(items)) or all(map(isfinite, items))
        if not kinds <= _SCALARS:
            return False
    for item in items:
        kind = type(item)
        if kind not in _AS_IS and not (kind is float and isfinite(item)):
            return False
    return True


def _list_form(value: list[Any], arrays: Store | None, room: int) -> list[Any]:
    if not room:
        raise TooDeep(value)
    return value if _are_as_is(value) else [_form(item, arrays, room - 1) for item in value]


def _set_form(value: Iterable[Any], arrays: Store | None, room: int) -> list[Any]:
    forms = _list_form(list(value), arrays, room)
    try:
        return sorted(forms)
    except TypeError:  # of different kinds, or objects: in the order of their texts, so as to have one
        return sorted(forms, key=encode_line)


def _dict_form(value: dict[Any, Any], arrays: Store | None, room: int) -> dict[str, Any]:
    if not room:
        raise TooDeep(value)
    if not value:  # as most kwargs are
        return value
    room -= 1
    if _looks_special(value) or not all(map(isinstance, value, repeat(str))):
        pairs = value.items()
        return {"$map": [[_form(key, arrays, room), _form(item, arrays, room)] for key, item in pairs]}
    if _are_as_is(value.values()) and _ONLY_STR.issuperset(map(type, value)):
        return value
    return {str.__str__(key): _form(item, arrays, room) for key, item in value.items()}


def _looks_special(value: dict[Any, Any]) -> bool:
    if len(value) == 1:
        (key,) = value
        return isinstance(key, str) and key.startswith("$")
    return "$npy" in value


def _float_form(value: float, *_: Any) -> Any:
    if isfinite(value):
        return value
    return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}


def _complex_form(value: complex, *_: Any) -> dict[str, Any]:
    return {"$complex": [_float_form(value.real), _float_form(value.imag)]}


def _bytes_form(value: bytes, *_: Any) -> dict[str, Any]:
    return {"$bytes": base64.b64encode(value).decode()}


def _date_form(value: datetime | date | time, *_: Any) -> dict[str, Any]:
    return {"$date": value.isoformat()}


def _numpy_form(value: Any, arrays: Store | None, room: int) -> Any:
    import numpy

    dtype_form(value.dtype, value)  # refuses what the codec refuses
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return _bytes_form(value)
    if value.shape == () and value.dtype.kind in "fiu":  # the general way takes five times as long
        return _float_form(float(value)) if value.dtype.kind == "f" else int(value)
    # An array of shape (10**9, 0) has no elements, but as lists it would be a billion.
    size = math.prod(max(n, 1) for n in value.shape)
    if arrays is not None and size > ARRAY_INLINE:
        stored = arrays(value)
        if stored is not None:
            return stored
    if size > MAX_EMPTY and not value.nbytes:
        raise Unfit(value, f"an empty array of shape {value.shape}", "one of shape (0,)")
    return _nested(numpy.asarray(value))


def _nested(array: Array) -> Any:
    """Return `array` as nested lists of forms, and one of no dimensions as the form itself."""
    import numpy

    flat = array.reshape(-1)
    forms: Iterable[Any]
    if array.dtype.names is not None:
        columns = [_nested(flat[name]) for name in array.dtype.names]
        forms = map(list, zip(*columns, strict=True)) if columns else ([] for _ in flat)
    elif array.dtype.kind in "biuU":
        return array.tolist()
    elif array.dtype.kind == "f":
        flat = _narrow(flat, "f8")
        if numpy.isfinite(flat).all():
            return flat.reshape(array.shape).tolist()
        forms = map(_float_form, flat.tolist())
    elif array.dtype.kind == "c":
        forms = map(_complex_form, _narrow(flat, "c16").tolist())
    elif array.dtype.kind == "M":
        forms = ({"$date": text} for text in numpy.datetime_as_string(flat).tolist())
    elif array.dtype.kind == "m":
        unit, count = numpy.datetime_data(array.dtype)
        numerator, denominator = _SECONDS[unit]
        ticks = (None if numpy.isnat(tick) else int(tick.astype("i8")) for tick in flat)
        forms = (None if tick is None else tick * count * numerator / denominator for tick in ticks)
    else:
        forms = map(_bytes_form, flat.tolist())
    return numpy.fromiter(forms, object, array.size).reshape(array.shape).tolist()


def _narrow(array: Array, dtype: str) -> Array:
    import numpy

    if array.dtype == dtype:
        return array
    with numpy.errstate(all="ignore"):  # a long double beyond the floats becomes their infinity
        return array.astype(dtype)


_FORMS: dict[type, Callable[[Any, Store | None, int], Any]] = {
    float: _float_form,
    complex: _complex_form,
    bytes: _bytes_form,
    list: _list_form,
    tuple: lambda value, arrays, room: _list_form(list(value), arrays, room),
    set: _set_form,
    frozenset: _set_form,
    dict: _dict_form,
    datetime: _date_form,
    date: _date_form,
    time: _date_form,
    # What `as_base` makes of a subclass.
    **dict.fromkeys(_AS_IS, lambda value, arrays, room: value),
}


# --- From forms to text, where msgspec can't --------------------------------------------------------------


def _text(plain: Any) -> str:
    try:
        return _ENCODER.encode(plain).decode()
    except ValueError:
        pass
    from json.encoder import encode_basestring_ascii as quoted

    if isinstance(plain, str):
        return quoted(plain)
    if isinstance(plain, list):
        return f"[{','.join(map(_text, plain))}]"
    if isinstance(plain, dict):
        return "{" + ",".join(f"{quoted(key)}:{_text(item)}" for key, item in plain.items()) + "}"
    return _digits(plain)


def _digits(number: int) -> str:
    """Return `number` in decimal. `str` refuses thousands of digits, since it takes quadratic time; decimal's
    multiplication does not."""
    import decimal

    def exact(number: int, bits: int) -> decimal.Decimal:
        if bits <= 1024:
            return decimal.Decimal(number)
        low = bits // 2
        return exact(number >> low, bits - low) * two**low + exact(number & ((1 << low) - 1), low)

    two = decimal.Decimal(2)
    largest = decimal.MAX_PREC, decimal.MAX_EMAX, decimal.MIN_EMIN
    with decimal.localcontext() as context:
        context.prec, context.Emax, context.Emin = largest
        context.traps[decimal.Inexact] = True
        return ("-" if number < 0 else "") + str(exact(abs(number), number.bit_length()))


# --- From forms to values ---------------------------------------------------------------------------------


def _value(plain: Any, room: int) -> Any:
    if type(plain) not in (list, dict):
        return plain
    if not room:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH} levels")
    room -= 1
    if type(plain) is list:
        return plain if _SCALARS.issuperset(map(type, plain)) else [_value(item, room) for item in plain]
    if not _looks_special(plain):
        return {key: _value(item, room) for key, item in plain.items()}
    if "$npy" in plain:
        raise ValueError(f"the array in {plain['$npy']!r} is a file of its own: read it with numpy.load")
    [(key, content)] = plain.items()
    if key not in _READERS:
        known = ", ".join(_READERS)
        raise ValueError(f'an object whose one key is {key!r}: known are {known}; as such it is a "$map"')
    try:
        return _READERS[key](content, room)
    except (ImportError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{{{key!r}: ...}} with wrong content: {error}") from error


def _read_float(content: str) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]


def _read_complex(content: list[Any]) -> complex:
    re, im = (part if isinstance(part, int | float) else _read_float(part["$float"]) for part in content)
    return complex(re, im)


def _read_date(content: str) -> Any:
    kind = datetime if "T" in content else time if ":" in content else date
    if not re.search(r"\.\d{7}", content):  # Python would cut what is finer than microseconds
        try:
            return kind.fromisoformat(content)
        except ValueError:
            pass
    if not _NUMPY_DATE.fullmatch(content):
        raise ValueError(f"{content!r} is no ISO 8601 date or time")
    import numpy

    return numpy.datetime64(content, "s") if content == "NaT" else numpy.datetime64(content)


def _read_map(content: list[Any], room: int) -> dict[Any, Any]:
    return {_hashable(_value(key, room)): _value(item, room) for key, item in content}


def _hashable(key: Any) -> Any:
    return tuple(map(_hashable, key)) if isinstance(key, list) else key


_READERS: dict[str, Callable[[Any, int], Any]] = {
    "$float": lambda content, _: _read_float(content),
    "$complex": lambda content, _: _read_complex(content),
    "$bytes": lambda content, _: base64.b64decode(content, validate=True),
    "$date": lambda content, _: _read_date(content),
    "$map": _read_map,
}
