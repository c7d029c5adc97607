"""Sizes as people write them: bytes, or text such as ``2GB``."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from executor.words import shown

#: The largest integer of a record: what 64 bits hold, so that every tool can read it in a results file.
MOST = 2**63 - 1

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([kmgtp])(i?))?b?", re.ASCII | re.IGNORECASE)


@lru_cache(1024)  # a file of a million tasks has a handful of limits
def parse_size(text: str) -> int:
    """Return the bytes that `text` stands for: ``2GB`` is 2 * 10**9, ``512MiB`` is 512 * 2**20, ``64`` is 64.

    The units are k, M, G, T, P (powers of 1,000) and Ki, Mi, Gi, Ti, Pi (powers of 1,024), in any case, with
    or without a B; the number may have decimals.

    Raises:
        ValueError: it is no such text, less than a byte, or more than `MOST` bytes.
    """
    if match := _SIZE.fullmatch(text.strip()):
        number, unit, binary = match.groups()
        power = " kmgtp".index(unit.lower()) if unit else 0
        size = Decimal(number) * (1024 if binary else 1000) ** power
        if 1 <= size <= MOST:
            return int(size)
    raise size_mistake(text)


def size_mistake(value: object) -> ValueError:
    """Return what to raise for a value that is no size."""
    return ValueError(f"must be an integer of bytes, or text such as 2GB or 512MiB, not {shown(value)}")
