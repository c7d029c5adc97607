"""What went wrong, in words: the user's part of a traceback, and the name that was probably meant.

Only mistakes need this, so `executor.call` imports it when one was made.
"""

from __future__ import annotations

import builtins
import difflib
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence

from executor import call
from executor.errors import UnknownFunction

#: What people write after ``import ... as``; they get a line that names the module itself.
_ALIASES = {
    "np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "mpl": "matplotlib", "sp": "scipy",
    "sns": "seaborn", "sk": "sklearn", "sm": "statsmodels.api", "tf": "tensorflow", "nn": "torch.nn",
    "jnp": "jax.numpy", "xr": "xarray", "nx": "networkx", "da": "dask.array", "dd": "dask.dataframe",
    "cp": "cupy", "pl": "polars", "pa": "pyarrow", "gpd": "geopandas", "px": "plotly.express",
    "dt": "datetime", "mp": "multiprocessing", "osp": "os.path", "ET": "xml.etree.ElementTree",
}  # fmt: skip

#: Where a bare name such as ``sqrt`` is looked for, to be able to say ``math.sqrt``.
_USUAL = ("math", "operator", "os", "os.path", "time")


def traceback_text(exc: BaseException) -> str:
    """Return what Python prints for `exc` and its chain, without the frames down to ours that called it."""
    report = traceback.TracebackException.from_exception(exc)
    chain = [report]
    for link in chain:  # it grows meanwhile
        names = [frame.filename for frame in link.stack]
        index = names.index(call.__file__) if call.__file__ in names else 0
        while index < len(names) and names[index].startswith((call.__file__, "<frozen importlib")):
            index += 1
        del link.stack[:index]
        chain += filter(None, (link.__cause__, link.__context__, *(link.exceptions or ())))
    bare = len(chain) == 1 and not report.stack  # no frame is the user's: no heading then either
    return "".join(report.format_exception_only() if bare else report.format()).rstrip("\n")


def unknown_root(parts: Sequence[str]) -> UnknownFunction:
    """Return the error for a path whose first name is neither a module nor, alone, a built-in."""
    first, rest, name = parts[0], parts[1:], ".".join(parts)
    modules = {*sys.stdlib_module_names, *(found.name for found in pkgutil.iter_modules())}
    if first in modules and not rest:
        return UnknownFunction(f"{name} is a module and can't be called: name a function in it, {name}.NAME")
    if first in _ALIASES:
        return UnknownFunction(f"{name}: aliases are not known: write {'.'.join([_ALIASES[first], *rest])}")
    if rest:  # modules are not imported to look into them: that could run anything
        loaded = {**sys.modules, **vars(builtins)}
        fitting = [word for word in dir(builtins) if callable(call.follow(builtins, [word, *rest]))]
        near = _nearest(first, [*modules, *fitting], lambda word: call.follow(loaded.get(word), rest))
        advice = f"did you mean {'.'.join([near, *rest])}?" if near else "check the name, or install it"
        return UnknownFunction(f"{name}: there is no module named {first}: {advice}")
    full = [f"{path}.{name}" for path in _USUAL if callable(call.follow(call.import_module(path), parts))]
    near = full[0] if full else _nearest(name, dir(builtins), lambda word: getattr(builtins, word))
    advice = f"did you mean {near}?" if near else "write one such as math.sqrt"
    return UnknownFunction(f"{name} is not a built-in, and all else needs its full import path: {advice}")


def unknown_part(owner: object, parts: Sequence[str], depth: int) -> UnknownFunction:
    """Return the error for a path that leads to `owner`, which has no `parts[depth]`."""
    names = {*dir(owner), *(found.name for found in pkgutil.iter_modules(getattr(owner, "__path__", ())))}
    before, part, rest = parts[:depth], parts[depth], parts[depth + 1 :]
    near = _nearest(part, names, lambda word: call.follow(owner, [word, *rest]))
    advice = f"did you mean {'.'.join([*before, near, *rest])}?" if near else "check the spelling"
    return UnknownFunction(f"{'.'.join(parts)}: {'.'.join(before)} has no {part}: {advice}")


def not_callable(value: object, name: str) -> UnknownFunction:
    """Return the error for a name that leads to a plain `value`."""
    if isinstance(value, type(sys)):
        return UnknownFunction(f"{name} is a module and can't be called: name a function in it, {name}.NAME")
    kind = type(value).__name__
    return UnknownFunction(f"{name} is of type {kind} and can't be called: name a function, method or class")


def _nearest(word: str, names: Iterable[str], lookup: Callable[[str], object]) -> str:
    """Return the name most like `word`, preferably one that leads to a callable; "" if none is like it."""
    others = [name for name in names if name != word and (not name.startswith("_") or word.startswith("_"))]
    folded = {name.lower(): name for name in others}
    near = [folded[match] for match in difflib.get_close_matches(word.lower(), folded, n=5)]
    sure = [folded[match] for match in difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.75)]
    return next((name for name in near if callable(lookup(name))), sure[0] if sure else "")
