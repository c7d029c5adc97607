"""YAML as people mean it: one `load` for task files and configuration files.

PyYAML parses (its C parser where it was built with one); this file builds the values out of the parser's
events, without recursion, so that no document can exhaust the stack, and with these rules:

- Plain scalars are those of the YAML 1.2 core schema. PyYAML follows YAML 1.1, in which ``1e-5`` is a string,
  ``1:30`` is 90, ``010`` is 8 and ``no`` is False; here they are 1e-5, a string, 10 and a string.
- Two things of YAML 1.1 stay, because nobody is surprised by them: ``1_000`` is a number, and ISO 8601 dates
  and times are `datetime.date` and `datetime.datetime` (quote them to have strings).
- A key that stands twice in a mapping is refused: one of its two values would be lost.
- Aliases share one value. One that contains itself is refused, and so are aliases that unfold to more than
  `MOST_ALIASED` values ("billion laughs").
- The tags are those of plain data, ``!!binary`` and ``!!set`` included; any other is refused.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from executor.errors import UsageError

#: Collections inside one another. Far beyond what people write, and far below what other readers of the
#: value, which do recurse, can take.
MOST_NESTED = 200
#: Values that aliases may stand for, in all: 10,000 tasks that share a list of 1,000 numbers.
MOST_ALIASED = 10_000_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"

_PLAIN = re.compile(
    r"""
      (?P<null>      | ~ | null | Null | NULL )
    | (?P<bool>      true | True | TRUE | false | False | FALSE )
    | (?P<int>       [-+]? [0-9][0-9_]* | 0o[0-7]+ | 0x[0-9a-fA-F]+ )
    | (?P<float>     [-+]? ( \.[0-9]+ | [0-9][0-9_]* ( \.[0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
                   | [-+]? \. ( inf | Inf | INF ) | \. ( nan | NaN | NAN ) )
    | (?P<timestamp> \d{4}-\d\d-\d\d ( [Tt ] \d\d:\d\d:\d\d (\.\d+)? [ ]? ( Z | [-+]\d\d(:?\d\d)? )? )? )
    | (?P<merge>     << )
    """,
    re.VERBOSE | re.ASCII,
)
#: What a plain scalar other than a string can begin with; most strings are told by this alone.
_STARTS = frozenset("~nNtTfF0123456789+-.<")

#: Stands for the key ``<<``, whose value is merged into the mapping.
_MERGE = object()
#: Stands for "no key read yet"; None is a key like any other.
_NO_KEY = object()


def load(text: str, place: str) -> object:
    """Return the value of the one YAML document in `text`; None if there is none.

    `place` names the text in messages: a file's path.

    Raises:
        UsageError: the text is not such a document; one line, ``place:line: what is wrong (column N)``.
    """
    try:
        return _Builder().build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        began, context = error.context_mark, error.context
        if context and began and error.problem_mark and began.line < error.problem_mark.line:
            context += f" that begins on line {began.line + 1}"
        what = ": ".join(part for part in (context, error.problem) if part)
        if "maximum nesting depth" in what:  # libyaml reads ahead, and has a bound of its own
            what = f"nests deeper than {MOST_NESTED} levels"
        mark = error.problem_mark or began
        if mark and "cannot start any token" in what and _at(text, mark) == "\t":
            what += "; it is a tab: indent with spaces"
        where = f"{place}:{mark.line + 1}: {what} (column {mark.column + 1})" if mark else f"{place}: {what}"
        raise UsageError(where) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{place}:{line}: {error.reason} (U+{error.character:04X})") from error


def _at(text: str, mark: yaml.Mark) -> str:
    """Return the character at a mark, "" at a line's end."""
    lines = text.splitlines()
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""


class _Open:
    """A collection whose end has not come yet."""

    def __init__(self, event: Any) -> None:
        self.anchor: str | None = event.anchor
        self.tag: str | None = event.tag
        self.mark: yaml.Mark = event.start_mark
        self.items: list[object] | dict[object, object] = [] if _is_sequence(event) else {}
        self.key: object = _NO_KEY
        self.merged: list[dict[object, object]] = []
        #: Values in it, itself included, with aliases unfolded.
        self.size = 1

    def add(self, value: object, size: int, mark: yaml.Mark) -> None:
        """Put in the next item, or the next key or value."""
        self.size += size
        if isinstance(self.items, list):
            self.items.append(value)
        elif self.key is _NO_KEY:
            self.key = self.checked_key(value, mark)
        elif self.key is _MERGE:
            self.merged += _mergeable(value, mark)
            self.key = _NO_KEY
        else:
            self.items[self.key] = value
            self.key = _NO_KEY

    def checked_key(self, key: object, mark: yaml.Mark) -> object:
        assert isinstance(self.items, dict)
        try:
            twice = key in self.items
        except TypeError:
            raise _refused("a key must be a scalar, not a list or a mapping", mark) from None
        if twice:
            raise _refused(f"the key {key!r} stands twice in one mapping", mark)
        return key

    def value(self) -> object:
        """Return the finished collection."""
        if isinstance(self.items, list):
            return self.items
        items = self.items
        for other in self.merged:  # the mapping's own keys win, then those merged first
            items = other | items
        if self.tag == _TAG + "set":
            if any(value is not None for value in items.values()):
                raise _refused("a set has keys alone, no values", self.mark)
            return set(items)
        return items


class _Builder:
    """Builds one document's value out of the parser's events."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        #: Anchor -> value and size; None as long as the anchored collection is open.
        self.anchors: dict[str, tuple[object, int] | None] = {}
        self.aliased = 0
        self.root: object = None
        self.documents = 0

    def build(self, events: Iterable[Any]) -> object:
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                value = _scalar(event, is_key=self.expects_key())
                if event.anchor:
                    self.anchors[event.anchor] = (value, 1)
                self.add(value, 1, event.start_mark)
            elif kind is yaml.SequenceStartEvent or kind is yaml.MappingStartEvent:
                self.start(event)
            elif kind is yaml.SequenceEndEvent or kind is yaml.MappingEndEvent:
                done = self.open.pop()
                value = done.value()
                if done.anchor:
                    self.anchors[done.anchor] = (value, done.size)
                self.add(value, done.size, done.mark)
            elif kind is yaml.AliasEvent:
                self.add(*self.meant(event), event.start_mark)
            elif kind is yaml.DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    raise _refused("a second document begins here; only one is read", event.start_mark)
        return self.root

    def expects_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1].items, dict) and self.open[-1].key is _NO_KEY

    def start(self, event: Any) -> None:
        known = ("seq",) if _is_sequence(event) else ("map", "set")
        if event.tag not in (None, "!", *(_TAG + name for name in known)):
            raise _refused(f"the tag {_short(event.tag)} is not known here", event.start_mark)
        if len(self.open) == MOST_NESTED:
            raise _refused(f"nests deeper than {MOST_NESTED} levels", event.start_mark)
        if event.anchor:
            self.anchors[event.anchor] = None
        self.open.append(_Open(event))

    def add(self, value: object, size: int, mark: yaml.Mark) -> None:
        if self.open:
            self.open[-1].add(value, size, mark)
        else:
            self.root = value

    def meant(self, event: Any) -> tuple[object, int]:
        """Return what an alias stands for, and its size."""
        if event.anchor not in self.anchors:
            raise _refused(f"the alias *{event.anchor} has no anchor before it", event.start_mark)
        meant = self.anchors[event.anchor]
        if meant is None:
            raise _refused(f"the alias *{event.anchor} stands inside what it names", event.start_mark)
        self.aliased += meant[1]
        if self.aliased > MOST_ALIASED:
            raise _refused(f"the aliases unfold to more than {MOST_ALIASED:,} values", event.start_mark)
        return meant


def _scalar(event: Any, is_key: bool) -> object:
    text: str = event.value
    plain, _ = event.implicit
    if event.tag is None:
        if not plain or (text and text[0] not in _STARTS):
            return text  # quoted, a block, or like nothing but a string
        match = _PLAIN.fullmatch(text)
        kind = match.lastgroup if match else None
        if kind == "merge" and is_key:
            return _MERGE
        hint = "; quote it if it is a string"
    else:
        kind = "str" if event.tag == "!" else event.tag.removeprefix(_TAG)
        if kind not in _FROM_TEXT:
            raise _refused(f"the tag {_short(event.tag)} is not known here", event.start_mark)
        hint = ""
    if kind is None or kind == "merge":
        return text
    try:
        return _FROM_TEXT[kind](text)
    except ValueError as error:
        raise _refused(f"not a valid {kind}: {error}{hint}", event.start_mark) from error


def _null(text: str) -> None:
    if text not in ("", "~", "null", "Null", "NULL"):
        raise ValueError(f"{text!r} is a value")


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text.replace("_", ""))


def _float(text: str) -> float:
    return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


def _timestamp(text: str) -> datetime.date:
    if len(text) == len("2001-12-14"):
        return datetime.date.fromisoformat(text)
    day, time = text[:10], text[11:]
    return datetime.datetime.fromisoformat(f"{day}T{time.replace(' ', '')}")


_FROM_TEXT: dict[str, Callable[[str], object]] = {
    "null": _null,
    "bool": _bool,
    "int": _int,
    "float": lambda text: _float(text.lower()),
    "timestamp": _timestamp,
    "str": str,
    "binary": lambda text: base64.b64decode("".join(text.split()), validate=True),
}


def _mergeable(value: object, mark: yaml.Mark) -> list[dict[object, object]]:
    """Return the mappings that ``<<: value`` merges, of which earlier ones win over later ones."""
    found = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]
    if not found or (isinstance(value, list) and len(found) < len(value)):
        raise _refused("<< merges a mapping or a list of mappings", mark)
    return found


def _is_sequence(event: Any) -> bool:
    return isinstance(event, yaml.SequenceStartEvent)


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
