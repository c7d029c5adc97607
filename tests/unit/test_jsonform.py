from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import math
import re
import subprocess
import sys
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.errors import CannotTravel
from executor.jsonform import ARRAY_INLINE, dumps, encode_line, from_json, to_json
from executor.travel import MAX_DEPTH
from tests.unit.strategies import TEXT, VALUES, assert_same


def nan() -> dict[str, str]:
    return {"$float": "nan"}


# Values that JSON has, or whose form says what they are: they come back.

EXACT = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([math.nan, complex(math.nan, math.inf)])
    | TEXT
    | st.binary(max_size=20)
    | st.datetimes().map(lambda moment: moment.replace(fold=0))  # of which ISO 8601 knows nothing
    | st.dates()
    | st.times().map(lambda moment: moment.replace(fold=0))
)
KEYS = (
    st.integers()
    | st.booleans()
    | TEXT
    | st.sampled_from(["$npy", "$float", "$"])
    | st.tuples(st.dates(), TEXT)
)


@given(
    st.recursive(
        EXACT,
        lambda values: st.lists(values, max_size=4) | st.dictionaries(KEYS, values, max_size=3),
        max_leaves=10,
    )
)
def test_what_the_form_tells_comes_back_through_the_text(value):
    assert_same(value, from_json(json.loads(dumps(value))))


@given(VALUES)
def test_every_value_that_travels_has_a_form_of_plain_parts_alone(value):
    form = to_json(value)
    assert_plain(form)
    assert json.loads(encode_line(form), parse_constant=pytest.fail) == form
    from_json(form)


def assert_plain(form: Any) -> None:
    if type(form) is dict:
        assert all(type(key) is str for key in form)
        form = list(form.values())
    if type(form) is list:
        for item in form:
            assert_plain(item)
    elif type(form) is float:
        assert math.isfinite(form)
    else:
        assert form is None or type(form) in (bool, int, str)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (float("nan"), nan()),
        ([1, -math.inf], [1, {"$float": "-inf"}]),
        ([1e308] * 10, [1e308] * 10),
        ([1.5] * 9 + [math.inf], [1.5] * 9 + [{"$float": "inf"}]),
        (complex(1, math.nan), {"$complex": [1.0, nan()]}),
        (b"\xff", {"$bytes": "/w=="}),
        (dt.date(2024, 2, 29), {"$date": "2024-02-29"}),
        (dt.time(1, 2), {"$date": "01:02:00"}),
        (dt.datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Paris")), {"$date": "2024-07-01T00:00:00+02:00"}),
        ((1, (2,)), [1, [2]]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("cab"), ["a", "b", "c"]),
        ({None, 10, 9, "x"}, ["x", 10, 9, None]),
        ({(2, 1), (1, 2)}, [[1, 2], [2, 1]]),
        ({1: 2}, {"$map": [[1, 2]]}),
        ({2**20_000: 2}, {"$map": [[2**20_000, 2]]}),
        ({"a": 1, (1, 2): {}}, {"$map": [["a", 1], [[1, 2], {}]]}),
        ({"$float": "nan"}, {"$map": [["$float", "nan"]]}),
        ({"$": 1}, {"$map": [["$", 1]]}),
        ({"$a": 1, "b": 2}, {"$a": 1, "b": 2}),
        ({"$npy": 1, "b": 2}, {"$map": [["$npy", 1], ["b", 2]]}),
        (collections.Counter("a"), {"a": 1}),
        (enum.IntEnum("E", "ONE").ONE, 1),
        ({enum.StrEnum("E", "ONE").ONE: 1}, {"one": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_forms_of_values(value, form):
    assert_same(form, to_json(value))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (np.float32(0.5), 0.5),
        (np.float64("nan"), nan()),
        (np.longdouble("1e4000"), {"$float": "inf"}),
        (np.int8(-1), -1),
        (np.True_, True),
        (np.complex64(1j), {"$complex": [0.0, 1.0]}),
        (np.str_("a\0"), "a\0"),
        (np.bytes_(b"a"), {"$bytes": "YQ=="}),
        (np.void(b"a"), {"$bytes": "YQ=="}),
        (np.datetime64("NaT", "s"), {"$date": "NaT"}),
        (np.datetime64("2024-02"), {"$date": "2024-02"}),
        (np.datetime64("2024-01-01T00:00:00.123456789"), {"$date": "2024-01-01T00:00:00.123456789"}),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64(2, "25s"), 50.0),
        (np.timedelta64(1, "Y"), 31556952.0),
        (np.frombuffer(bytes([7, *bytes(7)]), "<m8")[0], 7.0),
        (np.timedelta64("NaT", "s"), None),
        (np.array(2), 2),
        (np.array([[1, 2], [3, 4]], order="F"), [[1, 2], [3, 4]]),
        (np.array([[1.5, np.inf]]), [[1.5, {"$float": "inf"}]]),
        (np.zeros((2, 0, 3)), [[], []]),
        (np.frombuffer(b"\x01\x7c\x00\x3c", "f2"), [nan(), 1.0]),  # a signaling NaN
        (np.array([1, "1e4000"], "g"), [1.0, {"$float": "inf"}]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([["2024-01-01", "NaT"]], "M8[D]"), [[{"$date": "2024-01-01"}, {"$date": "NaT"}]]),
        (np.array([(1, (2.5, [b"x", b"y"]))], [("a", "i4"), ("b", [("c", "f8"), ("d", "S1", 2)])]),
         [[1, [2.5, [{"$bytes": "eA=="}, {"$bytes": "eQ=="}]]]]),
        (np.zeros((1, 2), [("a", "?")])[0, 0], [False]),
        (np.zeros(2, []), [[], []]),
        ({np.str_("a"): np.float64(1)}, {"a": 1.0}),
        ({np.int64(1): [np.int64(2)]}, {"$map": [[1, [2]]]}),
    ],
    ids=repr,
)  # fmt: skip
def test_forms_of_numpy_data(value, form):
    assert_same(form, to_json(value))


def test_plain_values_are_not_copied():
    for value in ([1, 2.5, None, "x"], [0.5] * 100, {"a": 1.5, "b": "x"}):
        assert to_json(value) is value


def test_large_arrays_are_stored_if_there_is_a_place():
    stored: list[np.ndarray] = []

    def store(array: np.ndarray) -> dict[str, Any]:
        stored.append(array)
        return {"$npy": "a.npy", "shape": list(array.shape), "dtype": array.dtype.str}

    small, large = np.zeros(ARRAY_INLINE), np.zeros((1, ARRAY_INLINE + 1))
    form = to_json({"x": (small, large, np.zeros((ARRAY_INLINE + 1, 0)))}, store)
    assert [array.shape for array in stored] == [(1, 1001), (1001, 0)]
    assert form["x"][0] == [0.0] * 1000
    assert form["x"][1] == {"$npy": "a.npy", "shape": [1, 1001], "dtype": "<f8"}
    assert to_json(large) == [[0.0] * 1001]
    assert to_json(large, lambda _: None) == [[0.0] * 1001]


def test_a_full_disk_is_not_the_value_s_fault():
    def store(_: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        to_json(np.zeros(2000), store)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            [{"x": decimal.Decimal(1)}],
            "decimal.Decimal at [0]['x'] can't travel; return float(...) or str(...)",
        ),
        (np.array([None]), "dtype object can't travel"),
        (dt.timedelta(1), "return its .total_seconds()"),
        (np.ma.masked_array([1], [True]), "mask would be lost"),
        (np.ndarray((1,), "U1", b"\xff" * 4), "can't travel"),
        (np.zeros((10**12, 0)), "an empty array of shape (1000000000000, 0) can't travel"),
    ],
)
def test_what_can_not_travel_has_no_form_either(value, told):
    with pytest.raises(CannotTravel, match=re.escape(told)):
        dumps(value)


def test_nesting_is_bounded():
    deepest: Any = 1
    for _ in range(MAX_DEPTH):
        deepest = {1: deepest}
    assert from_json(json.loads(dumps(deepest))) == deepest
    for deeper in ([deepest], {"x": deepest}, (deepest,), {1: deepest}):
        with pytest.raises(CannotTravel, match="nested deeper than 200 levels"):
            to_json(deeper)
    with pytest.raises(ValueError, match="nested deeper than 200 levels"):
        from_json([to_json(deepest)])
    loop: list[Any] = [1]
    loop.append({"x": loop})
    with pytest.raises(CannotTravel, match="contains itself"):
        to_json(loop)


# The text


@pytest.mark.parametrize(
    "number", [2**64, -(2**64), 10**4299, 10**50_000, -(7**60_000), 2**20_000 - 1], ids=int.bit_length
)
def test_an_int_has_all_its_digits(number):
    line = encode_line({"id": "a", "value": [number, 0, True, 1.5, None]})
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        assert line == b'{"id":"a","value":[%d,0,true,1.5,null]}' % number
    finally:
        sys.set_int_max_str_digits(limit)


@given(TEXT)
def test_a_lone_surrogate_is_written_as_its_escape(text):
    text += "\udcff"
    line = encode_line({text: [text, 1]})
    assert json.loads(line) == {text: [text, 1]}
    assert "\\udcff" in line.decode("ascii")


def test_a_struct_is_written_too():
    class Record(msgspec.Struct):
        value: Any
        stdout: str | msgspec.UnsetType = msgspec.UNSET

    assert encode_line(Record("x")) == b'{"value":"x"}'
    assert encode_line(Record("\ud800")) == b'{"value":"\\ud800"}'


def test_a_line_has_no_line_break():
    assert b"\n" not in encode_line({"a\n": "b\r\n\u2028", "\ud800\n": 1})


# Reading back


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ({"$date": "NaT"}, np.datetime64("NaT", "s")),
        ({"$date": "2024-02"}, np.datetime64("2024-02")),
        ({"$date": "12024-01-01"}, np.datetime64("12024-01-01")),
        ({"$date": "-0044-03-15"}, np.datetime64("-0044-03-15")),
        ({"$date": "2024-01-01T00:00:00.123456789"}, np.datetime64("2024-01-01T00:00:00.123456789")),
        ({"$map": [[[1, [2]], {"$map": []}]]}, {(1, (2,)): {}}),
        ({"$complex": [1, {"$float": "inf"}]}, complex(1, math.inf)),
        ({"a": dt.date(2024, 1, 1), 1: (2,)}, {"a": dt.date(2024, 1, 1), 1: (2,)}),
    ],
    ids=repr,
)
def test_forms_are_read_back(form, value):
    assert_same(value, from_json(form))


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"$flot": "nan"}, "'$flot': known are $float, $complex, $bytes, $date, $map"),
        ({"$npy": "r.jsonl.d/a.npy", "shape": [1], "dtype": "<f8"}, "'r.jsonl.d/a.npy' is a file of its own"),
        ({"$npy": 1}, "numpy.load"),
        ({"$float": "NaN"}, "{'$float': ...} with wrong content"),
        ({"$float": []}, "wrong content"),
        ({"$complex": [1]}, "wrong content"),
        ({"$complex": ["1", 2]}, "wrong content"),
        ({"$complex": None}, "wrong content"),
        ({"$bytes": "a"}, "wrong content"),
        ({"$bytes": "a\nb="}, "wrong content"),
        ({"$bytes": 1}, "wrong content"),
        ({"$date": "now"}, "'now' is no ISO 8601 date or time"),
        ({"$date": "2024-13-01"}, "wrong content"),
        ({"$date": 5}, "wrong content"),
        ({"$map": {"a": 1}}, "wrong content"),
        ({"$map": [[1]]}, "wrong content"),
        ({"$map": [[{}, 1]]}, "wrong content"),
        ({"$map": 1}, "wrong content"),
    ],
    ids=repr,
)
def test_a_form_that_is_none_is_refused(form, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        from_json([{"deep": form}])


def test_plain_values_need_no_numpy():
    code = "import sys, executor.jsonform as j; j.dumps([1j, {2: b''}]); sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
