"""Python values <-> bytes: the only place that serialises. Pure: no I/O, no state, never pickle or eval.

A value becomes a *head* of msgpack and, beside it, the memory of its large arrays and bytes objects, which
is not copied. What msgpack has (None, bool, 64-bit int, float, str, bytes, list, dict) is written as such;
the rest are its extension types:

    INT        two's complement, little-endian        an int beyond 64 bits
    STR        UTF-8 with surrogates                  a str that is not valid Unicode
    COMPLEX    two float64, little-endian
    TUPLE, SET, FROZENSET   [item, ...]
    MAP        [key, value, key, value, ...]          a dict with a key that is one of these extensions
    DATETIME, DATE, TIME    [ISO text, fold, zone, offset in microseconds]
    ARRAY      [dtype, shape, is Fortran, data]       data: bytes, or the index of a buffer
    SCALAR     [dtype, data]                          a NumPy scalar
    BUFFER     index                                  bytes that travel beside the head

A dtype is its string ("<f8"), [dtype, shape] for a subarray, or the dict that `numpy.dtype` takes for a
structured one. NumPy is imported only when an array arrives; on the way out it is looked up among the
modules that are loaded, since a value can't be an array before someone imported it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec.msgpack import Decoder, Encoder, Ext

from executor.arrays import dtype_form, is_legible, read_array, read_dtype
from executor.errors import BadFrame
from executor.travel import MAX_DEPTH, TooDeep, Unfit, as_base, cannot_travel, is_shallow

if TYPE_CHECKING:
    import numpy

    Array: TypeAlias = numpy.ndarray[Any, Any]

#: Arrays and bytes objects of at least so many bytes travel beside the head. Below it, one copy is
#: cheaper than what a part of its own costs on the wires.
OUT_OF_BAND = 65536

INT, STR, COMPLEX, TUPLE, SET, FROZENSET, MAP, DATETIME, DATE, TIME, ARRAY, SCALAR, BUFFER = range(1, 14)

#: Of the containers that msgpack lacks.
CODES: dict[type, int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}
_KINDS = {code: kind for kind, code in CODES.items()}

_ENCODER = Encoder()

#: What msgpack holds as it is, whatever the value.
_ATOMS = frozenset({type(None), bool, float})
#: What it holds as it is but for few values, at which the encoder raises one of `BEYOND_MSGPACK`.
SCALARS = _ATOMS | {int, str}
#: An int beyond 64 bits; a lone surrogate; to an encoder that sorts, a key that is no str.
BEYOND_MSGPACK = (OverflowError, UnicodeEncodeError, TypeError)

_COMPLEX = struct.Struct("<dd")


class _Moment(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A date, a time or both. The offset stands in for a zone that the receiver does not know."""

    text: str
    fold: int = 0
    zone: str | None = None
    offset: int | None = None


class _Array(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    dtype: Any
    shape: tuple[int, ...]
    fortran: bool
    data: memoryview | int


def encode(value: Any) -> list[bytes | memoryview]:
    """Return the head, followed by the buffers that it refers to by index.

    The buffers are the value's own memory (an array's as it lies, in C or Fortran order), so send them
    before anyone changes the value. Most values have none.

    Raises:
        CannotTravel: the value, or something in it, has no form on the wire.
    """
    try:
        if is_plain(value):
            try:
                return [_ENCODER.encode(value)]
            except BEYOND_MSGPACK:
                pass
        writer = Writer()
        return [_ENCODER.encode(writer.pack(value)), *writer.buffers]
    except Exception as error:  # the value's own methods ran, which may raise anything
        raise cannot_travel(value, error) from error


def decode(parts: Sequence[bytes | bytearray | memoryview]) -> Any:
    """Return the value of which `parts` are the head and the buffers.

    Arrays are writable: one in a writable part (a bytearray, say) uses that memory and keeps it alive, any
    other is copied once. Each buffer must be used exactly once.

    Raises:
        BadFrame: `encode` makes no such bytes. Nothing else is raised, whatever the bytes are.
    """
    reader = _INLINE if len(parts) == 1 else _Reader(parts[1:])
    try:
        value = reader.decode(parts[0])
        if reader.buffers:
            raise BadFrame(f"{len(reader.buffers)} of {len(parts) - 1} buffers belong to no value")
        # A level of nesting takes a byte at least, so a short head needs no look.
        if len(parts[0]) > MAX_DEPTH and not is_shallow(value, MAX_DEPTH):
            raise BadFrame(f"a value nested deeper than {MAX_DEPTH} levels")
        return value
    except BadFrame:
        raise
    except Exception as error:  # msgspec, NumPy, datetime and others each raise their own
        raise BadFrame(f"not a value of ours: {error}") from error
    finally:
        reader.buffers.clear()  # it lies in a reference cycle, which would keep what a bad frame left there


def decode_call(
    head: bytes | bytearray | memoryview, buffers: Sequence[bytes | bytearray | memoryview] = ()
) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name of the function and the arguments of a call that was encoded as a list of the three.

    Raises:
        BadFrame: `head` is no such list, or as `decode`.
    """
    if not buffers:
        try:
            call = _CALL.decode(head)
            if len(head) <= MAX_DEPTH or is_shallow(list(call), MAX_DEPTH):
                return call
        except Exception:  # what it is, or what is wrong with it, is found below
            pass
    match decode([head, *buffers]):
        case [str(name), list(params), dict(kwargs)]:
            return name, params, kwargs
    raise BadFrame("not a function and its arguments")


def is_plain(value: Any, room: int = MAX_DEPTH) -> bool:
    """Tell whether msgspec alone writes `value` so that it comes back as exactly what it was."""
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind is list:
        items = value
    elif kind is dict:
        items = [*value, *value.values()]
    else:
        return kind is bytes and len(value) < OUT_OF_BAND
    if not room:
        return False
    # Over long lists a call that stays in C pays; over short ones it costs more than the loop.
    if len(items) > 8 and SCALARS.issuperset(map(type, items)):
        return True
    room -= 1
    for item in items:  # noqa: SIM110 - all() over a generator takes twice as long
        if type(item) not in SCALARS and not is_plain(item, room):
            return False
    return True


# --- Out: a value becomes a tree of plain values and extensions -------------------------------------------


class Writer:
    """Turns one value into what msgspec writes; `buffers` gathers what travels beside it."""

    encoder = _ENCODER

    def __init__(self) -> None:
        self.buffers: list[bytes | memoryview] = []

    def pack(self, value: Any, room: int = MAX_DEPTH) -> Any:
        """Return `value` as plain values and `Ext`, where `room` more containers may lie inside each other.

        Raises:
            Unfit: something in it can't travel.
        """
        kind = type(value)
        if kind in _ATOMS:
            return value
        method = _PACK.get(kind)
        if method is None:
            value = as_base(value)
            if type(value) is float:
                return value
            method = _PACK.get(type(value), "_pack_numpy")
        return getattr(self, method)(value, room)

    def _pack_all(self, items: Iterable[Any], room: int) -> list[Any]:
        if not room:
            raise TooDeep(items)
        return list(map(self.pack, items, repeat(room - 1)))  # a comprehension is one more frame a level

    def _pack_int(self, value: int, room: int) -> int | Ext:
        if -(2**63) <= value < 2**64:
            return value
        return Ext(INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))

    def _pack_str(self, value: str, room: int) -> str | Ext:
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            return Ext(STR, value.encode("utf-8", "surrogatepass"))
        return value

    def _pack_bytes(self, value: bytes, room: int) -> bytes | Ext:
        return value if len(value) < OUT_OF_BAND else Ext(BUFFER, self.encoder.encode(self._beside(value)))

    def _pack_complex(self, value: complex, room: int) -> Ext:
        return Ext(COMPLEX, _COMPLEX.pack(value.real, value.imag))

    def _pack_list(self, value: list[Any], room: int) -> list[Any]:
        return self._pack_all(value, room)

    def _pack_items(self, value: tuple[Any, ...] | set[Any] | frozenset[Any], room: int) -> Ext:
        code = CODES[type(value)]
        if is_plain([*value], room):
            try:
                return Ext(code, self.encoder.encode(value))
            except BEYOND_MSGPACK:
                pass
        return Ext(code, self.encoder.encode(self._pack_all(value, room)))

    _pack_set = _pack_items

    def _pack_dict(self, value: dict[Any, Any], room: int) -> dict[Any, Any] | Ext:
        keys = self._pack_all(value, room)
        values = self._pack_all(value.values(), room)
        if Ext not in map(type, keys):
            return dict(zip(keys, values, strict=True))
        return Ext(MAP, self.encoder.encode([x for pair in zip(keys, values, strict=True) for x in pair]))

    def _pack_moment(self, value: datetime | time, room: int) -> Ext:
        zoneinfo: Any = sys.modules.get("zoneinfo")
        zone: Any = value.tzinfo if zoneinfo and isinstance(value.tzinfo, zoneinfo.ZoneInfo) else None
        offset = value.utcoffset()
        moment = _Moment(
            text=value.replace(tzinfo=None).isoformat(),
            fold=value.fold,
            zone=zone and zone.key,
            offset=None if offset is None else offset // timedelta.resolution,
        )
        return Ext(DATETIME if type(value) is datetime else TIME, self.encoder.encode(moment))

    def _pack_date(self, value: date, room: int) -> Ext:
        return Ext(DATE, self.encoder.encode(_Moment(value.isoformat())))

    def _pack_numpy(self, value: Any, room: int) -> Ext:
        import numpy

        if value.dtype.kind in "UMV" and not is_legible(numpy.asarray(value)):
            raise Unfit(value, f"unreadable NumPy data of dtype {value.dtype}", "what was filled in")
        return self._pack_array(value) if isinstance(value, numpy.ndarray) else self._pack_scalar(value)

    def _pack_array(self, value: Array) -> Ext:
        dtype = self._pack_dtype(value)
        data: Any
        if value.nbytes < OUT_OF_BAND:
            data = value.tobytes("A")
        else:
            data = self._beside(value.ravel("A").view("u1").data)
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        return Ext(ARRAY, self.encoder.encode(_Array(dtype, value.shape, fortran, data)))

    def _pack_scalar(self, value: Any) -> Ext:
        form: list[Any]
        if isinstance(value, str):  # as an array it would lose its trailing NULs
            form = ["U", self.pack(str.__str__(value))]
        elif isinstance(value, bytes):
            form = ["S", bytes(value)]
        else:
            form = [self._pack_dtype(value), value.tobytes()]
        return Ext(SCALAR, self.encoder.encode(form))

    def _pack_dtype(self, owner: Any) -> Any:
        form = dtype_form(owner.dtype, owner)
        return form if type(form) is str else self.pack(form)

    def _beside(self, buffer: bytes | memoryview) -> int:
        self.buffers.append(buffer)
        return len(self.buffers) - 1


#: The writer's method for each type that travels, but for NumPy's.
_PACK = {
    int: "_pack_int",
    str: "_pack_str",
    bytes: "_pack_bytes",
    complex: "_pack_complex",
    list: "_pack_list",
    tuple: "_pack_items",
    set: "_pack_set",
    frozenset: "_pack_set",
    dict: "_pack_dict",
    datetime: "_pack_moment",
    time: "_pack_moment",
    date: "_pack_date",
}


# --- In: what the bytes claim is checked before memory is taken for it ------------------------------------


class _Reader:
    """Decodes one head; `buffers` holds those of its buffers that it has not used yet."""

    def __init__(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        self.buffers = dict(enumerate(buffers))
        self.decode = Decoder(ext_hook=self.unpack).decode

    def unpack(self, code: int, data: memoryview) -> Any:
        if code in _LEAVES:
            return _LEAVES[code](self, data)
        items = self.decode(data)
        if type(items) is not list:
            raise BadFrame(f"a list was due, not {type(items).__name__}")
        if code == MAP:
            pairs = iter(items)
            return dict(zip(pairs, pairs, strict=True))
        return _KINDS[code](items)

    def array(self, data: memoryview) -> Array:
        form = _ARRAY.decode(data)
        like = read_dtype(form.dtype), form.shape, "F" if form.fortran else "C"
        if not isinstance(form.data, int):
            return read_array(bytearray(form.data), *like)
        buffer = memoryview(self.take(form.data)).cast("B")
        array = read_array(buffer, *like)
        # Unaligned: a slice of a larger frame, which some C code can't read.
        in_place = array.flags.writeable and array.flags.aligned
        return array if in_place else read_array(bytearray(buffer), *like)

    def scalar(self, data: memoryview) -> Any:
        import numpy

        dtype, content = self.decode(data)
        if dtype == "U" and type(content) is str:
            return numpy.str_(content)
        if type(content) is not bytes:
            raise BadFrame("a NumPy scalar without its bytes")
        if dtype == "S":
            return numpy.bytes_(content)
        return read_array(bytearray(content), read_dtype(dtype))[()]

    def take(self, index: Any) -> bytes | bytearray | memoryview:
        if index not in self.buffers:
            raise BadFrame(f"there is no buffer {index!r}, or it was used before")
        return self.buffers.pop(index)


_LEAVES: dict[int, Callable[[_Reader, memoryview], Any]] = {
    INT: lambda _, data: int.from_bytes(data, "little", signed=True),
    STR: lambda _, data: str(data, "utf-8", "surrogatepass"),
    COMPLEX: lambda _, data: complex(*_COMPLEX.unpack(data)),
    DATETIME: lambda _, data: _in_zone(datetime, data),
    DATE: lambda _, data: date.fromisoformat(_MOMENT.decode(data).text),
    TIME: lambda _, data: _in_zone(time, data),
    ARRAY: _Reader.array,
    SCALAR: _Reader.scalar,
    BUFFER: lambda reader, data: bytes(reader.take(reader.decode(data))),
}

#: For values without buffers: to make a decoder takes longer than to decode most values.
_INLINE = _Reader(())

#: The `ext_hook` with which another decoder reads such values in its messages. It raises whatever is wrong.
read_extension = _INLINE.unpack
_CALL: Decoder[tuple[str, list[Any], dict[str, Any]]] = Decoder(
    tuple[str, list[Any], dict[str, Any]], ext_hook=_INLINE.unpack
)
_MOMENT: Decoder[_Moment] = Decoder(_Moment)
_ARRAY: Decoder[_Array] = Decoder(_Array, ext_hook=_INLINE.unpack)


def _in_zone(kind: type[datetime] | type[time], data: memoryview) -> datetime | time:
    moment = _MOMENT.decode(data)
    zone: tzinfo | None = None
    if moment.offset is not None:
        zone = timezone(timedelta(microseconds=moment.offset))
    if moment.zone is not None:
        from zoneinfo import ZoneInfo

        try:
            zone = ZoneInfo(moment.zone)
        except (KeyError, ValueError, OSError):  # not in this machine's database: the instant is the same
            if zone is None:
                raise
    return kind.fromisoformat(moment.text).replace(tzinfo=zone, fold=moment.fold)
