"""Which functions a worker runs, where its YAML says so: ``allow: [example_compute.*, numpy.linalg.*]``.

A filter against names that lead elsewhere, not a sandbox: what an allowed function does is its own affair,
and many a library has one that runs anything it is given.

A pattern is a function's full name, or a name with ``.*`` behind it: all that lies beneath it. A name is
allowed if a pattern matches it, no part of it begins with an underscore, and nothing on its way belongs to
somebody else:

- a module must be the one of that very name. ``numpy.f2py.os`` is the module ``os``, so nothing beneath it
  is allowed by ``numpy.*``; nor is ``os.path`` by ``os.*``, for it is ``posixpath``. A name that a pattern
  spells out is the user's own choice: ``os.path.*`` means what ``os.path`` is.
- a function or a class that names its home (``__module__``) must have it in the same top-level package. So
  ``example_compute.system`` is not allowed by ``example_compute.*`` if that only imported it from ``os``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from executor.call import follow, import_module, resolve
from executor.errors import NotAllowed

#: Patterns that a message shows at most.
_SHOWN = 6

#: Modules in C whose functions are those of a module of another name. Others are called like it, with an
#: underscore before: `_operator`, `_json`.
_PARTS_OF = {"posix": "os", "nt": "os"}


class Allowed:
    """The functions that match one of `patterns`, and no others.

    Raises:
        ValueError: a pattern can't match anything.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_read(pattern) for pattern in patterns]
        shown = ", ".join(patterns[:_SHOWN]) or "nothing"
        rest = len(patterns) - _SHOWN
        self._said = f"its `allow` has {shown}" + (f", and {rest} more" if rest > 0 else "")

    def find(self, name: str) -> Callable[..., object]:
        """Return the callable of that name. What no pattern matches is not even imported.

        Raises:
            NotAllowed: it may not be run; the text says why, and names the list.
            UnknownFunction: nothing callable has this name.
            BaseException: whatever the import of the module raises.
        """
        parts = name.split(".")
        if any(part.startswith("_") for part in parts):
            raise self._refusal(name, "no part of a name may begin with an underscore")
        chosen = [literal for literal, beneath in self._patterns if _matches(parts, literal, beneath)]
        if not chosen:
            raise self._refusal(name)
        found = resolve(name)
        why = ""
        for literal in chosen:
            why = _stranger(parts, literal)
            if not why:
                return found
        raise self._refusal(name, why)

    def _refusal(self, name: str, why: str = "") -> NotAllowed:
        reasons = "; ".join(filter(None, (why, self._said)))
        return NotAllowed(f"{name} is not allowed on this worker: {reasons}")


def _read(pattern: str) -> tuple[list[str], bool]:
    """Return the parts of a pattern that are spelled out, and whether it means all that lies beneath them."""
    parts = pattern.split(".")
    beneath = parts[-1] == "*"
    literal = parts[:-1] if beneath else parts
    if not pattern or not all(part.isidentifier() and not part.startswith("_") for part in literal):
        raise ValueError(
            f"{pattern!r}: write a function's full name, or one with .* behind it for all that lies beneath: "
            "math.sqrt, numpy.linalg.*; no part may begin with an underscore"
        )
    return literal, beneath


def _matches(parts: Sequence[str], literal: Sequence[str], beneath: bool) -> bool:
    if beneath:
        return len(parts) > len(literal) and list(parts[: len(literal)]) == literal
    return list(parts) == literal


def _stranger(parts: Sequence[str], literal: Sequence[str]) -> str:
    """Return what on the way of a name belongs to somebody else; "" if nothing does.

    What is spelled out in the pattern (`literal`) may be a module of another name.
    """
    built_in = callable(follow(builtins, parts))  # `resolve` finds those first
    homes = {"builtins" if built_in else parts[0]}
    way = (follow(builtins, parts[:depth]) for depth in range(1, len(parts) + 1)) if built_in else _way(parts)
    for depth, value in enumerate(way, 1):
        here = ".".join(parts[:depth])
        if isinstance(value, ModuleType):
            name = str(getattr(value, "__name__", "without a name"))
            if name != here and depth > len(literal):
                return f"{here} is the module {name}"
            homes.add(_top(name))
        elif isinstance(home := getattr(value, "__module__", None), str) and _top(home) not in homes:
            return f"{here} comes from {home}"
    return ""


def _way(parts: Sequence[str]) -> Iterator[object]:
    """Give what the beginnings of a name lead to, from its module on; `resolve` has imported them all."""
    value = import_module(parts[0])
    yield value
    for name in parts[1:]:
        value = getattr(value, name)
        yield value


def _top(module: str) -> str:
    """Return the top-level package of a module, or the one that it is a part of."""
    top = module.partition(".")[0]
    return _PARTS_OF.get(top, top.removeprefix("_"))
