"""Reports that stay encoded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.messages import NIL, Buffer, Report, Reports, Sealed, decode, encode
from executor.packed import join, pack
from executor.task import MEMORY_LIMIT
from executor.work import fitting
from tests.unit.strategies import reports


def large(place: int, *sizes: int) -> tuple[Report, list[Buffer]]:
    return Report(place, 1, "ok", msgspec.Raw(b"\x01"), len(sizes)), [bytes([place]) * size for size in sizes]
