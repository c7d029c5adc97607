"""Which names `allow` lets pass: what a user meant, and nothing that only lies on the way."""

from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest

from executor.allow import Allowed
from executor.errors import NotAllowed, UnknownFunction


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("numpy.*", "numpy.sin"),
        ("numpy.*", "numpy.array"),
        ("numpy.*", "numpy.linalg.norm"),
        ("numpy.*", "numpy.ndarray.sum"),
        ("numpy.linalg.*", "numpy.linalg.norm"),
        ("numpy.random.*", "numpy.random.rand"),
        ("os.path.*", "os.path.join"),
        ("os.path.join", "os.path.join"),
        ("os.*", "os.getpid"),
        ("math.*", "math.sqrt"),
        ("math.sqrt", "math.sqrt"),
        ("operator.*", "operator.add"),
        ("json.*", "json.dumps"),
        ("datetime.*", "datetime.datetime.now"),
        ("example_compute.*", "example_compute.compute_flops"),
        ("min", "min"),
        ("str.*", "str.upper"),
        ("*", "min"),
        ("*", "math.sqrt"),
    ],
)
def test_what_a_pattern_means_passes(pattern: str, name: str) -> None:
    assert callable(Allowed([pattern]).find(name))


@pytest.mark.parametrize(
    ("pattern", "name", "why"),
    [
        ("numpy.*", "numpy.f2py.os.system", "numpy.f2py.os is the module os"),
        ("example_compute.*", "example_compute.os.system", "example_compute.os is the module os"),
        ("os.*", "os.path.join", "os.path is the module"),
        ("example_compute.*", "example_compute.Any.mro", "example_compute.Any comes from typing"),
        ("numpy.linalg.*", "numpy.sin", "`allow` has numpy.linalg.*"),
        ("numpy.linalg.*", "numpy.linalg", "`allow` has numpy.linalg.*"),
        ("numpy.*", "numpyx.sin", "`allow` has numpy.*"),
        ("math.sqrt", "math.sqrt.mro", "`allow` has math.sqrt"),
        ("math.*", "min", "`allow` has math.*"),
        ("math.*", "eval", "`allow` has math.*"),
        ("math.*", "math.__loader__.load_module", "underscore"),
        ("os.*", "os._exit", "underscore"),
        ("*", "_thread.start_new_thread", "underscore"),
        ("*", "example_compute.os.system", "is the module os"),
    ],
)
def test_what_only_lies_on_the_way_is_refused(pattern: str, name: str, why: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        Allowed([pattern]).find(name)
    assert name in str(refused.value)
    assert why in str(refused.value)
    assert f"`allow` has {pattern}" in str(refused.value)


def test_a_function_that_a_module_imported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("imports_system")
    module.system = os.system  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imports_system", module)
    with pytest.raises(NotAllowed, match=r"imports_system\.system comes from (posix|nt)"):
        Allowed(["imports_system.*"]).find("imports_system.system")


def test_one_pattern_that_means_it_is_enough() -> None:
    assert Allowed(["os.*", "os.path.*"]).find("os.path.join") is os.path.join


def test_what_no_pattern_matches_is_not_imported() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(NotAllowed):
        Allowed(["math.*"]).find("this.anything")
    assert "this" not in sys.modules


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(NotAllowed, match="`allow` has nothing"):
        Allowed([]).find("min")


def test_what_does_not_exist_is_said_so() -> None:
    with pytest.raises(UnknownFunction, match=r"did you mean math\.sqrt"):
        Allowed(["math.*"]).find("math.sqt")


@pytest.mark.parametrize(
    "pattern", ["", "numpy.f*", "*.sin", "numpy..sin", "numpy._core.*", "a b", "numpy.*.x", "."]
)
def test_a_pattern_that_can_match_nothing_is_a_mistake(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"numpy\.linalg\.\*"):
        Allowed([pattern])
