"""JSON as people write it: `load` for the texts of task files.

It takes the words NaN and Infinity and integers of any size, as Python's own reader does, at msgspec's speed
where it can. A key that stands twice in an object is found: one of its two values would be lost.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec


class Ambiguous(dict[Any, Any]):
    """An object in which keys stand twice, with their last values; `mistakes` says of each which it is."""

    mistakes: list[str]


def load(text: str) -> tuple[Any, list[str]]:
    """Return the value of a JSON text, and a line about each key that stands twice in its object.

    Such objects are `Ambiguous`, all others plain.

    Raises:
        ValueError: there is no value; a `json.JSONDecodeError` says where.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass
    else:
        if text.count(":") == _pairs(value):
            return value, []
    try:
        return _watch.read(text)  # takes 1e400 and lone surrogates, too
    except RecursionError:
        raise ValueError("it nests too deep") from None


def mistakes_in(value: object) -> list[str]:
    """Return the lines about a part of what `load` returned."""
    found: list[str] = []
    rest = [value]
    for each in rest:  # it grows meanwhile
        if isinstance(each, dict):
            found += each.mistakes if isinstance(each, Ambiguous) else ()
            rest += each.values()
        elif isinstance(each, list):
            rest += each
    return found


def each_key_once(line: bytes) -> bool:
    """Tell whether no object in a JSON text holds a key twice; the text is known to be right else."""
    return line.count(b":") == _pairs(msgspec.json.decode(line)) or not _watch.read(line.decode())[1]


def malformed(error: ValueError) -> str:
    """Return what a user should know of an error that `load` raised."""
    if isinstance(error, json.JSONDecodeError):
        return f"malformed JSON: {error.msg} (column {error.colno})"
    return f"malformed JSON: {error}"


def _pairs(value: object) -> int:
    """Return how many pairs of key and value there are, those deep inside not counted.

    Each pair has a colon in the text, and one that was lost had a colon as well: no more colons than pairs,
    and nothing was lost. So it is with a task as people write it; others take a closer look.
    """
    if isinstance(value, list):
        return sum(_pairs(item) for item in value if isinstance(item, dict))
    if isinstance(value, dict):
        return len(value) + sum(len(inner) for inner in value.values() if isinstance(inner, dict))
    return 0


class _Watch:
    """Reads JSON and keeps watch for keys that stand twice, which takes about thrice as long as msgspec."""

    def __init__(self) -> None:
        self._decode = json.JSONDecoder(object_pairs_hook=self._object).decode
        self._mistakes: list[str] = []

    def read(self, text: str) -> tuple[Any, list[str]]:
        self._mistakes = []
        return self._decode(text), self._mistakes

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        ambiguous = Ambiguous(value)
        counts = Counter(key for key, _ in pairs)
        ambiguous.mistakes = [
            f"the key {key!r} stands twice in one object" for key, count in counts.items() if count > 1
        ]
        self._mistakes += ambiguous.mistakes
        return ambiguous


_watch = _Watch()
