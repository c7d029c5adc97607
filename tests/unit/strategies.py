"""Values that travel, for hypothesis, and what it means that one came back as exactly what it was."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

TEXT = st.text(st.characters(codec=None), max_size=20)
EDGES = st.sampled_from([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
ZONES = st.none() | st.timezones() | st.just(ZoneInfo("Europe/Paris"))
MOMENTS = st.datetimes(timezones=ZONES) | st.dates() | st.times(timezones=ZONES)
ATOMS = st.none() | st.booleans() | st.integers() | EDGES | TEXT | st.binary(max_size=20) | MOMENTS
SCALARS = ATOMS | st.floats() | st.complex_numbers()
# Without NaN: whether two of them are one element depends on who made them.
KEYS = st.recursive(
    ATOMS | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda keys: st.lists(keys, max_size=3).map(tuple) | st.frozensets(keys, max_size=3),
    max_leaves=4,
)

LEAF_DTYPES = (
    npst.scalar_dtypes().filter(lambda dtype: dtype.str[1:] != "M8")  # holds nothing but NaT
    | npst.byte_string_dtypes()
    | npst.unicode_string_dtypes()
    | st.sampled_from([np.dtype(name) for name in ("g", ">g", "G", "V3", "m8", "m8[2Y]")])
)
FIELDS = npst.array_dtypes(LEAF_DTYPES, max_size=3, allow_subarrays=True)
DTYPES = LEAF_DTYPES | FIELDS | npst.array_dtypes(LEAF_DTYPES | FIELDS, max_size=3, allow_subarrays=True)


def _aligned(dtype: np.dtype) -> np.dtype:
    if dtype.names is None:
        return dtype
    return np.dtype([(name, _aligned(dtype[name])) for name in dtype.names], align=True)


def _holds_text(dtype: np.dtype) -> bool:
    if dtype.names is not None:
        return any(_holds_text(dtype[name]) for name in dtype.names)
    return dtype.base.kind == "U" or (dtype.base.names is not None and _holds_text(dtype.base))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of every dtype that travels, of every layout, with whatever bits; few elements."""
    dtype = draw(DTYPES | DTYPES.map(_aligned))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    if _holds_text(dtype):
        array = np.zeros(shape, dtype)
        if dtype.kind == "U":
            array = np.array(draw(st.lists(TEXT, min_size=array.size, max_size=array.size)), dtype).reshape(
                shape
            )
    else:
        size = dtype.itemsize * int(np.prod(shape))
        array = np.ndarray(shape, dtype, bytearray(draw(st.binary(min_size=size, max_size=size))))
    way = draw(st.sampled_from(["as it is", "transposed", "reversed", "strided"]))
    if way == "transposed":
        return array.T
    if array.ndim and way != "as it is":
        return array[::-1] if way == "reversed" else array[..., ::2]
    return array


NUMPY = arrays() | arrays().filter(lambda array: array.size > 0).map(lambda array: array[(0,) * array.ndim])
VALUES = st.recursive(
    SCALARS | NUMPY | TEXT.map(np.str_) | st.binary(max_size=5).map(np.bytes_),
    lambda values: (
        st.lists(values, max_size=4)
        | st.lists(values, max_size=4).map(tuple)
        | st.sets(KEYS, max_size=4)
        | st.frozensets(KEYS, max_size=4)
        | st.dictionaries(KEYS, values, max_size=4)
        | st.dictionaries(TEXT, values, max_size=4)
    ),
    max_leaves=10,
)


def assert_same(one: Any, other: Any) -> None:
    """Assert that `other` is of the type and content of `one`, to the bit, in order and memory layout."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype
        assert _layout(one.dtype) == _layout(other.dtype)
        assert one.shape == other.shape
        assert _bits(one) == _bits(other)
        if isinstance(one, np.ndarray):
            assert other.flags.writeable
            assert other.flags.f_contiguous == one.flags.f_contiguous or not one.flags.forc
    elif isinstance(one, float):
        assert struct.pack("d", one) == struct.pack("d", other)
    elif isinstance(one, complex):
        assert_same([one.real, one.imag], [other.real, other.imag])
    elif isinstance(one, dict):
        assert_same(list(one.items()), list(other.items()))
    elif isinstance(one, set | frozenset):
        assert sorted(map(repr, map(_typed, one))) == sorted(map(repr, map(_typed, other)))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, again in zip(one, other, strict=True):
            assert_same(item, again)
    elif hasattr(one, "tzinfo"):
        assert one.isoformat() == other.isoformat()
        assert one.fold == other.fold
        assert getattr(one.tzinfo, "key", None) == getattr(other.tzinfo, "key", None)
    else:
        assert one == other


def _typed(value: Hashable) -> Any:
    if isinstance(value, tuple):
        return [_typed(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(repr(_typed(item)) for item in value)
    return type(value), repr(value)


def _layout(dtype: np.dtype) -> Any:
    if dtype.names is None:
        return dtype.str
    return dtype.isalignedstruct, [(name, dtype.fields[name], _layout(dtype[name])) for name in dtype.names]


def _bits(array: Any) -> Any:
    """Return the bytes of `array` that mean something: without the gaps between fields."""
    if array.dtype.names is not None:
        return [_bits(array[name]) for name in array.dtype.names]
    return str.__str__(array) if isinstance(array, np.str_) else array.tobytes()
