"""From text to a callable and its arguments, and on to an outcome."""

from __future__ import annotations

import ast
import importlib
import json
import math
import os
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import call
from executor.call import (
    describe,
    function_executor,
    join_split,
    make_importable,
    parse_kwargs,
    parse_literal,
    resolve,
    set_argument,
)
from executor.errors import UnknownFunction, UsageError

ROOT = Path(call.__file__).parent.parent

hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
literals = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.sets(hashables, max_size=4)
        | st.dictionaries(hashables, inner, max_size=4)
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
syntax = st.text("0123456789+-.eEjJ_xabfnrTu()[]{}'\"\\,:# \n", max_size=30)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """A folder on sys.path to write modules into; what was imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def write(**modules: str) -> Path:
        for name, text in modules.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def no_digit_limit() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


# ---- literals


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+5", 5),
        ("0", 0),
        ("-0", 0),
        (" 7 ", 7),
        ("1_000", 1000),
        ("0x1f", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e5", 100000.0),
        ("-1e-5", -1e-5),
        ("1E+3", 1000.0),
        ("1e999", math.inf),
        ("True", True),
        ("true", True),
        ("False", False),
        ("false", False),
        ("None", None),
        ("null", None),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("+inf", math.inf),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("2j", 2j),
        ("-2j", -2j),
        ("1+2j", 1 + 2j),
        ("-1+2j", -1 + 2j),
        ("(1-2.5e1j)", 1 - 25j),
        ("inf-infj", complex(math.inf, -math.inf)),
        ("[1,2]", [1, 2]),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ("{'a': true}", {"a": True}),
        ('{"a": [true, false, null]}', {"a": [True, False, None]}),
        ("(1,2)", (1, 2)),
        ("(1, -inf)", (1, -math.inf)),
        ("1,2", (1, 2)),
        ("{1, 2}", {1, 2}),
        ("{}", {}),
        ("set()", set()),
        ("[1, inf, true, null, -1+2j, (b'x', {3})]", [1, math.inf, True, None, -1 + 2j, (b"x", {3})]),
        ("'a b'", "a b"),
        ('"1"', "1"),
        ("b'\\x00'", b"\x00"),
        (r"r'\d'", r"\d"),
        (r'"\ud83d\ude00"', "\N{GRINNING FACE}"),
        (r'"a\/b"', "a/b"),
        (r'["a\/b", "\u00e9"]', ["a/b", "é"]),
        (r'"\d"', r"\d"),
        ("[1, # one\n 2]", [1, 2]),
        ('"#"', "#"),
    ],
)
def test_a_literal_becomes_its_value(text: str, value: object) -> None:
    parsed = parse_literal(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "+NaN"])
def test_nan(text: str) -> None:
    parsed = parse_literal(text)
    assert isinstance(parsed, float)
    assert math.isnan(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", " padded ", "hello", "007", "-007", "1 2", "2024-01-01", "1.2.3", "1.2.3.4", "10:30", "5kg",
        "-", "+", ".", "e", "-e5", "--1", "...", "[...]", "-True", "not True", "~1", "1<2", "1 if 2else 3",
        "TRUE", "INF", "infinite", "nanometre", "true story", "it's", "b", "f'x'", "f'{1}'", "-x", "a.b",
        "[", "(", ":-(", "]", ")(", "1)+(2j", "1),(2", "[1,", "[1, 2", "[1, 007]", "[hello]", "{1: }",
        "[*[1]]", "{[1]: 2}", "{{}}", "[1]*3", "1+1", "2j+1", "'a'+'b'", "'a'*9", "(x)", "print(1)", "set(1)",
        "__import__('os').getcwd()", "lambda: 1", "x:=1", "[i for i in (1,)]", "{**{}}", "a=1", "1 # two",
        "\x00", "[\x00]", "\ud800", "'\ud800'", "\ufeff1", "\u0661", "\uff11",
        "[" * 100_000, "(" * 300 + ")" * 300, "-" * 100_000 + "1", "1+" * 100_000 + "1", "{1:" * 5_000,
        "1" * 400 + "+1e999j+", "1" + "0" * 400 + "+1j",
    ],
)  # fmt: skip
def test_all_else_stays_text(text: str) -> None:
    assert parse_literal(text) == text


def test_integers_of_any_size(no_digit_limit: None) -> None:
    for number in (10**5000, -(10**5000)):
        assert parse_literal(str(number)) == number
        assert parse_literal(f"[{number}]") == [number]
        assert parse_literal(f"({number},)") == (number,)


def test_an_integer_beyond_the_limit_of_python_stays_text() -> None:
    digits = "1" * (sys.get_int_max_str_digits() + 1)
    assert parse_literal(digits) == digits
    assert parse_literal(f"[{digits}]") == f"[{digits}]"


@given(literals)
def test_what_repr_writes_comes_back(value: object) -> None:
    parsed = parse_literal(repr(value))
    assert parsed == value
    assert type(parsed) is type(value)


@given(json_values, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_comes_back(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse_literal(text) == json.loads(text)


@given(st.text() | syntax)
def test_no_text_raises_or_warns(text: str) -> None:
    parse_literal(text)
    parse_literal(f"[{text}]")
    parse_literal(f'"{text}"')


@given(st.lists(st.sampled_from([*"[](){},:+-. '", "1", "00", "2j", "1e5", "'a'", "True", "set()", "b''"])))
def test_what_python_reads_as_a_literal_is_read_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        expected = ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError):
        return
    if "..." not in text:  # Python's Ellipsis is of no use to anyone here
        assert parse_literal(text) == expected


# ---- what the shell split


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], []),
        (["1", "2"], ["1", "2"]),
        (["[1,", "2]"], ["[1, 2]"]),
        (["[", "1", "]"], ["[ 1 ]"]),
        (["[1,", "2]", "[3,", "4]", "x"], ["[1, 2]", "[3, 4]", "x"]),
        (['{"a":', "[1,", "(2,", "3)]}"], ['{"a": [1, (2, 3)]}']),
        (["'a", "b'"], ["'a b'"]),
        (["'a", "", "b'"], ["'a  b'"]),
        (["b'a", "b'"], ["b'a b'"]),
        (['["[",', "']']"], ["[\"[\", ']']"]),
        (["'it\\'s", "so'"], ["'it\\'s so'"]),
        (["["], ["["]),
        (["(", "1"], ["(", "1"]),
        ([":-(", "1", ")"], [":-(", "1", ")"]),
        (["[1,", "2)"], ["[1,", "2)"]),
        (["[1,", "x]"], ["[1,", "x]"]),
        (["[", "it's", "[1,", "2]"], ["[", "it's", "[1, 2]"]),
        (["(", "x", "[1,", "2]", ")"], ["(", "x", "[1, 2]", ")"]),
        (["it's", "[1,", "2]"], ["it's", "[1, 2]"]),
        (["]", "[1,", "2]"], ["]", "[1, 2]"]),
        (["[1,", "2]x", "3]"], ["[1,", "2]x", "3]"]),
    ],
)
def test_split_literals_are_put_together_and_nothing_else(texts: list[str], joined: list[str]) -> None:
    assert join_split(texts) == joined


@given(literals)
def test_a_literal_split_at_its_spaces_comes_back(value: object) -> None:
    pieces = repr(value).split(" ")
    assert join_split(["x", *pieces, "y"]) == ["x", repr(value), "y"]
    assert parse_kwargs([f"a={pieces[0]}", *pieces[1:], "b=1"]) == {"a": value, "b": 1}


@given(st.lists(st.text("[](){}'\"\\1,a= ", max_size=4), max_size=12))
def test_joining_loses_no_text(texts: list[str]) -> None:
    assert " ".join(join_split(texts)) == " ".join(texts)


@pytest.mark.parametrize(
    "texts", [["["] * 5000, ["'a"] * 5000, ["["] * 2500 + ["x"] + ["]"] * 2500, ['"a', "'b"] * 2500]
)
def test_joining_stays_quick_where_nothing_closes(texts: list[str]) -> None:
    begun = time.monotonic()
    join_split(texts)
    assert time.monotonic() - begun < 20  # it takes well under one; squared effort takes minutes


# ---- keyword arguments


def test_keyword_arguments_are_parsed() -> None:
    texts = ["axis=0", "reverse=true", "name=x=1", "empty=", "shape=[1,", "2]", "key=(", "größe=-1e-5"]
    assert parse_kwargs(texts) == {
        "axis": 0, "reverse": True, "name": "x=1", "empty": "", "shape": [1, 2], "key": "(", "größe": -1e-5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["axis"], "'axis'"),
        (["=1"], "'=1'"),
        (["1a=2"], "'1a=2'"),
        (["a b=2"], "'a b=2'"),
        (["a.b=2"], "'a.b=2'"),
        (["a\n=2"], r"'a\\n=2'"),
        (["a=1", "b=2", "a=3"], "a is given twice"),
        (["a=[1,", "2"], "'2'"),
    ],
)
def test_malformed_keyword_arguments_are_refused_in_one_line(texts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_kwargs(texts)
    assert "\n" not in str(caught.value)


# ---- names


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("min", min),
        ("str.upper", str.upper),
        ("dict.fromkeys", dict.fromkeys),
        ("builtins.min", min),
        ("os.path.join", os.path.join),
        ("math.sqrt", math.sqrt),
        ("xml.etree.ElementTree.parse", xml.etree.ElementTree.parse),
        ("collections.Counter", __import__("collections").Counter),
        ("collections.OrderedDict.fromkeys", __import__("collections").OrderedDict.fromkeys),
        ("executor.call.resolve", resolve),
    ],
)
def test_names_lead_to_callables(name: str, function: object) -> None:
    assert resolve(name) == function


def test_submodules_are_imported_on_the_way(folder: Callable[..., Path]) -> None:
    folder(pkg____init__="", pkg__deep="class A:\n    @staticmethod\n    def f():\n        return 5\n")
    assert resolve("pkg.deep.A.f")() == 5


def test_a_submodule_is_found_through_another_name_of_its_package(folder: Callable[..., Path]) -> None:
    folder(alias_of="import real_pkg as r\n", real_pkg____init__="", real_pkg__m="def f(): return 6\n")
    assert resolve("alias_of.r.m.f")() == 6


def test_built_ins_win_but_a_module_of_that_name_has_what_they_lack(folder: Callable[..., Path]) -> None:
    folder(min="def lowest(): return 7\n", str="def upper(): return 8\n")
    assert resolve("min") is min
    assert resolve("str.upper") is str.upper
    assert resolve("min.lowest")() == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("np.min", "aliases are not known: write numpy.min"),
        ("plt.plot", "write matplotlib.pyplot.plot"),
        ("np", "write numpy"),
        ("numpy.mim", "did you mean numpy.min?"),
        ("numpy.MIN", "did you mean numpy.min?"),
        ("numpi.min", "did you mean numpy.min?"),
        ("numpy.linlg.norm", "did you mean numpy.linalg.norm?"),
        ("numpy.linalg.nrm", "did you mean numpy.linalg.norm?"),
        ("os.pth.join", "did you mean os.path.join?"),
        ("xml.etree.ElemntTree.parse", "did you mean xml.etree.ElementTree.parse?"),
        ("mim", "did you mean min?"),
        ("Min", "did you mean min?"),
        ("str.uper", "did you mean str.upper?"),
        ("stt.upper", "did you mean str.upper?"),
        ("sqrt", "full import path: did you mean math.sqrt?"),
        ("qqqqq", "full import path: write one such as math.sqrt"),
        ("qqqqq.f", "no module named qqqqq: check the name, or install it"),
        ("math.qqqqq", "math has no qqqqq"),
        ("min.qqqqq", "min has no qqqqq"),
        ("nothere.__class__", "no module named nothere"),
        ("math.pi", "math.pi is of type float and can't be called"),
        ("None", "None is of type NoneType and can't be called"),
        ("math", "math is a module and can't be called: name a function in it, math.NAME"),
        ("os.path", "os.path is a module and can't be called"),
        *(
            (name, "names no function")
            for name in ("", ".", "a..b", "1a.b", "os.path.", ".min", "a b", "a\nb")
        ),
        *((name, "names no function") for name in ("-x", "min()", "\x00", "\ud800", "os/path")),
    ],
)
def test_an_unknown_name_gets_one_line_that_says_what_to_do(name: str, says: str) -> None:
    with pytest.raises(UnknownFunction) as caught:
        resolve(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_named_like_an_alias_is_a_module(folder: Callable[..., Path]) -> None:
    folder(np="def min(): return 9\n")
    assert resolve("np.min")() == 9


def test_a_typo_in_a_module_of_ones_own_is_seen_and_the_module_is_not_run(
    folder: Callable[..., Path],
) -> None:
    folder(my_simulation="raise SystemExit('imported')\n", my_pkg____init__="", my_pkg__solver="1/0\n")
    with pytest.raises(UnknownFunction, match=r"did you mean my_simulation\.run\?"):
        resolve("my_simulatoin.run")
    with pytest.raises(UnknownFunction, match=r"did you mean my_pkg\.solver\.run\?"):
        resolve("my_pkg.solvr.run")
    with pytest.raises(UnknownFunction, match=r"my_simulation is a module"):
        resolve("my_simulation")
    assert "my_simulation" not in sys.modules


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nothere_at_all\n", ModuleNotFoundError),
        ("def f(:\n", SyntaxError),
        ("1/0\n", ZeroDivisionError),
        ("raise SystemExit(3)\n", SystemExit),
        ("from math import nothing\n", ImportError),
    ],
)
def test_what_a_module_raises_at_its_import_goes_through(
    folder: Callable[..., Path], text: str, error: type[BaseException]
) -> None:
    folder(broken=text, broken_pkg____init__="", broken_pkg__sub=text)
    for name in ("broken.f", "broken_pkg.sub.f"):
        with pytest.raises(error) as caught:
            resolve(name)
        assert not isinstance(caught.value, UsageError)
        assert caught.value.__context__ is None


def test_a_module_that_fails_to_compute_an_attribute_does_not_break_the_advice(
    folder: Callable[..., Path],
) -> None:
    folder(lazy="def __dir__(): return ['compute']\ndef __getattr__(name):\n    if name == 'compute': 1/0\n"
                "    raise AttributeError(name)\n")  # fmt: skip
    with pytest.raises(UnknownFunction, match=r"did you mean lazy\.compute\?"):
        resolve("lazy.computee")


# ---- sys.path


def test_a_folder_becomes_importable_once_and_the_project_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/else", str(tmp_path)])
    make_importable(str(tmp_path))
    make_importable(str(tmp_path))
    assert sys.path == [str(tmp_path), "/else", str(ROOT)]
    make_importable(str(ROOT))
    assert sys.path == [str(ROOT), str(tmp_path), "/else"]


# ---- arguments and outcomes


def test_texts_become_arguments() -> None:
    function, args, kwargs = set_argument("sorted", ["[3,", "1]", "x"], ["reverse=true", "key=None"])
    assert (function, args, kwargs) == (sorted, [[3, 1], "x"], {"reverse": True, "key": None})
    assert set_argument("dict") == (dict, [], {})


def test_values_stay_as_they_are() -> None:
    params: list[object] = ["1", [2], None]
    function, args, kwargs = set_argument("sorted", params, {"key": "1"}, parsed=True)
    assert (function, args, kwargs) == (sorted, ["1", [2], None], {"key": "1"})
    assert args is not params
    assert set_argument("dict", parsed=True) == (dict, [], {})


def test_malformed_texts_are_refused_before_anything_is_imported(folder: Callable[..., Path]) -> None:
    folder(never="raise AssertionError\n")
    with pytest.raises(UsageError, match="NAME=VALUE"):
        set_argument("never.f", [], ["x"])


def test_a_value_is_an_ok_outcome() -> None:
    before = time.time()
    outcome = function_executor(sorted, [[2, 1]], {"reverse": True})
    assert (outcome.status, outcome.value, outcome.error) == ("ok", [2, 1], None)
    assert before <= outcome.started <= outcome.finished <= time.time()


def test_an_exception_is_an_error_outcome() -> None:
    outcome = function_executor(int, ["x"], {})
    assert (outcome.status, outcome.value) == ("error", None)
    assert outcome.error is not None
    assert outcome.error.type == "ValueError"
    assert outcome.error.message == "invalid literal for int() with base 10: 'x'"
    assert outcome.error.traceback == f"ValueError: {outcome.error.message}"
    assert outcome.started <= outcome.finished


class Abort(BaseException):
    pass


@pytest.mark.parametrize("error", [RecursionError, MemoryError, Abort, StopIteration, UsageError])
def test_every_exception_of_the_function_is_its_outcome(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("so")

    outcome = function_executor(fail, [], {})
    assert outcome.error is not None
    assert outcome.error.type.endswith(error.__name__)
    assert outcome.error.message == "so"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_more_than_a_call_goes_through(error: type[BaseException]) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(error):
        function_executor(leave, [], {})


def failing(depth: int) -> None:
    if depth:
        return failing(depth - 1)
    try:
        int("x")
    except ValueError as exc:
        raise json.JSONDecodeError("bad", "text", 0) from exc


def test_the_traceback_holds_the_users_part_and_the_chain() -> None:
    error = function_executor(failing, [2], {}).error
    assert error is not None
    assert error.type == "json.decoder.JSONDecodeError"
    lines = error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__ in lines[1]
    assert lines[-1] == "json.decoder.JSONDecodeError: bad: line 1 column 1 (char 0)"
    assert error.traceback.count(", in failing") == 4
    assert "direct cause" in error.traceback
    assert call.__file__ not in error.traceback


def test_the_traceback_of_a_failed_import_begins_in_the_module(folder: Callable[..., Path]) -> None:
    folder(outer="import inner\n", inner="1/0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        resolve("outer.f")
    lines = describe(caught.value).traceback.splitlines()
    assert "outer.py" in lines[1]
    assert any("inner.py" in line for line in lines)
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "importlib" not in "".join(lines)


def test_a_syntax_error_is_shown_with_its_place(folder: Callable[..., Path]) -> None:
    folder(typo="def f(:\n    pass\n")
    with pytest.raises(SyntaxError) as caught:
        resolve("typo.f")
    text = describe(caught.value).traceback
    assert "Traceback" not in text
    assert "typo.py" in text
    assert "def f(:" in text


def test_a_group_of_exceptions_is_cut_too() -> None:
    def fail() -> None:
        errors = [outcome_error(ValueError("a")), outcome_error(TypeError("b"))]
        raise ExceptionGroup("both", errors)

    def outcome_error(error: Exception) -> Exception:
        try:
            function_executor(raising, [GeneratorExit(str(error))], {})
        except GeneratorExit as exc:
            error.__cause__ = exc
        return error

    def raising(error: BaseException) -> None:
        raise error

    described = function_executor(fail, [], {}).error
    assert described is not None
    assert described.type == "ExceptionGroup"
    assert "ValueError: a" in described.traceback
    assert "GeneratorExit: b" in described.traceback
    assert call.__file__ not in described.traceback


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_without_words_is_described() -> None:
    error = describe(Mute())
    assert error.type == f"{__name__}.Mute"
    assert error.message == "<exception str() failed>"
    assert "Mute" in error.traceback


def test_a_traceback_that_fails_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr("traceback.TracebackException.from_exception", broken)
    assert describe(ValueError("x")).traceback == "ValueError: x"


def test_a_long_chain_of_causes_is_described() -> None:
    error: Exception = ValueError("first")
    for number in range(3000):
        after = ValueError(str(number))
        after.__cause__ = error
        error = after
    described = describe(error)
    assert described.message == "2999"
    assert described.traceback.endswith("ValueError: 2999")
