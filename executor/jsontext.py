"""JSON as people write it: `load` for the texts of task files, `load_lines` for the usual ones of JSON Lines.

It takes the words NaN and Infinity and integers of any size, as Python's own reader does, at msgspec's speed
where it can. A key that stands twice in an object is found: one of its two values would be lost.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from typing import Any

import msgspec

_decode_lines = msgspec.json.Decoder().decode_lines


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
        if _accounts_for(text.count(":"), [value], escaped="\\u003" in text):
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


def load_lines(block: bytes) -> list[dict[str, Any]] | None:
    """Return the objects that stand in a block of whole lines, one on each, with no key twice.

    None: the block is not of that kind, or it takes a closer look to tell. It costs the less the more lines
    there are in it.
    """
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    # No object goes on behind a line end that one ends before and one begins after: a comma would have to
    # stand between them. So each line holds a value at least, and where there are no more, exactly one.
    between = block.count(b"}\n{") or block.count(b"}\r\n{")
    if between != lines - 1 or not block.startswith(b"{"):
        return None
    try:
        values = _decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    once = len(values) == lines and _accounts_for(block.count(b":"), values, escaped=b"\\u003" in block)
    return values if once else None


def malformed(error: ValueError) -> str:
    """Return what a user should know of an error that `load` raised."""
    if not isinstance(error, json.JSONDecodeError):
        return f"malformed JSON: {error}"
    _, column, ends = _place(error)
    what = error.msg.removesuffix(" at")  # of "Invalid control character at: line 1"
    return f"malformed JSON: {what} (column {column}{', where it ends' if ends else ''})"


def line_of(error: ValueError) -> int | None:
    """Return the line, from 1, of an error that `load` raised, if it knows one."""
    return _place(error)[0] if isinstance(error, json.JSONDecodeError) else None


def _place(error: json.JSONDecodeError) -> tuple[int, int, bool]:
    """Return line and column, both from 1, and whether the text ends there.

    What a text lacks at its end it lacks behind its last character, not on the empty line that follows.
    """
    end = len(error.doc.rstrip())
    at = min(error.pos, end)
    return error.doc.count("\n", 0, at) + 1, at - error.doc.rfind("\n", 0, at), at == end


def _accounts_for(colons: int, values: list[Any], *, escaped: bool) -> bool:
    """Tell whether the values that a text gave have as many colons as the text: then no key stood twice.

    Each pair of key and value has a colon, and what was lost had one as well; all others stand in strings.
    With `escaped` colons, which the text hides, it can't be told, unless the pairs have them all.
    """
    objects: list[dict[str, Any]] = []
    strings: list[str] = []
    level = values
    while level:  # all that lies equally deep at once, which is faster than one by one
        inner = [value for value in level if type(value) is dict]
        colons -= sum(map(len, inner))
        if not colons:
            return True
        objects += inner
        strings += [value for value in level if type(value) is str]
        lists = [value for value in level if type(value) is list]
        level = [*chain.from_iterable(lists), *chain.from_iterable(map(dict.values, inner))]
    keys = chain.from_iterable(objects)
    return not escaped and colons == sum(text.count(":") for text in chain(strings, keys))


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
