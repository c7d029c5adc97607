"""executor_cli.py as its user meets it: the real script, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "executor_cli.py"

#: Seconds that any one call may take; a call that hangs is to fail here, not at the suite's limit.
LIMIT = 60

#: What a person keeps in the folder they work in.
MODULE = """
import ctypes, os, sys, signal, time

def noisy():
    print("from print")
    print("from stderr", file=sys.stderr)
    sys.__stdout__.write("from __stdout__\\n")
    os.write(1, b"from os.write\\n")
    ctypes.CDLL(None).puts(b"from C")
    os.system("echo from a child")
    return 42

def fail(depth=1):
    if depth:
        return fail(depth - 1)
    try:
        {}["key"]
    except KeyError as error:
        raise ValueError("no key") from error

class Mute:
    def __str__(self):
        raise RuntimeError("no words")

class Loud:
    def __str__(self):
        print("from __str__")
        return "loud"

class Abort(BaseException):
    pass

def abort():
    raise Abort("enough")

def close_generator():
    raise GeneratorExit("odd")

def leave(*code):
    sys.exit(*code)

def leave_without_words():
    class Code:
        def __repr__(self):
            raise RuntimeError("no words")
    sys.exit(Code())

def interrupt():
    raise KeyboardInterrupt

def surrogate():
    return "a\\udcffb"

def factorial(n):
    import math
    return math.factorial(n)

def lines(n):
    return "\\n".join(map(str, range(n)))

def close_streams():
    print("last words")
    sys.stdout.close()
    sys.stdout = None
    return "closed"

def wait():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("ready", flush=True)
    time.sleep(60)

def where():
    return os.getcwd()

def at_exit():
    import atexit
    atexit.register(print, "from atexit")
    return 1

def arrays():
    import numpy
    return {"a": numpy.arange(3), "b": (1, 2), "c": float("nan")}

def many():
    import numpy
    return numpy.zeros(2000)

def no_form():
    return object()
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The folder that the calls start in, with a module `mine` in it."""
    tmp_path.joinpath("mine.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        defaults = {"cwd": here, "capture_output": True, "encoding": "utf-8", "timeout": LIMIT}
        return subprocess.run([sys.executable, str(SCRIPT), *arguments], **(defaults | options))

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("--function min --params 1 2", "1"),
        ("--function numpy.min --params [1,2]", "1"),
        ("--function str.upper --params hello", "HELLO"),
        ("--function numpy.linalg.norm --params [3,4]", "5.0"),
        ("--function os.path.join --params a b", "a/b"),
        ("--function collections.OrderedDict.fromkeys --params ab", "OrderedDict({'a': None, 'b': None})"),
        ("--function fractions.Fraction --params 1 3", "1/3"),
        ("--function list", "[]"),
        ("--function dict", "{}"),
        ("--function list --params", "[]"),
        ("--function len --params [1,2]", "2"),
        ("--function sum --params [1, 2]", "3"),
        ("--function repr --params [ 1, (2, 3) ]", "[1, (2, 3)]"),
        ("--function print --params x", "None"),
        ("--function abs --params -1e-5", "1e-05"),
        ("--function abs --params -inf", "inf"),
        ("--function abs --params -1", "1"),
        ("--function repr --params -1+2j", "(-1+2j)"),
        ("--function repr --params nan", "nan"),
        ("--function repr --params 1e3", "1000.0"),
        ("--function repr --params (1,2)", "(1, 2)"),
        ("--function repr --params True", "True"),
        ("--function repr --params true", "True"),
        ("--function repr --params None", "None"),
        ("--function repr --params null", "None"),
        ("--function repr --params 007", "'007'"),
        ("--function repr --params -x", "'-x'"),
        ("--function repr --params -h", "'-h'"),
        ("--function repr --params -", "'-'"),
        ("--function repr --params '1'", "'1'"),
        ("--function repr --params '--x'", "'--x'"),
        ("--function repr --params=--x", "'--x'"),
        ("--function repr --params=", "''"),
        ("--function repr --params=[1, 2]", "[1, 2]"),
        ("--function=min --params=3 --params 4", "3"),
        ("--params 3 4 --function min", "3"),
        ("--function sorted --params [1,3,2] --kwargs reverse=true", "[3, 2, 1]"),
        ("--function numpy.sum --params [[1,2],[3,4]] --kwargs axis=0", "[4 6]"),
        ("--kwargs a=1 b=-1e-5 --kwargs c=[1, 2] --function dict", "{'a': 1, 'b': -1e-05, 'c': [1, 2]}"),
        ("--function dict --kwargs=a=--x b=c=d", "{'a': '--x', 'b': 'c=d'}"),
        ("--function min --params 1 2 --json", "1"),
    ],
)
def test_the_value_is_printed(run: Run, arguments: str, shown: str) -> None:
    done = run(*arguments.split(" "))
    stdout = "OrderedDict({'a': None, 'b': None})" if done.stdout.startswith("OrderedDict([") else done.stdout
    assert stdout.rstrip("\n") == shown
    assert done.stdout.endswith("\n")
    assert done.returncode == 0
    assert done.stderr == ("x\n" if "print" in arguments else "")


def test_texts_with_blanks_and_quotes(run: Run) -> None:
    texts = ['{"a": 1}', "[1, 2]", "a b", '"1"', "", " x ", ":-(", r'"\ud83d\ude00"', "a\nb", "1 # 2"]
    value = [{"a": 1}, [1, 2], "a b", "1", "", " x ", ":-(", "\N{GRINNING FACE}", "a\nb", "1 # 2"]
    done = run("--function", "repr", "--params", *texts[:1])
    assert done.stdout == f"{value[0]!r}\n"
    done = run("--function", "print", "--params", *texts, "--kwargs", 'sep="|"', "file=null")
    assert done.stderr == "|".join(map(str, value)) + "\n"
    assert (done.stdout, done.returncode) == ("None\n", 0)


def test_nothing_is_evaluated(run: Run, here: Path) -> None:
    text = "__import__('os').mkdir('made')"
    done = run("--function", "str.lower", "--params", text)
    assert done.stdout == f"{text}\n"
    assert not here.joinpath("made").exists()


def test_the_projects_own_functions_are_found_from_any_folder(run: Run) -> None:
    done = run("--function", "example_compute.compute_flops", "--params", "1", "16")
    assert done.returncode == 0
    assert float(done.stdout) > 0


def test_the_current_folder_comes_first(run: Run, here: Path) -> None:
    here.joinpath("example_compute.py").write_text("def compute_flops(): return 'mine'\n")
    assert run("--function", "example_compute.compute_flops").stdout == "mine\n"
    assert run("--function", "mine.where").stdout == f"{here.resolve()}\n"


def test_a_folder_that_is_gone_is_no_obstacle(run: Run, here: Path) -> None:
    gone = here / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    command = [
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        str(SCRIPT),
        "--function",
        "min",
        "--params",
        "1",
        "2",
    ]
    done = subprocess.run(command, cwd=gone, capture_output=True, text=True, timeout=LIMIT)
    assert (done.stdout, done.returncode) == ("1\n", 0)


# ---- what goes where


def test_what_the_function_prints_goes_to_stderr(run: Run) -> None:
    done = run("--function", "mine.noisy")
    assert (done.stdout, done.returncode) == ("42\n", 0)
    said = {"print", "stderr", "__stdout__", "os.write", "C", "a child"}
    assert set(done.stderr.splitlines()) == {f"from {what}" for what in said}


def test_what_a_module_prints_at_its_import_goes_to_stderr(run: Run, here: Path) -> None:
    here.joinpath("talks.py").write_text(
        "print('hello')\nimport os\nos.system('echo child')\ndef f(): return 1\n"
    )
    done = run("--function", "talks.f")
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "hello\nchild\n", 0)


def test_what_is_printed_after_the_call_goes_to_stderr(run: Run) -> None:
    done = run("--function", "mine.at_exit")
    assert (done.stdout, done.stderr) == ("1\n", "from atexit\n")
    done = run("--function", "mine.Loud")
    assert (done.stdout, done.stderr) == ("loud\n", "from __str__\n")


def test_a_function_that_closes_its_streams_still_has_its_value_printed(run: Run) -> None:
    done = run("--function", "mine.close_streams")
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "last words\n", 0)


def test_lone_surrogates_and_what_the_encoding_lacks_are_escaped(run: Run) -> None:
    assert run("--function", "mine.surrogate").stdout == "a\\udcffb\n"
    latin = dict(os.environ, PYTHONIOENCODING="latin-1")
    done = run("--function", "str.upper", "--params", "é€", env=latin, encoding="latin-1")
    assert done.stdout == "É\\u20ac\n"


def test_integers_of_any_size(run: Run) -> None:
    done = run("--function", "mine.factorial", "--params", "3000")
    assert len(done.stdout) == 9131 + 1
    digits = "9" * 10_000
    assert run("--function", "int.__add__", "--params", digits, "1").stdout == f"1{'0' * 10_000}\n"


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_it_quietly(here: Path, extra: list[str]) -> None:
    command = [sys.executable, str(SCRIPT), "--function", "mine.lines", "--params", "300000", *extra]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    _, stderr = process.communicate(timeout=LIMIT)
    assert (stderr, process.returncode) == (b"", 0)


@pytest.mark.parametrize("streams", [">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stdout_is_no_error(here: Path, streams: str) -> None:
    script = f'exec "$@" {streams}'
    command = ["sh", "-c", script, "sh", sys.executable, str(SCRIPT), "--function", "mine.Loud"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=LIMIT)
    assert (done.stdout, done.returncode) == ("", 0)
    assert done.stderr == ("" if "2>&-" in streams else "from __str__\n")


@pytest.mark.parametrize("extra", [[], ["-u"]])
def test_a_file_as_stdout_holds_the_value_alone(here: Path, extra: list[str]) -> None:
    path = here / "value.txt"
    path.write_text("before\n")
    command = [sys.executable, *extra, str(SCRIPT), "--function", "mine.noisy"]
    with path.open("a") as file:
        done = subprocess.run(
            command, cwd=here, stdout=file, stderr=subprocess.PIPE, text=True, timeout=LIMIT
        )
    assert (path.read_text(), done.returncode) == ("before\n42\n", 0)
    assert len(done.stderr.splitlines()) == 6


def test_a_closed_stderr_lets_nothing_into_stdout(here: Path) -> None:
    for name, shown, status in (("mine.noisy", "42\n", 0), ("mine.fail", "", 1), ("mine.qqqqq", "", 2)):
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, str(SCRIPT), "--function", name]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=LIMIT)
        assert (done.stdout, done.returncode) == (shown, status)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_value_that_cannot_be_written_is_an_error(run: Run) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(
            "--function",
            "min",
            "--params",
            "1",
            "2",
            stdout=full,
            stderr=subprocess.PIPE,
            capture_output=False,
        )
    assert done.returncode == 1
    assert done.stderr == "executor_cli.py: standard output can't be written: No space left on device\n"


# ---- --json


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("list --params abc", ["a", "b", "c"]),
        ("dict --kwargs a=true b=null c=[1,(2,3)]", {"a": True, "b": None, "c": [1, [2, 3]]}),
        ("float --params nan", {"$float": "nan"}),
        ("float --params -inf", {"$float": "-inf"}),
        ("complex --params 1 -2", {"$complex": [1, -2]}),
        ("bytes --params [104,105]", {"$bytes": "aGk="}),
        ("dict.fromkeys --params [1] x", {"$map": [[1, "x"]]}),
        ("datetime.date --params 2026 7 28", {"$date": "2026-07-28"}),
        ("mine.factorial --params 30", 265252859812191058636308480000000),
        ("mine.arrays", {"a": [0, 1, 2], "b": [1, 2], "c": {"$float": "nan"}}),
        ("mine.many", [0.0] * 2000),
        ("mine.surrogate", "a\udcffb"),
        ("print", None),
    ],
)
def test_json(run: Run, arguments: str, value: object) -> None:
    done = run(
        "--json", "--function", *arguments.split(" "), env=dict(os.environ, PYTHONIOENCODING="latin-1")
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout) == value


def test_a_value_without_a_json_form_is_an_error_that_names_its_type(run: Run) -> None:
    done = run("--function", "mine.no_form", "--json")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("CannotTravel: ")
    assert "object" in done.stderr
    assert done.stderr.count("\n") == 1


def test_modules_in_the_current_folder_do_not_stand_in_for_what_json_needs(run: Run, here: Path) -> None:
    here.joinpath("base64.py").write_text("1/0\n")
    here.joinpath("msgspec.py").write_text("1/0\n")
    done = run("--function", "min", "--params", "[1,2]", "--json")
    assert (done.stdout, done.stderr) == ("1\n", "")


# ---- exit status 1


def test_an_exception_is_shown_with_the_users_part_of_the_traceback(run: Run, here: Path) -> None:
    done = run("--function", "mine.fail", "--params", "2")
    assert (done.stdout, done.returncode) == ("", 1)
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert str(here / "mine.py") in lines[1]
    assert "KeyError: 'key'" in lines
    assert lines[-1] == "ValueError: no key"
    assert done.stderr.count(", in fail") == 4
    assert str(SCRIPT.parent) not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ("min", "TypeError: min expected at least 1 argument, got 0"),
        ("mine.fail --kwargs colour=red", "TypeError: fail() got an unexpected keyword argument 'colour'"),
        ("int --params x", "ValueError: invalid literal for int() with base 10: 'x'"),
        ("operator.truediv --params 1 0", "ZeroDivisionError: division by zero"),
        ("mine.Mute", "RuntimeError: no words"),
        ("mine.abort", "mine.Abort: enough"),
        ("mine.close_generator", "GeneratorExit: odd"),
        ("json.loads --params x", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_what_the_function_raises_ends_with_1(run: Run, arguments: str, last: str) -> None:
    done = run("--function", *arguments.split(" "))
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.splitlines()[-1] == last
    assert "executor_cli.py" not in done.stderr
    assert "call.py" not in done.stderr


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("import nothere_at_all", "ModuleNotFoundError: No module named 'nothere_at_all'"),
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_fails_at_its_import_ends_with_1(run: Run, here: Path, text: str, last: str) -> None:
    here.joinpath("broken.py").write_text(f"{text}\n")
    done = run("--function", "broken.f")
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.splitlines()[-1] == last
    assert "broken.py" in done.stderr
    assert str(SCRIPT.parent) not in done.stderr
    assert "importlib" not in done.stderr


def test_a_function_that_calls_sys_exit_ends_with_1_and_says_so(run: Run, here: Path) -> None:
    for code, shown in (("3", "3"), ("0", "0"), ("gone", "'gone'"), ("null", "")):
        done = run("--function", "mine.leave", "--params", code)
        assert (done.stdout, done.returncode) == ("", 1)
        assert done.stderr == f"executor_cli.py: mine.leave called sys.exit({shown})\n"
    done = run("--function", "mine.leave_without_words")
    assert (done.stderr, done.returncode) == (
        "executor_cli.py: mine.leave_without_words called sys.exit(...)\n",
        1,
    )
    here.joinpath("quits.py").write_text("raise SystemExit(4)\n")
    done = run("--function", "quits.f")
    assert done.returncode == 1
    assert done.stderr == "executor_cli.py: the import of quits.f called sys.exit(4)\n"


# ---- exit status 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--function NAME is missing"),
        (["--function"], "--function NAME is missing"),
        (["--function", "--params", "1"], "--function NAME is missing"),
        (["--params", "1"], "--function NAME is missing"),
        (["min", "1"], "'min' belongs to no option: write --function NAME --params VALUE ..."),
        (["--function", "min", "1", "2"], "'1' belongs to no option: arguments follow --params"),
        (["--function", "min", "--json", "1"], "'1' belongs to no option"),
        (["--function", "min", "--function", "max"], "--function is given twice"),
        (["--function", "min", "--json=1"], "--json takes no value"),
        (["--function", "min", "--parms", "1"], "did you mean --params?"),
        (["--function", "repr", "--params", "--x"], "quote it twice: \"'--x'\""),
        (["--function", "repr", "--params", "--"], "quote it twice: \"'--'\""),
        (["--function", "repr", "--params", "--a\nb"], "there is no option '--a\\nb'"),
        (["--function", "np.min", "--params", "[1,2]"], "aliases are not known: write numpy.min"),
        (["--function", "numpy.mim", "--params", "[1,2]"], "did you mean numpy.min?"),
        (["--function", "mim"], "did you mean min?"),
        (["--function", "mine.noizy"], "did you mean mine.noisy?"),
        (["--function", "nothere.f"], "there is no module named nothere"),
        (["--function", "math.pi"], "math.pi is of type float and can't be called"),
        (["--function", "math"], "math is a module and can't be called"),
        (["--function", ""], "'' names no function"),
        (["--function", "a\nb"], "'a\\nb' names no function"),
        (["--function", "-x"], "'-x' names no function"),
        (["--function", "min", "--kwargs", "key"], "'key' is no keyword argument: write NAME=VALUE"),
        (["--function", "min", "--kwargs", "1=2"], "'1=2' is no keyword argument"),
        (["--function", "min", "--kwargs", "a=1", "a=2"], "a is given twice"),
    ],
)
def test_where_there_is_no_call_to_make_one_line_says_what_to_do(
    run: Run, arguments: list[str], says: str
) -> None:
    done = run(*arguments)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("executor_cli.py: error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


# ---- Ctrl-C, help, and the start


def test_ctrl_c_ends_with_130_quietly(here: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--function", "mine.wait"]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert (stdout, stderr, process.returncode) == ("", "", 130)


def test_an_interrupt_that_the_function_raises_is_one(run: Run) -> None:
    done = run("--function", "mine.interrupt")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 130)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--function", "min", "--params", "1", "--help", "--x"]]
)
def test_help(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("usage: executor_cli.py ")
    assert max(map(len, done.stdout.splitlines())) < 80
    for option in (
        "--function",
        "--params",
        "--kwargs",
        "--json",
        "--version",
        "--help",
        "exit status",
        "130",
    ):
        assert option in done.stdout


def test_the_examples_of_the_help_text_work(run: Run) -> None:
    lines = run("--help").stdout.splitlines()
    examples = [line.split()[1:] for line in lines if line.startswith("  executor_cli.py ")]
    assert len(examples) >= 4
    for example in examples:
        done = run(*(text.replace("2048", "64") for text in example))
        assert (done.stderr, done.returncode) == ("", 0)


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("executor_cli.py ")


def test_one_call_imports_nothing_that_it_does_not_need(here: Path) -> None:
    def imported(*options: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *options],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert done.returncode == 0
        return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    ours = {"executor", "executor.bounds", "executor.call", "executor.errors", "__future__"}
    bare = imported("-c", "pass")
    plain = [str(SCRIPT), "--function", "min", "--params", "1", "2.5"]
    assert imported(*plain) - bare == ours
    heavy = {
        "msgspec",
        "numpy",
        "yaml",
        "argparse",
        "json",
        "typing",
        "re",
        "dataclasses",
        "difflib",
        "traceback",
    }
    words = [*plain, "plain", "-1e5", "true", "inf", "--kwargs", "key=len"]
    words[2] = "print"
    words[-1] = "sep=x"
    assert not imported(*words) & (heavy - bare)
