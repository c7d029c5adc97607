"""Texts that people write, nearly right: tasks, settings, values and lines of results."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from random import Random

from executor import config, jsonform, jsontext, keys, resultline, yamlfile
from executor.call import parse_literal
from executor.errors import CannotTravel, TaskFileError, UsageError
from executor.resume import survey
from executor.task import Task
from executor.taskfile import read_tasks
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target
from tests.fuzz.values import value

_JSON = rb"""[ ] { } , : " null true false NaN -Infinity 1e400 1e-5 0 -1 "a" "$map" "$float" "$date" "$bytes"
\ud800 "\ud800" "$complex" "$npy" {"$float":"nan"} {"$date":"2001-01-01T00:00"} {"$map":[[1,2]]} [[ ]]
{"$bytes":"AA=="} 2001-01-01T00:00:00.0000000 -0001-01-01 +01:00"""
_JSON_WORDS = [*_JSON.split(), b"\n", b" ", b"[" * 300, b'{"a":' * 300, b"9" * 5000, b"\xff"]
_TASK = rb"""\n- function: f|\n  params: [1, 2]|tasks:\n|function,params,resources\n|kwargs.x
"function"|"params"|"kwargs"|"resources"|"id"|"timeout"|"retries"|"memory"|"2GB"|1.5"""
_TASK_WORDS = [word.replace(rb"\n", b"\n") for word in re.split(rb"[|\n]", _TASK)]
_YAML = rb"""- ? : & * ! | > ' " % @ [ ] { } , # --- ... !!binary !!set !!python/object/apply:os.system *a
&a << ~ 0o7 0x 1_000 .inf 2001-01-01 2001-99-99 2001-01-01T00:00:00Z 1e5 transport zmq heartbeat patience
address tcp://*:1 keep largest seconds bytes"""
_YAML_WORDS = [*_YAML.split(), b"a: ", b"- ", b": ", b"\n", b"\n  ", b"\t", b"[" * 300, b"9" * 5000]
_YAML_WORDS += [b"\xc2\x85", b"\0", b"\xff"]


def _see_lines(mistakes: Sequence[str]) -> None:
    """See that a user is told each mistake in one line."""
    assert mistakes
    for mistake in mistakes:
        assert len(mistake.splitlines()) == 1, mistake


def make_json(random: Random) -> bytes:
    try:
        text = jsonform.dumps(value(random)).encode()
    except CannotTravel:
        text = b"{}"
    return Mutator(random).text(text, _JSON_WORDS)


def run_json(data: bytes) -> None:
    """What JSON reads is a value, or a mistake; a value has a form again, or can't travel."""
    try:
        plain, _ = jsontext.load(data.decode())
        found = jsonform.from_json(plain)
    except ValueError:
        return
    with contextlib.suppress(CannotTravel):
        jsontext.load(jsonform.dumps(found))


_TASK_FILES = {
    ".jsonl": b"""{"function": "f", "params": [1, 2], "resources": 1}
{"function": "g.h", "kwargs": {"a": 1.5}}
""",
    ".json": b'{"tasks": [{"function": "f", "params": [{"$float": "inf"}], "timeout": 1, "memory": "2GB"}]}',
    ".yaml": b"""tasks:
- function: f
  params: &a [1, 2e3]
- {function: g, params: *a, retries: 2}
""",
    ".csv": b"""function,params,kwargs.x,resources
f,"[1, 2]",a,1
g,[],2,
""",
}


def scratch() -> Path:
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))
    return folder / f"fuzz-{os.getpid()}"


def make_tasks(random: Random) -> bytes:
    index = random.randrange(4)
    text = list(_TASK_FILES.values())[index]
    words = _TASK_WORDS + (_YAML_WORDS if index == 2 else _JSON_WORDS)
    return bytes([index]) + Mutator(random).text(text, words)


def run_tasks(data: bytes) -> None:
    """Any bytes are tasks with ids, or mistakes, each of one line."""
    suffix = list(_TASK_FILES)[data[0] % 4] if data else ".jsonl"
    try:
        if suffix == ".jsonl":
            tasks = read_tasks("-", io.BytesIO(data[1:]))
        else:
            path = scratch().with_suffix(suffix)
            path.write_bytes(data[1:])
            try:
                tasks = read_tasks(str(path))
            finally:
                path.unlink()
    except TaskFileError as error:
        _see_lines(error.mistakes)
        return
    assert all(task.id and task.resources >= 1 for task in tasks)


_CONFIG = b"""transport: zmq
address: tcp://login1:5555
heartbeat: 1
patience: 5.0
largest: 1000
keep: {seconds: 1, bytes: 1GB}
"""


def make_config(random: Random) -> bytes:
    return Mutator(random).text(
        _CONFIG.replace(b"zmq", random.choice((b"zmq", b"rabbitmq", b"grpc", b"rpyc"))), _YAML_WORDS
    )


def run_config(data: bytes) -> None:
    """Any bytes are settings, or one line about a mistake."""
    if b".." in data or b":" in data.partition(b"transport:")[2].partition(b"\n")[0]:
        return  # a class of somebody's own would be imported
    path = scratch().with_suffix(".yml")
    path.write_bytes(data)
    try:
        config.read(str(path))
    except UsageError as error:
        _see_lines([str(error)])
    finally:
        path.unlink()


def make_yaml(random: Random) -> bytes:
    text = random.choice((_CONFIG, _TASK_FILES[".yaml"], b"? a\n: {b: [1, *x]}\n"))
    return Mutator(random).text(text, _YAML_WORDS)


def run_yaml(data: bytes) -> None:
    try:
        yamlfile.load(data.decode(), "y")
    except UnicodeDecodeError:
        pass
    except UsageError as error:
        _see_lines([str(error)])


_LINE = b'{"id":"a-0","function":"f","params":[1,{"$float":"nan"}],"kwargs":{},"resources":1,"status":"ok",\
"value":3,"error":null,"attempt":1,"worker":"w","host":"h","cores":[0],"submitted":1.0,"started":1.5,"finished":2.0}'


_IDS = [b"a-0", b"b", b"c", b"nobody's"]
_TASKS = [Task(function="f", params=[1, float("nan")], id=each.decode(), resources=1) for each in _IDS[:3]]


def make_line(random: Random) -> bytes:
    return Mutator(random).text(_LINE, [*_JSON_WORDS, b'"\\ud800"', b'"status"', b'"lost"'])


def run_line(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        resultline.parse(data)


def make_literal(random: Random) -> bytes:
    words = [
        *_JSON_WORDS,
        b"(",
        b")",
        b"0x",
        b"1+2j",
        b"b'x'",
        b"r'",
        b"None",
        b"{1}",
        b"-",
        b"()" * 300,
        b"__import__('os')",
    ]
    return Mutator(random).text(b"[1, {'a': (2.5, b'x')}, None]", words)


def run_literal(data: bytes) -> None:
    parse_literal(data.decode("utf-8", "surrogateescape"))


def make_results(random: Random) -> bytes:
    lines = [_LINE.replace(b"a-0", random.choice(_IDS)) + b"\n" for _ in range(random.randrange(5))]
    text = b"".join(line.replace(b'"ok"', random.choice((b'"ok"', b'"ok"', b'"error"'))) for line in lines)
    words = [*_JSON_WORDS, b"\n", b"\n\n", b"\r\n", b'{"id":', b'"status"', b'"lost"', *_IDS]
    return (
        Mutator(random).text(text, words)
        if random.random() < 0.8
        else text[: random.randrange(len(text) + 1)]
    )


def run_results(data: bytes) -> None:
    """A results file is refused, or each task has one place in what it holds, and each byte belongs there."""
    path = scratch().with_suffix(".results")
    path.write_bytes(data)
    try:
        found = survey(path, "r.jsonl", _TASKS, {"error"})
    except UsageError:
        return
    finally:
        path.unlink()
    places = [*found.recorded, *found.again]
    assert len(places) == len(set(places))
    assert all(0 <= place < len(_TASKS) for place in places)
    assert sum(found.counts.values()) == len(found.recorded)
    assert found.end + found.torn == len(data)


def make_keys(random: Random) -> bytes:
    return Mutator(random).text(
        random.randbytes(32).hex().encode() + b"\n", [b"0", b"ff", b"\n", b" ", b"G", b"A"]
    )


def run_keys(data: bytes) -> None:
    """A file is 32 bytes in 64 small hexadecimal digits, or refused in one line."""
    path = scratch().with_suffix(".keys")
    path.touch(mode=0o600)
    path.write_bytes(data)
    try:
        secret = keys._read(path)
    except UsageError as error:
        _see_lines([str(error)])
        return
    finally:
        path.unlink()
    assert secret.hex().encode() == data.removesuffix(b"\n")


TEXTS = [
    Target("json", make_json, run_json),
    Target("task-file", make_tasks, run_tasks),
    Target("config", make_config, run_config),
    Target("yaml", make_yaml, run_yaml),
    Target("result-line", make_line, run_line),
    Target("literal", make_literal, run_literal),
    Target("results-file", make_results, run_results),
    Target("keys", make_keys, run_keys),
]
