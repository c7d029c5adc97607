"""NumPy's arrays in the codec: dtypes as plain values, and arrays from bytes that nobody vouches for."""

from __future__ import annotations

import math
import re
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from executor.errors import BadFrame
from executor.travel import Unfit

if TYPE_CHECKING:
    import numpy

    Array: TypeAlias = numpy.ndarray[Any, Any]

#: So many structured dtypes and subarrays may lie inside each other.
MAX_DTYPE_DEPTH = 32

#: The dtypes that a string may name. NumPy itself would read more into one: objects, lists of fields.
_SIMPLE_DTYPE = re.compile(r"[<>|][biufcmMSUV]\d+(\[\d*[a-zA-Z]+\])?")


def dtype_form(dtype: numpy.dtype[Any], owner: Any, room: int = MAX_DTYPE_DEPTH) -> Any:
    """Return the `dtype` of `owner` as plain values (see the head of `executor.codec`). Raises Unfit."""
    if room and dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [dtype_form(base, owner, room - 1), list(shape)]
    if room and dtype.names is not None and dtype.kind == "V":
        fields: Any = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
        return {
            "names": list(dtype.names),
            "formats": [dtype_form(field[0], owner, room - 1) for field in fields],
            "offsets": [field[1] for field in fields],
            "titles": [field[2] if len(field) > 2 else None for field in fields],
            "itemsize": dtype.itemsize,
            "aligned": dtype.isalignedstruct,
        }
    try:
        return _simple_form(dtype)
    except ValueError:
        raise Unfit(owner, f"NumPy data of dtype {dtype}", "numbers, or text as .astype('U20')") from None


@lru_cache(maxsize=256)
def _simple_form(dtype: numpy.dtype[Any]) -> str:
    text = dtype.str
    # A dtype that another package adds (bfloat16, say) has the string of plain bytes: so, both ways.
    if _simple_dtype(text) != dtype:
        raise ValueError(text)
    return text


@lru_cache(maxsize=256)
def _simple_dtype(text: str) -> numpy.dtype[Any]:
    import numpy

    if not _SIMPLE_DTYPE.fullmatch(text):
        raise ValueError(f"no dtype that travels: {text!r}")
    return numpy.dtype(text)


def read_dtype(form: Any, room: int = MAX_DTYPE_DEPTH) -> numpy.dtype[Any]:
    """Return the dtype that `dtype_form` wrote as `form`."""
    import numpy

    if type(form) is str:
        return _simple_dtype(form)
    if not room:
        raise BadFrame(f"a dtype nested deeper than {MAX_DTYPE_DEPTH} levels")
    if type(form) is list:
        base, shape = form
        return numpy.dtype((read_dtype(base, room - 1), tuple(shape)))
    fields: Any = {key: form[key] for key in ("names", "offsets", "titles", "itemsize", "aligned")}
    fields["formats"] = [read_dtype(field, room - 1) for field in form["formats"]]
    dtype: numpy.dtype[Any] = numpy.dtype(fields)
    return dtype


def read_array(
    buffer: bytearray | memoryview, dtype: Any, shape: tuple[int, ...] = (), order: Any = "C"
) -> Array:
    """Return the array that lies in `buffer`, which stays its memory."""
    import numpy

    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(buffer):
        raise BadFrame(f"{len(buffer)} bytes for an array of shape {shape} and {dtype.itemsize} bytes each")
    array: Array = numpy.ndarray(shape, dtype, buffer, order=order)
    if not is_legible(array):
        raise BadFrame(f"an array of dtype {dtype} that can't be read")
    return array


def is_legible(array: Array) -> bool:
    """Tell whether NumPy can show what `array` holds: memory that nobody filled may be no text or date."""
    import numpy

    dtype = array.dtype
    if dtype.names is not None:
        return all(is_legible(array[name]) for name in dtype.names)
    if dtype.kind == "U" and array.nbytes:
        codes = array.ravel("A").view(f"{dtype.str[0]}u4")
        return bool(codes.max() <= sys.maxunicode)
    if dtype.kind == "M" and array.size:
        try:  # NaT counts only where there is nothing else
            for extreme in (numpy.fmin, numpy.fmax):
                numpy.datetime_as_string(extreme.reduce(array, axis=None))
        except (OverflowError, ValueError):  # out of range; without a unit and not NaT
            return False
    return True
