"""From the text of a call to a callable and its arguments, and on to an outcome.

Nothing here evaluates text: a parameter is a literal or a string. And nothing here imports what this one
call does not need, since ``executor_cli.py --function min`` is to start about as fast as Python itself:
`executor.literals` reads what is more than a plain word or number, and `executor.explain` knows mistakes.
"""

from __future__ import annotations

import builtins
import sys
import time

from executor.bounds import LONGEST_NAME, LONGEST_PATH, shortened
from executor.errors import UnknownFunction, UsageError

TYPE_CHECKING = False  # typing's own constant would cost its import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

#: Stands for what does not exist; it can't be called either.
_MISSING = object()

#: The names that stand for a value in a literal: Python's, JSON's, and what repr() writes for floats.
NAMES: dict[str, object] = {
    "True": True, "true": True, "False": False, "false": False, "None": None, "null": None,
    "inf": float("inf"), "Infinity": float("inf"), "nan": float("nan"), "NaN": float("nan"),
    "infj": complex(0, float("inf")), "nanj": complex(0, float("nan")),
}  # fmt: skip


class ErrorText:
    """An exception as text: its `type` (``ValueError``, ``package.module.Name``), `message` and `traceback`.

    `traceback` is what Python prints, ``Type: message`` at its end, without the frames above the user's.
    """

    __slots__ = ("message", "traceback", "type")

    def __init__(self, type: str, message: str, traceback: str) -> None:
        self.type = type
        self.message = message
        self.traceback = traceback


class Outcome:
    """What came of one call: `status` is ``ok`` with a `value`, or ``error`` with an `error`.

    `started` and `finished` are epoch seconds.
    """

    __slots__ = ("error", "finished", "started", "status", "value")

    def __init__(
        self, status: str, value: object, error: ErrorText | None, started: float, finished: float
    ) -> None:
        self.status = status
        self.value = value
        self.error = error
        self.started = started
        self.finished = finished


def set_argument(
    function: str,
    params: Sequence[object] = (),
    kwargs: Sequence[str] | Mapping[str, object] | None = None,
    *,
    parsed: bool = False,
) -> tuple[Callable[..., object], list[object], dict[str, object]]:
    """Return the callable that `function` names, its positional and its keyword arguments.

    With `parsed` false, `params` are texts as typed after ``--params`` and `kwargs` are ``NAME=TEXT``
    texts. With `parsed` true, `params` are values and `kwargs` maps names to values.

    Raises:
        UsageError: a keyword argument is malformed, or (UnknownFunction) the name leads to nothing callable.
        BaseException: whatever the import of the function's module raises.
    """
    given: Any = kwargs or ()
    if not parsed:
        params = [parse_literal(text) for text in join_split([str(text) for text in params])]
        given = parse_kwargs([str(text) for text in given])
    return resolve(function), list(params), dict(given)


def function_executor(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> Outcome:
    """Call `function` and return what came of it, an exception included.

    Raises:
        SystemExit, KeyboardInterrupt, GeneratorExit: the function raised it; these end more than a call.
    """
    started = time.time()
    value, raised = attempt(function, args, kwargs)
    finished = time.time()  # before the traceback is put into words, which takes a while
    if raised is None:
        return Outcome("ok", value, None, started, finished)
    return Outcome("error", None, describe(raised), started, finished)


def attempt(
    function: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[object, BaseException | None]:
    """Call `function`; return its value and None, or None and what it raised.

    Raises:
        SystemExit, KeyboardInterrupt, GeneratorExit: as `function_executor`.
    """
    try:
        return function(*args, **kwargs), None
    except (SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        return None, exc


def describe(exc: BaseException) -> ErrorText:
    """Return `exc` and its chain of causes as text; this does not fail, however broken `exc` is."""
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(exc)
    except Exception:
        message = "<exception str() failed>"  # the words that Python's own traceback uses
    try:
        from executor import explain  # only errors need it

        traceback = explain.traceback_text(exc)
    except Exception:  # out of memory or of open files, say: that must not hide what happened before
        traceback = f"{name}: {message}"
    return ErrorText(shortened(name, LONGEST_NAME), shortened(message), shortened(traceback))


def parse_literal(text: str) -> object:
    """Return the Python or JSON literal that `text` is, else `text` itself; this never raises or warns.

    What `ast.literal_eval` reads comes back as it reads it (``1,2`` is a tuple), and so does what
    `json.loads` reads. Their names mix: ``[true, None, -inf, nan, 1+2j]``. An integer beyond
    `sys.get_int_max_str_digits` stays text.
    """
    stripped = text.strip(" \t\r\n")
    if stripped in NAMES:
        return NAMES[stripped]
    if stripped.isidentifier():
        return text
    if not stripped.strip("0123456789+-.eE"):  # all of it: a decimal number, for which ast costs too much
        digits = stripped.lstrip("+-")
        try:
            if not digits.isdigit():
                return float(stripped)
            return text if digits[0] == "0" and digits.strip("0") else int(stripped)
        except ValueError:
            return text
    from executor import literals  # plain words and numbers do without

    return literals.read(stripped, otherwise=text)


def join_split(texts: Sequence[str], *, named: bool = False) -> list[str]:
    """Put literals that the shell split at spaces together again: ``[1,`` ``2]`` becomes ``[1, 2]``.

    A text with an open bracket or quote is joined with those after it if the whole is a literal; every
    other text stays as it is. With `named` true, a literal begins after the ``=`` of ``NAME=[1,``.
    """
    if not any(opening in text for text in texts for opening in "[({'\""):
        return list(texts)
    from executor import literals  # as above

    return literals.join(texts, named)


def parse_kwargs(texts: Sequence[str]) -> dict[str, object]:
    """Return the keyword arguments of ``NAME=TEXT`` texts, the values as `parse_literal` reads them.

    Raises:
        UsageError: a text has no ``=``, its name is no identifier, or a name comes twice.
    """
    kwargs: dict[str, object] = {}
    for text in join_split(texts, named=True):
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise UsageError(f"{text!r} is no keyword argument: write NAME=VALUE, with a name such as axis")
        if name in kwargs:
            raise UsageError(f"keyword argument {name} is given twice: leave one out")
        kwargs[name] = parse_literal(value)
    return kwargs


def make_importable(folder: str) -> None:
    """Put `folder` first on `sys.path`, once, and keep the project's own folder on it.

    Call it after the project's modules were imported, so that none in `folder` can take their place.
    """
    root = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path[:] = [folder, *(path for path in sys.path if path != folder)]
    if root not in sys.path:
        sys.path.append(root)


def resolve(name: str) -> Callable[..., object]:
    """Return the callable of that name: a built-in (``min``, ``str.upper``) or a full import path.

    Raises:
        UnknownFunction: nothing callable has this name; the text is one line that says what to do.
        BaseException: whatever the import of the module raises.
    """
    if len(name) > LONGEST_PATH:
        raise UnknownFunction(f"{name[:40]}... names no function: it has {len(name):,} characters")
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        raise UnknownFunction(f"{name!r} names no function: write one such as min, str.upper or math.sqrt")
    found = follow(builtins, parts)
    if found is _MISSING:
        found = _find(parts)
    if not callable(found):
        from executor import explain  # only mistakes need it

        raise explain.not_callable(found, name)
    return found


def follow(value: object, names: Iterable[str]) -> object:
    """Return the attribute of the attribute ... of `value`, or `_MISSING`, which can't be called."""
    try:
        for name in names:
            value = getattr(value, name)
    except Exception:  # a module may compute its attributes, and fail at that in any way
        return _MISSING
    return value


def _find(parts: Sequence[str]) -> object:
    """Return what lies at the import path `parts`, or raise UnknownFunction; imports what is on the way."""
    value = import_module(parts[0]) if len(parts) > 1 else _MISSING
    if value is _MISSING and len(parts) > 1:
        value = getattr(builtins, parts[0], _MISSING)
    if value is _MISSING:
        from executor import explain  # only mistakes need it

        raise explain.unknown_root(parts)
    for depth, part in enumerate(parts[1:], start=1):
        owner, value = value, getattr(value, part, _MISSING)
        if value is _MISSING and hasattr(owner, "__path__"):  # a package, whose modules come when asked for
            value = import_module(f"{getattr(owner, '__name__', '')}.{part}")
        if value is _MISSING:
            from executor import explain  # as above

            raise explain.unknown_part(owner, parts, depth)
    return value


def import_module(name: str) -> object:
    """Return the module, or `_MISSING`; what its own code raises goes through."""
    try:
        __import__(name)  # importlib would have to be imported
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise  # the module exists, and lacks another that it needs
        return _MISSING
    return sys.modules.get(name, _MISSING)
