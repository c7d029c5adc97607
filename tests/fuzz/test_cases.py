"""What once broke something, and a few new inputs, the same each time; `make fuzz` tries many more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.engine import CASES, cases, fuzz, run
from tests.fuzz.targets import TARGETS

#: Inputs of one target in `make test`, and of one whose inputs are sequences: all take a few seconds.
FEW, FEWER = 100, 30


@pytest.mark.parametrize("name", TARGETS)
def test_what_broke_it_once_does_no_more(name: str) -> None:
    for path in cases(TARGETS[name]):
        broken = run(TARGETS[name], path.read_bytes())
        assert isinstance(broken, int), f"{path}\n{broken.what}"


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_are_wrong_break_nothing(name: str) -> None:
    target = TARGETS[name]
    few = FEWER if target.slow else FEW
    count, _, found = fuzz(target, seed=0, most=few)
    assert count == few
    assert not found, f"{found[0].data!r}\n{found[0].what}"


def test_each_case_is_some_targets() -> None:
    assert {path.name for path in Path(CASES).iterdir() if path.is_dir()} <= TARGETS.keys()
