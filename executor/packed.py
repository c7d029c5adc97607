"""Reports that stay encoded on their way from a child through its worker to the wire. Pure.

Who passes them on needs to know how many there are, and of which run; what is in them is read at the far end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from executor.messages import Buffer, Report, share_out

#: The head of an array in MessagePack: 0xDD, and the number of its items. Always this form, of five bytes.
_HEAD = struct.Struct(">BI")

_encode = msgspec.msgpack.Encoder().encode
_reports = msgspec.msgpack.Decoder(list[Report])


class _Named(msgspec.Struct, array_like=True, gc=False):
    """The beginning of a `Report`: the rest is skipped."""

    place: int
    attempt: int


_names = msgspec.msgpack.Decoder(list[_Named])


class Packed(msgspec.Struct, frozen=True):
    """`count` reports: `array` is one of them all in MessagePack; and the large buffers of their values."""

    count: int
    array: msgspec.Raw
    buffers: Sequence[Buffer] = ()

    @property
    def size(self) -> int:
        """Bytes of it all."""
        return len(self.array) + sum(map(len, self.buffers))

    def reports(self) -> list[Report]:
        """Return the reports themselves."""
        return _reports.decode(self.array)

    def each(self) -> Iterator[tuple[Report, Sequence[Buffer]]]:
        """Yield the reports, each with its own buffers."""
        reports = self.reports()
        shares = share_out(reports, self.buffers) if self.buffers else {}
        for index, report in enumerate(reports):
            yield report, shares.get(index, ())

    def attempts(self) -> Iterator[tuple[int, int]]:
        """Yield the place and the attempt that each report is of."""
        for named in _names.decode(self.array):
            yield named.place, named.attempt


def pack(reports: Sequence[Report], buffers: Sequence[Buffer] = ()) -> Packed:
    """Return reports in packed form."""
    return Packed(len(reports), _array(map(_encode, reports), len(reports)), buffers)


def join(some: Sequence[Packed]) -> Packed:
    """Return the reports of several as one."""
    if len(some) == 1:
        return some[0]
    count = sum(each.count for each in some)
    whole = _array((memoryview(each.array)[_HEAD.size :] for each in some), count)
    return Packed(count, whole, [buffer for each in some for buffer in each.buffers])


def _array(items: Iterable[Buffer], count: int) -> msgspec.Raw:
    """Return `count` encoded items, which may stand together in one buffer, as an array."""
    return msgspec.Raw(b"".join((_HEAD.pack(0xDD, count), *items)))
