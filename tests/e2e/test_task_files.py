"""--tasks FILE, in all its forms; refused whole where something is wrong with it."""

from __future__ import annotations

import re

import pytest
from scripts import Scripts, task

#: One and the same list of tasks in every form.
FILES = {
    "t.yaml": """
- {function: operator.add, params: [1, 2], resources: 2, id: wide}
- function: sorted
  params: [[3, 1, 2]]
  kwargs:
    reverse: true
- function: math.sqrt
  params: [2.5e-3]
""",
    "t.yml": """
tasks:
  - {function: operator.add, params: [1, 2], resources: 2, id: wide}
  - {function: sorted, params: [[3, 1, 2]], kwargs: {reverse: true}}
  - {function: math.sqrt, params: [2.5e-3]}
""",
    "t.json": """[
{"function": "operator.add", "params": [1, 2], "resources": 2, "id": "wide"},
{"function": "sorted", "params": [[3, 1, 2]], "kwargs": {"reverse": true}},
{"function": "math.sqrt", "params": [2.5e-3]}]""",
    "mapping.json": """{"tasks": [
{"function": "operator.add", "params": [1, 2], "resources": 2, "id": "wide"},
{"function": "sorted", "params": [[3, 1, 2]], "kwargs": {"reverse": true}},
{"function": "math.sqrt", "params": [2.5e-3]}]}""",
    "t.jsonl": """{"function": "operator.add", "params": [1, 2], "resources": 2, "id": "wide"}
{"function": "sorted", "params": [[3, 1, 2]], "kwargs": {"reverse": true}}

{"function": "math.sqrt", "params": [2.5e-3]}
""",
    "t.csv": """function,params,resources,id,kwargs.reverse
operator.add,"[1, 2]",2,wide,
sorted,"[[3, 1, 2]]",,,true
math.sqrt,[2.5e-3],1,,
""",
    "object.csv": """function,params,kwargs,resources,id
operator.add,"[1, 2]",,2,wide
sorted,"[[3, 1, 2]]","{""reverse"": true}",,
math.sqrt,[2.5e-3],,,
""",
}
SHOWN = """\
1     1 core  sorted([3, 1, 2], reverse=True)
2     1 core  math.sqrt(0.0025)
3    2 cores  operator.add(1, 2)
"""


@pytest.mark.parametrize("name", FILES)
def test_every_form_gives_the_same_tasks(scripts: Scripts, name: str) -> None:
    (scripts.folder / name).write_text(FILES[name])
    done = scripts.run("--tasks", name, "--dry-run")
    assert (done.stdout, done.stderr) == (SHOWN, "")


def test_tasks_from_stdin(scripts: Scripts) -> None:
    text = FILES["t.jsonl"].encode()
    scripts.run("--tasks", "-", "--workers", "1", "--cores", "2", "--output", "results.jsonl", stdin=text)
    results = {result["function"]: result for result in scripts.results()}
    values = {function: result["value"] for function, result in results.items()}
    assert values == {"sorted": [3, 2, 1], "math.sqrt": 0.05, "operator.add": 3}
    assert results["operator.add"]["id"] == "wide"
    assert re.fullmatch("[0-9a-f]{16}-0", results["sorted"]["id"])


FIVE_LINES = """\
{"function": "min", "id": "a"}
{"params": 3}
nonsense
{"function": "max", "id": "a"}
{"function": "min", "resources": 1.5}
"""


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "t.yaml",
            "- {function: min}\n- {function: max, resources: 0}",
            ["t.yaml: tasks[1]: resources: must be an integer of at least 1, not 0"],
        ),
        (
            "t.yaml",
            "- {function: min, parms: [1]}",
            ["t.yaml: tasks[0]: parms: unknown key; did you mean params?"],
        ),
        ("t.json", '{"tasks": [], "task": 1}', ["t.json: task: unknown key; did you mean tasks?"]),
        ("t.json", "[{]", ["t.json:1: malformed JSON"]),
        ("t.json", '{"function": "min"}\n{"function": "max"}\n', ["one task on each line ends in .jsonl"]),
        (
            "t.jsonl",
            FIVE_LINES,
            [
                "t.jsonl:2: params: must be a list, not 3",
                "t.jsonl:2: function: is missing",
                "t.jsonl:3: malformed JSON",
                "t.jsonl:4: id: 'a' is already the id of t.jsonl:1",
                "t.jsonl:5: resources: must be an integer of at least 1, not 1.5",
            ],
        ),
        ("t.csv", "function,params\nmin,nonsense\n", ["t.csv:2: params: "]),
        ("t.csv", "function,kwarg.x\nmin,1\n", ["t.csv:1: kwarg.x: unknown key"]),
        ("t.txt", "", ["t.txt: a task file ends in .jsonl"]),
        ("", None, ["'': a task file ends in .jsonl"]),
        ("t.yaml", "", ["t.yaml: holds no tasks"]),
        ("t.yaml", None, ["t.yaml: can't be read: No such file or directory"]),
    ],
)
def test_a_bad_file_is_refused_whole(scripts: Scripts, name: str, text: str | None, says: list[str]) -> None:
    if text is not None:
        (scripts.folder / name).write_text(text)
    done = scripts.run("--tasks", name, "--workers", "1", "--output", "results.jsonl", status=2)
    assert done.stdout == ""
    lines = done.stderr.removeprefix("dispatcher.py: error: ").splitlines()
    if len(says) > 1:
        assert lines.pop(0) == f"nothing was run, as there are {len(says)} mistakes:"
    assert len(lines) == len(says)
    for line, text_ in zip(lines, says, strict=True):
        assert text_ in line
    assert not (scripts.folder / "results.jsonl").exists()


def test_a_bad_line_on_stdin_is_named_too(scripts: Scripts) -> None:
    done = scripts.run("--tasks", "-", stdin=b'{"function": "min"}\n{"function": 3}\n', status=2)
    assert "stdin:2: function: " in done.stderr


def test_what_json_lacks_can_be_copied_from_results(scripts: Scripts) -> None:
    form = {"$map": [[1, {"$complex": [1, {"$float": "nan"}]}], ["b", {"$bytes": "AP8="}]]}
    records = scripts.tasks(task("jobs.echo", form, id="echo"), task("repr", form, id="repr"))
    scripts.run("--tasks", records, "--workers", "1", "--output", "results.jsonl")
    results = scripts.by_id()
    assert results["echo"]["params"] == [form]
    assert results["echo"]["value"] == form
    assert results["repr"]["value"] == "{1: (1+nanj), 'b': b'\\x00\\xff'}"
