from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import pathlib
import random
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from executor import codec
from executor.codec import OUT_OF_BAND, decode, encode
from executor.content import canonical, canonical_json
from executor.errors import BadFrame, CannotTravel
from executor.travel import MAX_DEPTH
from tests.unit.strategies import VALUES, arrays, assert_same

Point = collections.namedtuple("Point", "x y")


def there_and_back(value: Any) -> Any:
    """Return what arrives when the parts cross a wire that gives bytes."""
    return decode([bytes(part) for part in encode(value)])


def nest(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


# What travels


@given(VALUES)
@settings(max_examples=500)
def test_a_value_comes_back_as_exactly_what_it_was(value):
    assert_same(value, there_and_back(value))


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        -(10**5000),
        float("nan"),
        -0.0,
        "\ud800 and \udfff",
        {"\ud800": [2**64]},
        complex(float("-inf"), -0.0),
        {1: "int", None: 0, (1, frozenset({2})): [], b"k": {}, 2.5: (), "s": set()},
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=7))),
        dt.time(1, 2, 3, 4, tzinfo=ZoneInfo("Europe/Paris")),
        np.str_("ends in NUL\0"),
        np.bytes_(b"\0"),
        np.void(b""),
        np.longdouble("1.1"),
        np.datetime64("NaT", "s"),
        np.datetime64("NaT", "s").astype("M8"),
        np.timedelta64(3, "25s"),
        np.array([-1, 0, 1], ">i8").view(">M8[25us]"),
        np.array(3.5),
        np.zeros((3, 0, 2), ">f4"),
        np.array(["a", ""], "U0"),
        np.ndarray((3,), "S0", bytearray()),
        np.asfortranarray(np.arange(6, dtype="f2").reshape(2, 3)),
        np.zeros(2, np.dtype([(("title", "a"), "i1"), ("b", ">f8", (2, 2))], align=True)),
        np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [2, 0]})),
        np.zeros(2, [("\ud800", "i4")]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_so_do_these(value):
    assert_same(value, there_and_back(value))


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Point(1, [2]), (1, [2])),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (enum.IntEnum("E", "ONE").ONE, 1),
        (enum.StrEnum("E", "ONE").ONE, "one"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (type("Text", (str,), {"__str__": lambda _: "other"})("text"), "text"),
        (type("Real", (float,), {})(1.5), 1.5),
        (type("Day", (dt.date,), {})(2024, 2, 29), dt.date(2024, 2, 29)),
        (type("Time", (dt.time,), {})(1, 2, tzinfo=dt.UTC), dt.time(1, 2, tzinfo=dt.UTC)),
        (type("Moment", (dt.datetime,), {})(2024, 1, 1, fold=1), dt.datetime(2024, 1, 1, fold=1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_travels_as_its_base(value, base):
    assert_same(base, there_and_back(value))
    assert_same([base, {"key": base}], there_and_back([value, {"key": value}]))
    assert canonical(value) == canonical(base)


def test_a_matrix_and_a_record_array_travel_as_arrays():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1, 2]])
    assert_same(np.array([[1, 2]]), there_and_back(matrix))
    fields = np.zeros(2, [("a", "i4")])
    assert_same(fields, there_and_back(fields.view(np.recarray)))


def test_a_zone_that_is_unknown_here_becomes_its_offset(monkeypatch):
    moment = dt.datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Paris"))
    parts = encode(moment)
    monkeypatch.setattr("zoneinfo.ZoneInfo", lambda key: {}[key])
    assert decode(parts) == moment
    assert decode(parts).tzinfo == dt.timezone(dt.timedelta(hours=2))


# Memory


def test_a_large_array_is_copied_by_neither_end():
    value = np.arange(OUT_OF_BAND, dtype="u1").reshape(256, -1, order="F")
    head, buffer = encode({"x": value})
    assert len(head) < 100
    assert np.shares_memory(value, np.frombuffer(buffer, "u1"))

    part = bytearray(buffer)
    arrived = decode([head, part])["x"]
    assert np.shares_memory(arrived, np.frombuffer(part, "u1"))
    assert arrived.flags.f_contiguous
    assert arrived.flags.writeable
    assert (arrived == value).all()


@pytest.mark.parametrize("wire", [bytes, lambda part: memoryview(bytearray(b"." + bytes(part)))[1:]])
def test_from_memory_that_is_read_only_or_unaligned_it_is_copied(wire):
    value = np.arange(OUT_OF_BAND / 8)
    head, buffer = encode(value)
    part = wire(buffer)
    arrived = decode([head, part])
    assert not np.shares_memory(arrived, np.frombuffer(part, "u1"))
    assert arrived.flags.aligned
    assert_same(value, arrived)


def test_large_bytes_travel_beside_the_head():
    value = [bytes(OUT_OF_BAND), b"small", bytes(OUT_OF_BAND - 1), {bytes(OUT_OF_BAND): 1}]
    parts = encode(value)
    assert [len(part) for part in parts[1:]] == [OUT_OF_BAND] * 2
    assert parts[1] is value[0]
    assert decode(parts) == value


@pytest.mark.parametrize("dtype", ["u1", ">f8", "U3", "M8[s]", [("a", "i1"), ("b", "U2")]])
@pytest.mark.parametrize(
    "cut",
    [
        lambda array: array,
        lambda array: array[::-2],
        lambda array: array.reshape(2, -1)[:, ::2],
        lambda array: array.reshape(2, 2, -1).transpose(1, 0, 2),
        lambda array: array.reshape(2, 2, -1).T,
        lambda array: np.broadcast_to(array[0], (3, 50_000)),
    ],
)
def test_a_large_array_in_pieces_becomes_whole(dtype, cut):
    value = cut((np.arange(3 * OUT_OF_BAND) % 100).astype(dtype))
    arrived = there_and_back(value)
    assert_same(value.copy("A") if not value.flags.forc else value, arrived)


def test_plain_values_need_no_numpy():
    code = (
        "import sys, executor.codec as c; c.decode(c.encode([1, {(2,)}])); sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What does not travel


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "a value of type object can't travel; return plain values, NumPy arrays, or write a file"),
        ([1, {"x": (0, range(3))}], "a value of type range at [1]['x'][1] can't travel; return list(...)"),
        ({(1, open): 2}, "builtin_function_or_method at [...][1] can't travel; return its name"),
        ((i for i in ()), "a value of type generator can't travel; return list(...)"),
        ({}.keys(), "a value of type dict_keys can't travel; return list(...)"),
        (map(abs, []), "a value of type map can't travel; return list(...)"),
        (decimal.Decimal(1), "decimal.Decimal can't travel; return float(...) or str(...)"),
        (pathlib.PurePosixPath("a"), "PurePosixPath can't travel; return str(...)"),
        (enum.Enum("E", "ONE").ONE, "E can't travel; return its .value"),
        (dt.timedelta(1), "return its .total_seconds()"),
        (ValueError("x"), "a value of type ValueError can't travel; return str(...)"),
        (array.array("d", [1]), "return list(...)"),
        (dataclasses.make_dataclass("Data", "x")(1), "Data can't travel; return dataclasses.asdict(...)"),
        (msgspec.Raw(b"1"), "a value of type msgspec.Raw can't travel"),
        (Ext(1, b""), "a value of type msgspec.msgpack.Ext can't travel"),
        (
            np.array([None]),
            "NumPy data of dtype object can't travel; return numbers, or text as .astype('U20')",
        ),
        ([np.zeros(1, [("a", "i4"), ("b", object)])], "dtype object at [0] can't travel"),
        (np.array(["a"], np.dtypes.StringDType()), "dtype StringDType() can't travel"),
        (np.ma.masked_array([1], [True]), "can't travel; return its .filled(...), as the mask would be lost"),
        (np.ndarray((1,), "U1", b"\xff" * 4), "unreadable NumPy data of dtype <U1 can't travel"),
        (np.zeros(1, [("a", "M8")])[0], "unreadable NumPy data of dtype [('a', '<M8')] can't travel"),
        (nest(40, lambda inner: np.dtype([("a", inner)]) if inner != 1 else np.dtype("f8")).type, "type"),
    ],
    ids=lambda value: value[-30:] if isinstance(value, str) else "",
)
def test_what_can_not_travel_is_named_with_its_place_and_the_remedy(value, told):
    for write in (encode, canonical):
        with pytest.raises(CannotTravel) as caught:
            write(value)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_open_file_can_not_travel():
    with (
        pathlib.Path(__file__).open() as file,
        pytest.raises(CannotTravel, match="what it holds, or its path"),
    ):
        encode(file)


def test_classes_of_packages_that_are_not_here_get_their_own_advice():
    frame = type("DataFrame", (), {"__module__": "pandas.core.frame"})
    with pytest.raises(
        CannotTravel, match=r"pandas.core.frame.DataFrame can't travel; return its .to_dict\('list'\)"
    ):
        encode(frame())


def test_a_timestamp_finer_than_a_datetime_is_refused():
    stamp = type("Timestamp", (dt.datetime,), {"nanosecond": 1})
    with pytest.raises(CannotTravel):
        encode(stamp(2024, 1, 1))


def test_a_class_whose_methods_raise_can_not_travel():
    def fail(*_):
        raise ZeroDivisionError("on purpose")

    for value in (
        type("L", (list,), {"__iter__": fail})([1]),
        type("D", (dict,), {"keys": fail, "__iter__": fail})(a=1),
        dt.datetime(2024, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {"utcoffset": fail})()),
    ):
        with pytest.raises(CannotTravel):
            encode([value])


WRAPS = {
    "list": lambda inner: [inner],
    "list of two": lambda inner: [0, inner],
    "tuple": lambda inner: (inner,),
    "set": lambda inner: frozenset([inner]),
    "dict": lambda inner: {"a": inner},
    "map": lambda inner: {(): inner},
    "subclass": lambda inner: collections.deque([inner], 1) and collections.UserList([inner]).data,
    "namedtuple": lambda inner: Point(inner, 0),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_values_nest_as_deep_as_promised_and_no_deeper(wrap):
    levels = MAX_DEPTH - (() in wrap(0) if isinstance(wrap(0), dict) else 0)  # its key is a level too
    deepest = nest(levels, wrap)
    canonical(deepest)
    assert there_and_back(deepest) == deepest
    for levels in (MAX_DEPTH + 1, 100_000):
        for write in (encode, canonical):
            with pytest.raises(CannotTravel, match="nested deeper than 200 levels"):
                write(nest(levels, wrap))


def test_a_value_that_contains_itself_can_not_travel():
    value: dict[str, Any] = {"x": [0, (1,)]}
    value["x"].append((value,))
    for write in (encode, canonical):
        with pytest.raises(CannotTravel, match="a value that contains itself can't travel"):
            write([1, value])


# The canonical form


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON, st.sampled_from([0, 0, MAX_DEPTH - 20, MAX_DEPTH - 2, MAX_DEPTH, 2000]))
def test_what_json_gave_has_the_same_canonical_bytes(value, levels):
    value = nest(levels, lambda inner: [inner, value])
    try:
        expected = canonical(value)
    except CannotTravel as error:
        with pytest.raises(CannotTravel, match=re.escape(str(error))):
            canonical_json(value)
    else:
        assert canonical_json(value) == expected


@given(VALUES, st.randoms(use_true_random=False))
def test_equal_content_has_equal_canonical_bytes(value, rng):
    assert canonical(value) == canonical(shuffled(value, rng))
    assert canonical(value) == canonical(there_and_back(value))


def shuffled(value: Any, rng: random.Random) -> Any:
    """Return `value` with its dicts and sets built in another order, and its arrays lying another way."""
    if isinstance(value, dict):
        items = [(shuffled(key, rng), shuffled(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list | tuple | set | frozenset):
        items = [shuffled(item, rng) for item in value]
        if isinstance(value, set | frozenset):
            rng.shuffle(items)
        return type(value)(items)
    if isinstance(value, np.ndarray):
        return value.copy(order=rng.choice("CF")) if value.dtype.itemsize else value
    return value


@pytest.mark.parametrize(
    "values",
    [
        [
            1,
            1.0,
            True,
            "1",
            b"1",
            1j,
            [1],
            (1,),
            {1},
            frozenset({1}),
            {1: 1},
            {"1": 1},
            np.int64(1),
            np.array(1),
        ],
        [
            [1, 2],
            [[1], 2],
            [2, 1],
            [1, 2, None],
            np.array([1, 2]),
            np.array([1, 2], ">i8"),
            np.array([[1, 2]]),
        ],
        [{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1}, {("a", 1): ("b", 2)}, [["a", 1], ["b", 2]]],
        [2**64, -(2**64), "\ud800", b"\xed\xa0\x80", np.longdouble(1), np.nextafter(np.longdouble(1), 2)],
    ],
)
def test_other_content_has_other_canonical_bytes(values):
    assert len({canonical(value) for value in values}) == len(values)


def test_bytes_that_nobody_set_do_not_count():
    aligned = np.dtype([("a", "i1"), ("b", "g")], align=True)
    for filler in (b"\x00", b"\xff"):
        array = np.ndarray((2,), aligned, bytearray(filler * aligned.itemsize * 2))
        array["a"], array["b"] = 1, 1.5
        forms = {canonical(array), canonical(np.zeros(0, aligned))}
    zeros = np.zeros(2, aligned)
    zeros["a"], zeros["b"] = 1, 1.5
    assert canonical(zeros) in forms


def test_the_canonical_form_is_the_same_in_every_process():
    value = "{'b': {1, 'x', (2, 3)}, 'a': frozenset('hello'), 3: [2**70, 1.5]}"
    code = f"from executor.content import canonical; print(canonical({value}).hex())"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(runs) == 1


# What arrives from others


def decode_or_refuse(parts: list[bytes]) -> None:
    try:
        value = decode(parts)
    except BadFrame:
        return
    canonical_or_refuse(value)


def canonical_or_refuse(value: Any) -> None:
    """What was decoded can be looked at, and sent on if it is of our making."""
    repr(value)
    try:
        encode(value)
    except CannotTravel as error:
        raise AssertionError(f"it came, but can't go: {value!r}") from error


@given(st.lists(st.binary(max_size=200), max_size=3))
@settings(max_examples=1000)
@example([])
@example([b"\xc1"])
@example([b"\xdd\xff\xff\xff\xff"])
@example([b"\xdf\xff\xff\xff\xff"])
@example([b"\xdd\xff\xff\xff\xff" * 500])
@example([b"\xc6\xff\xff\xff\xff"])
def test_random_bytes_are_refused_with_bad_frame_alone(parts):
    decode_or_refuse(parts)


#: Where (of any part), how many bytes go, and which come in their place.
CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.integers(0, 8), st.binary(max_size=4)), min_size=1, max_size=3
)


@given(VALUES | arrays(), CHANGES)
@settings(max_examples=500)
def test_changed_bytes_are_refused_with_bad_frame_alone(value, changes):
    parts = [bytearray(part) for part in encode(value)]
    for place, gone, new in changes:
        part = parts[place % len(parts)]
        start = place % (len(part) + 1)
        part[start : start + gone] = new
    decode_or_refuse([bytes(part) for part in parts])


@pytest.mark.parametrize("marker", [b"\x91", b"\x81\x01", b"\x81", b"\xdc\x00\x01"])
def test_deep_nesting_is_refused(marker):
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(BadFrame):
            decode([marker * levels + b"\x01"])


@pytest.mark.parametrize("code", [codec.TUPLE, codec.MAP, codec.FROZENSET])
def test_deep_nesting_of_extensions_is_refused(code):
    head = b"\x01"
    for _ in range(5000):
        head = msgspec.msgpack.encode(Ext(code, b"\x91" + head))
    with pytest.raises(BadFrame):
        decode([head])


def array_head(dtype: Any, shape: Any, data: Any, fortran: Any = False) -> bytes:
    return msgspec.msgpack.encode(Ext(codec.ARRAY, msgspec.msgpack.encode([dtype, shape, fortran, data])))


FIELD = {
    "names": ["a"],
    "formats": ["<f8"],
    "offsets": [0],
    "titles": [None],
    "itemsize": 8,
    "aligned": False,
}


@pytest.mark.parametrize(
    "head",
    [
        array_head("<f8", [2**40], b""),
        array_head("<f8", [-1], b""),
        array_head("<f8", [-1, -1], bytes(8)),
        array_head("<f8", [0, 2**62], b""),
        array_head("<f8", [0, 2**70 - 2**70 + 2**63], b""),
        array_head("<f8", [1] * 100, bytes(8)),
        array_head("<f8", [1], bytes(7)),
        array_head("<f8", [1.0], bytes(8)),
        array_head("<f8", [1], 0),
        array_head("<f8", [1], -1),
        array_head("|O", [1], bytes(8)),
        array_head("O", [1], bytes(8)),
        array_head("f8,O", [1], bytes(16)),
        array_head("(2,)f8", [1], bytes(16)),
        array_head("<U2147483647", [0], b""),
        array_head("<U1", [1], b"\xff" * 4),
        array_head("<M8", [1], bytes(8)),
        array_head(["<f8", [2**20, 2**20]], [0], b""),
        array_head(["<f8", [-1]], [0], b""),
        array_head(["<f8"], [0], b""),
        array_head([], [0], b""),
        array_head({}, [0], b""),
        array_head(None, [0], b""),
        array_head(FIELD | {"formats": ["|O"]}, [1], bytes(8)),
        array_head(FIELD | {"offsets": [-8]}, [1], bytes(8)),
        array_head(FIELD | {"offsets": [8]}, [1], bytes(8)),
        array_head(FIELD | {"itemsize": 2**40}, [0], b""),
        array_head(FIELD | {"names": ["a", "b"]}, [1], bytes(8)),
        array_head(FIELD | {"names": [1]}, [1], bytes(8)),
        array_head(
            nest(100, lambda inner: FIELD | {"formats": [inner if inner != 1 else "<f8"]}), [1], bytes(8)
        ),
        msgspec.msgpack.encode(Ext(codec.SCALAR, msgspec.msgpack.encode(["<f8", bytes(9)]))),
        msgspec.msgpack.encode(Ext(codec.SCALAR, msgspec.msgpack.encode(["<f8", "12345678"]))),
        msgspec.msgpack.encode(Ext(codec.SCALAR, msgspec.msgpack.encode(["U", b"12"]))),
        msgspec.msgpack.encode(Ext(codec.SCALAR, msgspec.msgpack.encode(["|O", bytes(8)]))),
        msgspec.msgpack.encode(Ext(codec.BUFFER, b"\x00")),
        msgspec.msgpack.encode(Ext(codec.BUFFER, b"\x90")),
        msgspec.msgpack.encode(Ext(codec.MAP, b"\x91\x01")),
        msgspec.msgpack.encode(Ext(codec.MAP, b"\x92\x80\x01")),
        msgspec.msgpack.encode(Ext(codec.SET, b"\x91\x80")),
        msgspec.msgpack.encode(Ext(codec.TUPLE, b"\xa1a")),
        msgspec.msgpack.encode(Ext(codec.COMPLEX, bytes(15))),
        msgspec.msgpack.encode(Ext(codec.STR, b"\xff")),
        msgspec.msgpack.encode(Ext(codec.DATE, b"\x94\xa3now\x00\xc0\xc0")),
        msgspec.msgpack.encode(Ext(100, b"")),
    ],
)
def test_what_we_never_write_is_refused_before_memory_is_taken_for_it(head):
    with pytest.raises(BadFrame):
        decode([head])


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "/etc/passwd", "", "a\0b", "America", "x" * 5000, "Nowhere"]
)
def test_a_zone_is_a_name_and_no_path(zone):
    for form, kind in (
        (["2024-01-01T00:00:00", 0, zone, 0], dt.datetime),
        (["00:00:00", 0, zone, None], None),
    ):
        head = msgspec.msgpack.encode(
            Ext(codec.DATETIME if kind else codec.TIME, msgspec.msgpack.encode(form))
        )
        if kind:
            assert decode([head]).tzinfo == dt.UTC
        else:
            with pytest.raises(BadFrame):
                decode([head])


def test_each_buffer_is_used_exactly_once():
    head, buffer = encode(np.zeros(OUT_OF_BAND, "u1"))
    with pytest.raises(BadFrame, match="belong to no value"):
        decode([head, buffer, buffer])
    with pytest.raises(BadFrame, match="no buffer"):
        decode([head])
    twice = msgspec.msgpack.encode([Ext(codec.BUFFER, b"\x00")] * 2)
    with pytest.raises(BadFrame, match="used before"):
        decode([twice, buffer])


@pytest.mark.parametrize(
    "call",
    [
        ["min", [1, 2], {}],
        ["f", [(1, 2), 3 + 4j, {1: {2}}], {"key": None, "\udc80": 2**70}],
        ["f", [[[["x" * 300]]]], {}],
        ["f", [np.arange(20_000.0)], {"a": b"x" * 100_000}],
    ],
)
def test_a_call_comes_back(call: list[Any]) -> None:
    head, *buffers = codec.encode(call)
    name, params, kwargs = codec.decode_call(head, buffers)
    assert repr([name, params, kwargs]) == repr(call)


@pytest.mark.parametrize("other", [None, [], ["f", [], {}, 1], [1, [], {}], ["f", (1,), {}], ["f", [], []]])
def test_what_is_no_call_is_a_bad_frame(other: object) -> None:
    with pytest.raises(BadFrame):
        codec.decode_call(codec.encode(other)[0])
