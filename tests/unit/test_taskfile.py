from __future__ import annotations

import csv
import datetime
import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from executor import content, taskfile
from executor.errors import EXIT_USAGE, TaskFileError
from executor.sizes import MOST, parse_size
from executor.task import Task, content_hash, identify
from executor.taskfile import check_tasks, read_tasks

WriteTasks = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteTasks:
    """Write a file into the folder that the test runs in, and return its name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write


def read_text(text: str) -> list[Task]:
    return read_tasks("-", io.BytesIO(text.encode()))


def mistakes(call: Callable[[], object]) -> list[str]:
    with pytest.raises(TaskFileError) as caught:
        call()
    assert caught.value.exit_status == EXIT_USAGE
    assert not any("\n" in mistake for mistake in caught.value.mistakes)
    return caught.value.mistakes


# One set of records in every form of file

RECORDS: list[dict[str, object]] = [
    {"function": "min", "params": [3, -1.5, [1, "x"]], "resources": 2, "id": "first"},
    {"function": "numpy.linalg.norm", "kwargs": {"ord": 2, "axis": None}, "timeout": 1.5},
    {"function": "min", "params": ['a, "b"\nc'], "retries": 0, "memory": "512MiB"},
    {"function": "min", "id": 17},
]
TASKS = [
    Task(function="min", params=[3, -1.5, [1, "x"]], resources=2, id="first"),
    Task(function="numpy.linalg.norm", kwargs={"ord": 2, "axis": None}, timeout=1.5),
    Task(function="min", params=['a, "b"\nc'], retries=0, memory=512 * 2**20),
    Task(function="min", id="17"),
]
for _task in TASKS:
    _task.id = _task.id or f"{content_hash(_task)}-0"


def as_csv(records: list[dict[str, object]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, Task.__struct_fields__)
    writer.writeheader()
    for record in records:
        cells = {key: json.dumps(record[key]) for key in record.keys() & {"params", "kwargs"}}
        writer.writerow(record | cells)
    return file.getvalue()


FORMS: dict[str, Callable[[list[dict[str, object]]], str]] = {
    "t.jsonl": lambda records: "\n".join(map(json.dumps, records)),
    "t.json": json.dumps,
    "mapping.json": lambda records: json.dumps({"tasks": records}, indent=2),
    "t.yaml": yaml.safe_dump,
    "mapping.yml": lambda records: yaml.safe_dump({"tasks": records}),
    "t.csv": as_csv,
    "UPPER.CSV": as_csv,
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_every_form_gives_the_same_tasks(write: WriteTasks, name: str, bom: bytes, newline: str) -> None:
    text = FORMS[name](RECORDS)
    if not name.lower().endswith("csv"):  # there, what stands in a quoted cell is kept as it is
        text = text.replace("\n", newline)
    assert read_tasks(write(name, bom + text.encode())) == TASKS


def test_a_dash_is_json_lines_on_stdin() -> None:
    assert read_text(FORMS["t.jsonl"](RECORDS)) == TASKS


def test_a_list_of_records_gives_the_same_tasks() -> None:
    assert check_tasks(RECORDS, "TASKS") == TASKS


# What a field may hold

VALUES: dict[str, list[object]] = {
    "function": ["min", "os.path.join", "größe.x", "", "a b", "a..b", ".a", "1a", 3, None],
    "params": [[], [1, "x"], [[]], {}, "[1]", 3, None],
    "kwargs": [{}, {"a": 1}, [], "a", None],
    "resources": [1, 64, MOST, MOST + 1, 0, -1, 2.0, True, "2", 10**30, None],
    "id": ["a", "ü b", "", "a\nb", "\ud800", 7, -7, 1.5, True, [], None],
    "timeout": [1, 0.5, 10**400, 0, -1, True, "3", math.inf, math.nan, None],
    "retries": [0, 3, -1, 1.0, False, MOST + 1, None],
    "memory": [1, 2**40, "2GB", "2 KiB", "0", "2 GBit", 0, -1, 1e9, True, MOST + 1, None],
}


@given(st.fixed_dictionaries({}, optional={key: st.sampled_from(VALUES[key]) for key in VALUES}))
def test_a_line_and_a_record_are_judged_alike(record: dict[str, object]) -> None:
    def outcome(call: Callable[[], list[Task]]) -> object:
        try:
            return call()
        except TaskFileError as error:
            return [mistake.partition(": ")[2] for mistake in error.mistakes]

    from_line = outcome(lambda: read_text(json.dumps(record)))
    from_list = outcome(lambda: check_tasks([record], "TASKS"))
    assert from_line == from_list


@pytest.mark.parametrize(
    ("record", "mistake"),
    [
        ({}, "function: is missing"),
        ({"function": None}, "function: is missing"),
        (
            {"function": "a b"},
            "function: must be a name such as min or numpy.linalg.norm, in full, not 'a b'",
        ),
        ({"function": "f", "params": 3}, "params: must be a list, not 3"),
        ({"function": "f", "kwargs": [1]}, "kwargs: must be a mapping of names to values, not [1]"),
        ({"function": "f", "kwargs": {1: 2}}, "kwargs: a name must be a string, not 1"),
        ({"function": "f", "resources": 0}, "resources: must be an integer of at least 1, not 0"),
        ({"function": "f", "resources": 2.0}, "resources: must be an integer of at least 1, not 2.0"),
        ({"function": "f", "resources": True}, "resources: must be an integer of at least 1, not True"),
        ({"function": "f", "resources": 2**63}, f"resources: must be at most {MOST}, not {2**63}"),
        ({"function": "f", "timeout": 0}, "timeout: must be a number of seconds above 0, not 0"),
        ({"function": "f", "timeout": math.inf}, "timeout: must be a number of seconds above 0, not inf"),
        ({"function": "f", "retries": -1}, "retries: must be an integer of at least 0, not -1"),
        (
            {"function": "f", "memory": "much"},
            "memory: must be an integer of bytes, or text such as 2GB or 512MiB, not 'much'",
        ),
        ({"function": "f", "id": ""}, "id: must be printable text on one line, or an integer, not ''"),
        ({"function": "f", "resource": 2}, "resource: unknown key; did you mean resources?"),
        ({"function": "f", "Params": []}, "Params: unknown key; did you mean params?"),
        ({"function": "f", "cores": 2}, "cores: unknown key; did you mean resources?"),
        (
            {"function": "f", "xyz": 2},
            "xyz: unknown key; known are function, params, kwargs, resources, id, timeout, retries, memory",
        ),
        (
            {"function": "f", 3: 2},
            "3: unknown key; known are function, params, kwargs, resources, id, timeout, ",
        ),
        (
            {"function": "f", "resources": 16**5000},
            f"resources: must be at most {MOST}, not an int of thousands of digits",
        ),
        ("min", 'must be a task such as {"function": "math.sqrt", "params": [2]}, not \'min\''),
        ({"function": "f", "params": [object()]}, "params or kwargs: "),
        ({"function": "f", "params": [object()], "id": "a"}, "params or kwargs: "),
    ],
)
def test_a_mistake_has_its_place_and_key(record: object, mistake: str) -> None:
    (found,) = mistakes(lambda: check_tasks([{"function": "f"}, record], "TASKS"))
    assert found.startswith(f"TASKS[1]: {mistake}")


def test_a_list_may_hold_what_python_has_for_the_same() -> None:
    (task,) = check_tasks(
        [{"function": "f", "params": (1, 2), "resources": np.int64(2), "timeout": np.float32(0.5)}], "TASKS"
    )
    assert (task.params, task.resources, task.timeout) == ([1, 2], 2, 0.5)
    assert (type(task.resources), type(task.timeout)) == (int, float)


def test_tasks_that_are_no_list_are_refused() -> None:
    assert mistakes(lambda: check_tasks({"function": "f"}, "TASKS")) == [  # type: ignore[arg-type]
        "TASKS: must be a list of tasks, not {'function': 'f'}"
    ]


# Memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("2 gb", 2 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1G", 10**9),
        ("1Gi", 2**30),
        ("1.5kB", 1500),
        (".5 KiB", 512),
        ("3TB", 3 * 10**12),
        ("1PiB", 2**50),
        ("1024", 1024),
        (" 7 B ", 7),
    ],
)
def test_memory_is_read_in_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "2XB", "-1GB", "1e9", "0", "0.1", "2GBB", "١GB", "9999999PB", "nan"]
)
def test_other_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an integer of bytes, or text such as 2GB or 512MiB"):
        parse_size(text)


@given(st.integers(1, MOST))
def test_memory_is_exact(size: int) -> None:
    assert parse_size(str(size)) == size


# Every mistake, each with its place


def test_all_mistakes_of_a_file_are_named(write: WriteTasks) -> None:
    lines = [
        '{"function": "min"}',
        "",
        '{"function": "min", "resources": 0, "retries": -1}',
        "   ",
        "{function: min}",
        '{"function": "min", "id": "a"}',
        '{"function": "min", "timeout": -1, "id": "a"}',
        "[1, 2]",
    ]
    assert mistakes(lambda: read_tasks(write("tasks.jsonl", "\n".join(lines)))) == [
        "tasks.jsonl:3: resources: must be an integer of at least 1, not 0",
        "tasks.jsonl:3: retries: must be an integer of at least 0, not -1",
        "tasks.jsonl:5: malformed JSON: Expecting property name enclosed in double quotes (column 2)",
        "tasks.jsonl:7: id: 'a' is already the id of tasks.jsonl:6",
        "tasks.jsonl:7: timeout: must be a number of seconds above 0, not -1",
        'tasks.jsonl:8: must be a task such as {"function": "math.sqrt", "params": [2]}, not [1, 2]',
    ]


@pytest.mark.parametrize("name", ["t.json", "mapping.yml"])
def test_in_a_list_the_index_is_the_place(write: WriteTasks, name: str) -> None:
    text = FORMS[name]([{"function": "min"}, {"function": "min", "resources": 0}])
    assert mistakes(lambda: read_tasks(write(name, text))) == [
        f"{name}: tasks[1]: resources: must be an integer of at least 1, not 0"
    ]


def test_many_mistakes_are_held_and_twenty_shown() -> None:
    with pytest.raises(TaskFileError) as caught:
        read_text("{}\n" * 3000)
    assert len(caught.value.mistakes) == 3000
    assert str(caught.value).splitlines() == [
        "nothing was run, as there are 3,000 mistakes:",
        *(f"stdin:{line}: function: is missing" for line in range(1, 21)),
        "and 2,980 more",
    ]


# JSON Lines are read in blocks, and each line on its own where a block holds anything unusual

LINES = [
    '{"function": "f", "params": [%d, 1]}',
    '{"function": "f", "params": [%d]}\r',
    '{"function": "f", "kwargs": {"x": "a:b"}, "resources": %d}',
    '{"function": "f", "id": %d, "memory": "2GB"}',
    '{"function": "f", "id": "%d-", "timeout": 1}  ',
    '{"function": "f", "params": [{"$float": "nan"}, %d]}',
    '{"function": "f", "params": ["\\u003a", %d]}',
    '{"function": "f", "params": [%d, 1e400]}',
    "",
    "  ",
    '{"function": "f", "params": [%d], "params": [2]}',
    '{"function": "f", "kwargs": {"x": "\\u003a", "x": %d}}',
    '{"function": "f", "resources": -%d}',
    '{"function": "f"}{"function": "f", "id": %d}',
    '{"function": "f"} {"function": "f", "id": %d}',
    '{"function": "f", "params": [%d, ',
    "2]}",
    '{"function": "f", "id": ""}',
    '{"function": "a b", "id": "x%d"}',
    '{"function": "f", "id": "deep%d", "params": ' + "[" * 250 + "]" * 250 + "}",
    "[%d]",
    "nonsense",
]


@given(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=12),
    st.sampled_from([1, 40, 200, 1000]),
    st.sampled_from(["", "\n"]),
)
def test_a_line_is_read_alike_whatever_is_around_it(lines: list[str], block: int, end: str) -> None:
    lines = [line.replace("%d", str(number)) + "\n" for number, line in enumerate(lines, 1)]
    lines[-1] = lines[-1][:-1] + end
    expected: list[Task] = []
    wrong: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            expected += read_text(line)
        except TaskFileError as error:
            wrong += [
                mistake.replace("stdin:1:", f"stdin:{number}:")
                for mistake in error.mistakes
                if mistake != "stdin: holds no tasks"
            ]
    if not expected and not wrong:
        wrong = ["stdin: holds no tasks"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskfile, "_BLOCK", block)
        if wrong:
            assert mistakes(lambda: read_text("".join(lines))) == wrong
            return
        found = read_text("".join(lines))
    for task in expected:
        if task.id.endswith("-0"):  # made, of what stands alone
            task.id = ""
    identify(expected)
    assert repr(found) == repr(expected)  # NaN is not equal to itself


@given(st.lists(st.sampled_from([1, 1.0, True, "1", [1], {"b": 1, "a": [2]}, None, 2**70]), max_size=9))
def test_ids_are_those_of_the_same_tasks_from_elsewhere(params: list[object]) -> None:
    records: list[dict[str, object]] = [{"function": "f", "params": [value]} for value in params]
    records += [{"function": "g", "kwargs": {"z": params, "a": params}, "resources": 2}]
    expected = check_tasks(records, "TASKS")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskfile, "_BLOCK", 100)
        found = read_text("".join(json.dumps(record) + "\n" for record in records))
    assert found == expected
    for task in expected:
        form = content.canonical([task.function, task.params, task.kwargs, task.resources])
        assert task.id[:17] == hashlib.blake2b(form, digest_size=8).hexdigest() + "-"


def test_a_block_may_end_within_a_line_that_is_longer(write: WriteTasks) -> None:
    numbers = list(range(50_000))
    lines = [f'{{"function": "sum", "params": [{numbers}]}}', '{"function": "min"}'] * 2
    assert [task.function for task in read_tasks(write("t.jsonl", "\n".join(lines)))] == ["sum", "min"] * 2


def test_a_source_that_has_ended_is_not_asked_again() -> None:
    class Terminal(io.BytesIO):
        ended = False

        def read(self, size: int | None = -1) -> bytes:
            assert not self.ended
            found = super().read(size)
            self.ended = len(found) < (size or 0)
            return found

        def readline(self, size: int | None = -1) -> bytes:
            assert not self.ended
            return super().readline(size)

    assert len(read_tasks("-", Terminal(b'{"function": "min"}\n'))) == 1


def test_an_id_twice_names_both_places() -> None:
    text = '{"function": "min", "id": 1}\n{"function": "max", "id": "1"}\n'
    assert mistakes(lambda: read_text(text)) == ["stdin:2: id: '1' is already the id of stdin:1"]


def test_an_id_that_is_the_computed_one_of_another_task_is_refused() -> None:
    computed = read_text('{"function": "min"}')[0].id
    text = f'{{"function": "min"}}\n{{"function": "max", "id": "{computed}"}}\n'
    assert mistakes(lambda: read_text(text)) == [
        f"stdin:1: id: {computed}, made for it, is the one given at stdin:2"
    ]


def test_every_parameter_that_cannot_travel_is_named() -> None:
    records = [{"function": "f", "params": [value]} for value in (1, object(), 2, object())]
    found = mistakes(lambda: check_tasks(records, "TASKS"))
    assert [mistake.partition(":")[0] for mistake in found] == ["TASKS[1]", "TASKS[3]"]


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.yaml", "e.csv"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_holds_no_tasks(write: WriteTasks, name: str, content: str) -> None:
    assert mistakes(lambda: read_tasks(write(name, content))) == [f"{name}: holds no tasks"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("e.json", "[]"), ("e.yaml", "tasks: []"), ("e.yml", "tasks:"), ("e.csv", "function\n\n")],
)
def test_an_empty_list_holds_no_tasks(write: WriteTasks, name: str, content: str) -> None:
    assert mistakes(lambda: read_tasks(write(name, content))) == [f"{name}: holds no tasks"]
    assert mistakes(lambda: check_tasks([], "TASKS")) == ["TASKS: holds no tasks"]


@pytest.mark.parametrize(
    ("name", "content", "mistake"),
    [
        (
            "t.json",
            '{"task": []}',
            "must be a list of tasks, or a mapping with the one key tasks, not {'task': []}",
        ),
        ("t.yaml", "3", "must be a list of tasks, or a mapping with the one key tasks, not 3"),
        (
            "t.yaml",
            "tasks: {function: min}",
            "must be a list of tasks, or a mapping with the one key tasks, not {",
        ),
        ("t.json", '{"tasks": [], "taks": 1}', "taks: unknown key; did you mean tasks?"),
        ("t.json", "[" * 100_000, "malformed JSON: it nests too deep"),
    ],
)
def test_a_document_of_another_shape_is_refused(
    write: WriteTasks, name: str, content: str, mistake: str
) -> None:
    (found,) = mistakes(lambda: read_tasks(write(name, content)))
    assert found.startswith(f"{name}: {mistake}")


@pytest.mark.parametrize(
    ("name", "content", "mistake"),
    [
        ("t.json", '[\n{"function": "min",}\n]', "t.json:2: malformed JSON: "),
        (
            "t.json",
            '[\n{"function": "min"}\n\n',
            "t.json:2: malformed JSON: Expecting ',' delimiter (column 20, ",
        ),
        (
            "t.jsonl",
            '{"function": "min"\n',
            "t.jsonl:1: malformed JSON: Expecting ',' delimiter (column 19, ",
        ),
        (
            "t.jsonl",
            '{"function": "mi\n',
            "t.jsonl:1: malformed JSON: Invalid control character (column 17, ",
        ),
        (
            "t.yaml",
            "- function: min\n  params: [1\n",
            "t.yaml:3: while parsing a flow sequence that begins on line 2: ",
        ),
        ("t.yaml", "- function: min\n  function: max\n", "t.yaml:2: the key 'function' stands twice"),
        ("t.csv", 'function,params\nmin,"[1,2]\n', "t.csv:2: malformed CSV in the row that begins here: "),
        ("t.json", b'["\n\xff"]', "t.json:2: is not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("t.yaml", b"- \xff", "t.yaml:1: is not UTF-8 text (byte 0xff); save it as UTF-8"),
        ("t.csv", "function\n\n\ng\xf6".encode("latin-1"), "t.csv:4: is not UTF-8 text (byte 0xf6)"),
        ("t.jsonl", '{"function": "min"}\n'.encode("utf-16"), "t.jsonl:1: is not UTF-8 text (byte 0xff)"),
        ("t.jsonl", b'{"function": "\xff"}\n' * 9, "t.jsonl:1: is not UTF-8 text (byte 0xff)"),
    ],
)
def test_a_file_that_cannot_be_parsed_gives_one_line(
    write: WriteTasks, name: str, content: str | bytes, mistake: str
) -> None:
    (found,) = mistakes(lambda: read_tasks(write(name, content)))
    assert found.startswith(mistake)


# Keys that stand twice: of one of their two values nothing would be left


class Pairs(list[tuple[str, object]]):
    """An object of JSON as it may be written: a key can come more than once."""


def written(value: object) -> str:
    if isinstance(value, Pairs):
        return "{" + ", ".join(f"{json.dumps(key)} : {written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def ambiguous(value: object) -> list[str]:
    """Return the keys that come more than once in an object, for each of those objects."""
    if isinstance(value, Pairs):
        keys = [key for key, _ in value]
        return [k for k in set(keys) if keys.count(k) > 1] + [k for _, v in value for k in ambiguous(v)]
    return [key for item in value for key in ambiguous(item)] if isinstance(value, list) else []


TWICE = (
    '{"function": "f", "kwargs": {"seed": 1, "seed": 2}, "params": [{"a:b": [{"x": 1, "x": 1}]}], '
    '"id": 1, "id": 2}'
)


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("t.jsonl", '{"function": "f"}\n' + TWICE, "t.jsonl:2"),
        ("t.json", '[{"function": "f"}, ' + TWICE + "]", "t.json: tasks[1]"),
        ("t.json", '{"tasks": [{"function": "f"}, ' + TWICE + "]}", "t.json: tasks[1]"),
    ],
)
def test_keys_that_stand_twice_are_named_with_their_place(
    write: WriteTasks, name: str, content: str, place: str
) -> None:
    assert sorted(mistakes(lambda: read_tasks(write(name, content)))) == [
        f"{place}: the key {key!r} stands twice in one object" for key in ("id", "seed", "x")
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"function": "f", "params": [1], "params": [2]}',
        '{"function": "f", "kwargs": {"params": 1, "params": 2}}',
    ],
)
def test_one_key_that_stands_twice_is_enough(write: WriteTasks, line: str) -> None:
    wrong = "the key 'params' stands twice in one object"
    assert mistakes(lambda: read_text(line)) == [f"stdin:1: {wrong}"]
    assert mistakes(lambda: read_tasks(write("t.json", f"[{line}]"))) == [f"t.json: tasks[0]: {wrong}"]


def test_in_a_cell_and_around_the_tasks_they_are_named_too(write: WriteTasks) -> None:
    cell = '"{""a"": 1, ""a"": 2}"'
    assert mistakes(lambda: read_tasks(write("t.csv", f"function,kwargs\nf,{cell}\n"))) == [
        "t.csv:2: kwargs: the key 'a' stands twice in one object"
    ]
    assert mistakes(lambda: read_tasks(write("t.json", '{"tasks": [], "tasks": [{"function": "f"}]}'))) == [
        "t.json: the key 'tasks' stands twice in one object"
    ]


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(':"\\ab', max_size=4)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(st.tuples(st.sampled_from(["a", "b", "function", ":", '"']), inner), max_size=3).map(
                Pairs
            )
        ),
    )
)
def test_no_key_that_stands_twice_is_missed_and_no_other_taken_for_one(value: object) -> None:
    text = f'{{"function": "f", "params": [{written(value)}]}}'
    twice = ambiguous(value)
    if not twice:
        assert len(read_text(text)) == 1
    else:
        found = mistakes(lambda: read_text(text))
        assert sorted(found) == sorted(
            f"stdin:1: the key {key!r} stands twice in one object" for key in twice
        )


def test_a_file_that_cannot_be_read_gives_one_line(write: WriteTasks) -> None:
    Path("folder.json").mkdir()
    assert mistakes(lambda: read_tasks("none.yaml")) == [
        "none.yaml: can't be read: No such file or directory"
    ]
    assert mistakes(lambda: read_tasks("folder.json")) == ["folder.json: can't be read: Is a directory"]


def test_an_unknown_suffix_names_the_known_ones() -> None:
    assert mistakes(lambda: read_tasks("tasks.txt")) == [
        "tasks.txt: a task file ends in .jsonl, .json, .yaml, .yml, .csv; - is JSON Lines on stdin"
    ]


# What JSON lacks

FORM = {"$float": "inf"}


@pytest.mark.parametrize("name", FORMS)
def test_the_forms_of_a_results_file_are_read_back(write: WriteTasks, name: str) -> None:
    record: dict[str, object] = {
        "function": "f",
        "params": [FORM, {"deep": [{"$complex": [1, 2]}]}],
        "kwargs": {"data": {"$bytes": "aGk="}, "plain": "$5"},
    }
    (task,) = read_tasks(write(name, FORMS[name]([record])))
    assert task.params == [math.inf, {"deep": [1 + 2j]}]
    assert task.kwargs == {"data": b"hi", "plain": "$5"}


def test_a_malformed_form_is_a_mistake_with_its_key() -> None:
    (found,) = mistakes(lambda: read_text('{"function": "f", "kwargs": {"x": {"$float": "much"}}}'))
    assert found.startswith("stdin:1: kwargs: ")


def test_what_yaml_has_besides_json_stays_beside_forms(write: WriteTasks) -> None:
    text = "- {function: f, params: [2024-02-29, {1: [{$float: nan}]}, !!set {a}, {$date: '2024-02-29'}]}\n"
    day, mapping, letters, same_day = read_tasks(write("t.yaml", text))[0].params
    assert (day, letters) == (same_day, {"a"})
    assert math.isnan(mapping[1][0])


@pytest.mark.parametrize("depth", [250, 900, 50_000])
@pytest.mark.parametrize("inner", ["1", '{"$float": "inf"}'])
def test_a_parameter_that_nests_too_deep_is_a_mistake(depth: int, inner: str) -> None:
    text = f'{{"function": "f", "params": {"[" * depth}{inner}{"]" * depth}}}'
    (found,) = mistakes(lambda: read_text(text))
    assert "deep" in found


def test_a_record_that_two_aliases_share_is_read_once_for_each(write: WriteTasks) -> None:
    text = "- &task {function: f, params: [{$bytes: aGk=}]}\n- *task\n"
    assert [task.params for task in read_tasks(write("t.yaml", text))] == [[b"hi"], [b"hi"]]


def test_the_words_that_python_writes_into_json_are_read(write: WriteTasks) -> None:
    text = f'{{"function": "f", "params": [Infinity, -Infinity, 1e400, "\\ud800", {10**300}]}}'
    assert read_text(text)[0].params == [math.inf, -math.inf, math.inf, "\ud800", 10**300]
    assert math.isnan(read_tasks(write("t.json", '[{"function": "f", "params": [NaN]}]'))[0].params[0])


def test_yaml_holds_dates_and_numbers_as_people_write_them(write: WriteTasks) -> None:
    text = "- function: f\n  params: [1e-5, 2024-02-29, !!binary aGk=, .inf]\n"
    assert read_tasks(write("t.yaml", text))[0].params == [1e-5, datetime.date(2024, 2, 29), b"hi", math.inf]


# CSV


def test_a_column_may_hold_one_keyword_argument(write: WriteTasks) -> None:
    text = (
        "function, kwargs.axis ,kwargs.key,kwargs\n"
        'f,0,word,"{""a"": 1}"\n'
        "f,,1e-5,\n"
        'f,"[1, {""b"": true}]",,\n'
        "f,\" \",'quoted',\n"
    )
    assert [task.kwargs for task in read_tasks(write("t.csv", text))] == [
        {"a": 1, "axis": 0, "key": "word"},
        {"key": 1e-5},
        {"axis": [1, {"b": True}]},
        {"key": "quoted"},
    ]


def test_lines_are_right_after_newlines_in_cells_and_blank_rows(write: WriteTasks) -> None:
    text = 'function,params,resources\r\nf,"[1,\r\n2]",1\r\n\r\n,,\r\nf,"[\r\n]",0\r\nf,[],x\r\n'
    assert mistakes(lambda: read_tasks(write("t.csv", text))) == [
        "t.csv:6: resources: must be an integer of at least 1, not 0",
        "t.csv:8: resources: must be an integer of at least 1, not 'x'",
    ]


def test_all_mistakes_of_a_row_are_named(write: WriteTasks) -> None:
    text = 'id,function,params,kwargs.a,kwargs,\n001,,"[1,",2,"{""a"": 3}",x,y\n001,f,{},,,\n'
    assert mistakes(lambda: read_tasks(write("t.csv", text))) == [
        "t.csv:2: params: malformed JSON: Expecting value (column 4, where it ends)",
        "t.csv:2: 'x' stands under no column name",
        "t.csv:2: 'y' stands under no column name",
        "t.csv:2: kwargs.a: stands in the cell under kwargs too",
        "t.csv:2: function: is missing",
        "t.csv:3: id: '001' is already the id of t.csv:2",
        "t.csv:3: params: must be a list, not {}",
    ]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            "funktion,params",
            ["funktion: unknown key; did you mean function?", "function: no column has this name"],
        ),
        ("function,id,id", ["id: 2 columns have this name"]),
        ("function,kwargs.", ["kwargs.: unknown key; did you mean kwargs?"]),
        ("function;params", ["columns are separated by commas, not by semicolons or tabs"]),
    ],
)
def test_a_header_is_checked_first(write: WriteTasks, header: str, found: list[str]) -> None:
    expected = [f"t.csv:2: {mistake}" for mistake in found]
    assert mistakes(lambda: read_tasks(write("t.csv", f"\n{header}\nf,0,x\n"))) == expected


def test_a_cell_may_be_long(write: WriteTasks) -> None:
    before = csv.field_size_limit()
    numbers = list(range(100_000))
    assert read_tasks(write("t.csv", f'function,params\nsum,"[{numbers}]"\n'))[0].params == [numbers]
    assert csv.field_size_limit() == before
