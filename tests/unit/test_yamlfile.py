from __future__ import annotations

import datetime
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from executor import yamlfile
from executor.errors import UsageError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.dates()
    | st.binary()
    | st.text("abcäß xyz:#-'\"\n", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
    ),
)


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        yamlfile.load(text, "f.yml")
    message = str(caught.value)
    assert "\n" not in message
    return message


@given(PLAIN)
def test_what_pyyaml_writes_comes_back(value: object) -> None:
    assert yamlfile.load(yaml.safe_dump(value, allow_unicode=True), "f.yml") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1e3", 1000.0),
        ("-2.5E+7", -2.5e7),
        ("+.5", 0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0xFF", 255),
        ("1_000_000", 1_000_000),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("'1e-5'", "1e-5"),
        ("!!str 1e-5", "1e-5"),
        ("!!float 1", 1.0),
        ("! 1", "1"),
        ("=", "="),
        ("<<", "<<"),
        ("1.2.3", "1.2.3"),
        ("-", [None]),
        ("2001-12-14", datetime.date(2001, 12, 14)),
        ("2001-12-14 21:59:43", datetime.datetime(2001, 12, 14, 21, 59, 43)),
        ("2001-12-14T21:59:43.5Z", datetime.datetime(2001, 12, 14, 21, 59, 43, 500_000, datetime.UTC)),
        ("!!binary aGk=", b"hi"),
        ("!!set {a, b}", {"a", "b"}),
        ("'<<': 1", {"<<": 1}),
        ("", None),
        ("# nothing", None),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    loaded = yamlfile.load(text, "f.yml")
    assert loaded == value
    assert type(loaded) is type(value)


def test_nan_is_a_float() -> None:
    loaded = yamlfile.load(".nan", "f.yml")
    assert isinstance(loaded, float)
    assert math.isnan(loaded)


def test_aliases_share_and_merge_keys_merge() -> None:
    loaded = yamlfile.load(
        "- &base {x: 1, y: 2}\n- *base\n- {<<: *base, y: 3}\n- {y: 4, <<: [{x: 5}, *base]}\n", "f.yml"
    )
    assert loaded == [{"x": 1, "y": 2}, {"x": 1, "y": 2}, {"x": 1, "y": 3}, {"x": 5, "y": 4}]
    assert isinstance(loaded, list)
    assert loaded[0] is loaded[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yml:3: the key 'a' stands twice in one mapping (column 1)"),
        ("1: x\n1.0: y", "f.yml:2: the key 1.0 stands twice in one mapping (column 1)"),
        ("x: {b: &a [*a]}", "f.yml:1: the alias *a stands inside what it names (column 12)"),
        (
            "a:\n\tb: 1",
            "f.yml:2: while scanning for the next token: found character that cannot start any token; "
            "it is a tab: indent with spaces (column 1)",
        ),
        ("- *a", "f.yml:1: the alias *a has no anchor before it (column 3)"),
        ("--- 1\n--- 2", "f.yml:2: a second document begins here; only one is read (column 1)"),
        ("!!python/object:os.x {}", "f.yml:1: the tag !!python/object:os.x is not known here (column 1)"),
        ("!mine 3", "f.yml:1: the tag !mine is not known here (column 1)"),
        ("!!str [a]", "f.yml:1: the tag !!str is not known here (column 1)"),
        ("? [1, 2]\n: 3", "f.yml:1: a key must be a scalar, not a list or a mapping (column 3)"),
        ("<<: 1", "f.yml:1: << merges a mapping or a list of mappings (column 5)"),
        ("<<: [{a: 1}, 2]", "f.yml:1: << merges a mapping or a list of mappings (column 5)"),
        ("!!set {a: 1}", "f.yml:1: a set has keys alone, no values (column 1)"),
        (
            "a:\n  2024-13-01",
            "f.yml:2: not a valid timestamp: month must be in 1..12; quote it if it is a string (column 3)",
        ),
        ("!!bool maybe", "f.yml:1: not a valid bool: 'maybe' is neither true nor false (column 1)"),
        ("!!null x", "f.yml:1: not a valid null: 'x' is a value (column 1)"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    "text",
    ["!!int ''", "!!int x", "!!float x", "!!timestamp x", "!!binary '?'", "1" * 5000, "a: b: c", "[1,\n2"],
)
def test_whatever_the_mistake_its_place_is_named(text: str) -> None:
    assert refusal(text).startswith("f.yml:")


def test_control_characters_are_refused_with_their_line() -> None:
    assert refusal("a: 1\nb: \x01").startswith("f.yml:2: ")


@pytest.mark.parametrize("count", [201, 200_000])
def test_deep_nesting_is_refused(count: int) -> None:
    assert "nests deeper than 200 levels" in refusal("[" * count + "]" * count)


def test_aliases_that_unfold_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "the aliases unfold to more than 10,000,000 values" in refusal("\n".join(lines))
