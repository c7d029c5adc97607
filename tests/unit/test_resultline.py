"""Lines of a results file: many made at once are what each is by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from executor import jsonform, resultline
from executor.task import Error, Result
from tests.unit.strategies import TEXT, VALUES

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda values: (
        st.lists(values, max_size=12) | st.dictionaries(TEXT | st.just("$npy"), values, max_size=3)
    ),
    max_leaves=15,
)
KWARGS = st.dictionaries(TEXT | st.sampled_from(["$float", "$npy"]), PLAIN, max_size=2)


def results(values: st.SearchStrategy[Any], params: st.SearchStrategy[Any]) -> st.SearchStrategy[Result]:
    return st.builds(
        Result,
        id=TEXT,
        function=TEXT,
        params=st.lists(params, max_size=3),
        kwargs=KWARGS,
        resources=st.integers(1, 100),
        status=st.sampled_from(["ok", "error"]),
        value=values,
        error=st.none() | st.builds(Error, TEXT, TEXT, TEXT),
        attempt=st.integers(0, 5),
        worker=st.none() | TEXT,
        host=st.none() | TEXT,
        cores=st.lists(st.integers(0, 100), max_size=3).map(tuple),
        submitted=st.none() | st.floats(0, 2e9),
        started=st.none() | st.floats(0, 2e9),
        finished=st.none() | st.floats(0, 2e9),
        stdout=st.just(msgspec.UNSET) | TEXT.filter(bool),
        stderr=st.just(msgspec.UNSET) | TEXT.filter(bool),
    )


def written(result: Result) -> bytes:
    """Return the line of a result as its description has it, made of a dict."""
    record: dict[str, Any] = {name: getattr(result, name) for name in Result.__struct_fields__}
    for name in ("value", "params", "kwargs"):
        record[name] = jsonform.to_json(record[name])
    for name in ("stdout", "stderr"):
        if record[name] is msgspec.UNSET:
            del record[name]
    if result.error is not None:
        record["error"] = msgspec.structs.asdict(result.error)
    record["cores"] = list(result.cores)
    return jsonform.encode_line(record) + b"\n"


@given(st.lists(results(PLAIN, PLAIN), max_size=5))
def test_lines_of_plain_results_are_those_of_each(some: list[Result]) -> None:
    lines = resultline.plain(some)
    assert lines in (None, b"".join(map(written, some)))
    assert [resultline.line(each) for each in some] == [written(each) for each in some]


@given(st.lists(results(VALUES, VALUES), max_size=3))
def test_lines_of_any_results_are_those_of_each(some: list[Result]) -> None:
    assert resultline.plain(some) in (None, b"".join(map(written, some)))
    assert [resultline.line(each) for each in some] == [written(each) for each in some]


def made(value: Any) -> Result:
    return Result("id", "f", [1, "a", [2.5]], {"k": {"a": None}}, 1, "ok", value)


def test_what_is_usual_is_made_at_once_and_what_is_not_is_seen() -> None:
    usual = [made(value) for value in (1, 2.5, "text", None, True, [[1, 2]], {"a": [0.5]})]
    assert resultline.plain(usual) == b"".join(map(written, usual))
    itself: list[Any] = []
    itself += [itself, itself]
    nan, inf = float("nan"), [float("inf")]
    for value in (nan, inf, {"$a": 1}, {1: 2}, (1,), b"a", np.float64(1), np.zeros(3), "\ud800", itself):
        assert resultline.plain([*usual, made(value)]) is None


def test_digits_beside_a_lone_surrogate_are_not_counted_out() -> None:
    """Python alone reads such a line, but long integers in quadratic time."""
    digits = b"9" * 1_000_000
    line = resultline.parse(
        b'{"id":"a\\ud800","function":"f","params":[' + digits + b'],"kwargs":{},"resources":1,'
        b'"status":"ok","value":-' + digits + b',"started":null,"finished":null}'
    )
    assert bytes(line.params) == b"[" + digits + b"]"
