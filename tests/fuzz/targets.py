"""What is fed with bytes that nobody vouches for, and what must hold whatever they are."""

from __future__ import annotations

import contextlib
import io
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from executor import codec, config, jsonform, jsontext, manifest, messages, resultline, yamlfile
from executor.call import parse_literal
from executor.errors import BadFrame, CannotTravel, ConfigError, TaskFileError, UsageError
from executor.messages import NIL, PROTOCOL, Item, Message, Report, Running
from executor.task import Task
from executor.taskfile import read_tasks
from tests.fuzz.choices import Choices, parts, whole
from tests.fuzz.mutate import Mutator
from tests.fuzz.values import value
from transports.pieces import Joiner, Piece, split
from transports.rabbitmq import frames

#: Bytes that an input may take for each of its own: an empty set takes 216 and travels in four.
PER_BYTE = 200

#: ... and besides, whatever it is: what is imported or cached at first, and objects of the test's own.
AT_LEAST = 1 << 20


class Target(NamedTuple):
    """`make` returns an input that is right or nearly so; `run` raises if the code under test is wrong."""

    name: str
    make: Callable[[Random], bytes]
    run: Callable[[bytes], None]


@contextlib.contextmanager
def in_proportion(size: int) -> Iterator[None]:
    """See that what is done takes no more memory than an input of `size` bytes may."""
    tracemalloc.start(1)
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= AT_LEAST + PER_BYTE * size, f"{size:,} bytes take {peak:,}"


# --- values -----------------------------------------------------------------------------------------------


def make_value(random: Random) -> bytes:
    try:
        head, *buffers = map(bytes, codec.encode(value(random)))
    except CannotTravel:  # a float of any bits may be the key of two
        head, buffers = b"\xc0", []
    if random.random() < 0.2:  # a large one, small
        head = codec.encode([1, 2])[0] + b""
        beside = codec.Ext(codec.BUFFER, msgspec.msgpack.encode(0))
        head, buffers = msgspec.msgpack.encode([beside, 1]), [random.randbytes(3)]
    if random.random() < 0.95:
        head = Mutator(random).msgpack(head)
    return whole(head, *buffers)


def run_value(data: bytes) -> None:
    """What decodes encodes again, to the same, or can't travel; and it has a JSON form, or none."""
    try:
        found = codec.decode(parts(data))
    except BadFrame:
        return
    try:
        again = codec.encode(found)
        content = codec.canonical(found)
    except CannotTravel:
        pass
    else:
        assert codec.canonical(codec.decode([bytes(part) for part in again])) == content
    try:
        jsonform.dumps(found)
    except CannotTravel:
        pass


def run_value_memory(data: bytes) -> None:
    with in_proportion(len(data)), contextlib.suppress(BadFrame):
        codec.decode(parts(data))


# --- messages ---------------------------------------------------------------------------------------------


def _items(random: Random) -> tuple[list[Item], list[bytes]]:
    items, beside = [], []
    for _ in range(random.randrange(4)):
        head, *buffers = codec.encode(["f", [1, "x"], {"k": 2.5}])
        if random.random() < 0.2:
            buffers = [b"abc"]
        item = Item(
            random.randrange(9), 1, random.choice((1, 2, 64)), None, None, msgspec.Raw(head), len(buffers)
        )
        items.append(item)
        beside += [bytes(buffer) for buffer in buffers]
    return items, beside


def _reports(random: Random) -> tuple[list[Report], list[bytes]]:
    reports = []
    for _ in range(random.randrange(4)):
        status = random.choice(("ok", "ok", "ok", "error", "crashed", "lost", "cancelled"))
        error = None if status == "ok" else ("ValueError", "no", "Traceback")
        try:
            raw = NIL if error else msgspec.Raw(codec.encode(value(random))[0])
        except CannotTravel:
            raw = NIL
        report = Report(
            random.randrange(9), 1, status, raw, 0, error, (0, 1), 1.0, random.choice((None, 2.0)), "out"
        )
        reports.append(report)
    return reports, []


def message(random: Random, run: str = "r") -> list[bytes]:
    """Return the frame of some message of a run, from either side."""
    buffers: list[bytes] = []
    some: Message
    way = random.randrange(17)
    if way < 3:
        items, buffers = _items(random)
        some = messages.Tasks(run, items)
    elif way < 6:
        reports, buffers = _reports(random)
        some = messages.Reports(run, random.randrange(5), reports)
    else:
        hello = messages.Hello(
            PROTOCOL, "mad", "m", "host", random.randrange(1, 999), random.choice((1, 2, 1000)),
            random.random() < 0.5, {run: {random.randrange(9): 1}} if random.random() < 0.5 else {},
            random.randrange(3), random.random() < 0.2,
        )  # fmt: skip
        some = random.choice(
            (
                hello, hello, messages.Welcome(PROTOCOL, run, 1.0, 5.0, ["e"], random.randrange(3)),
                messages.Refused("why"), messages.Unknown(), messages.Recall(run, 3),
                messages.Returned(run, [0, 1, 8]), messages.Cancel(run, random.choice((None, [0, 3]))),
                messages.Recorded(run, random.randrange(9)), messages.Over(run), messages.Leaving(),
                messages.Beat([Running(run, 1, 2.0)]), messages.Pushed([1, 2]), messages.Halt(run),
            )
        )  # fmt: skip
    return [bytes(part) for part in messages.encode(some, buffers)]


def mutated(random: Random, frame: list[bytes]) -> list[bytes]:
    """Return a frame with some of it changed: parts left out or doubled, or the message itself."""
    way = random.random()
    if way < 0.05:
        return frame[:-1]
    if way < 0.1:
        return [*frame, random.randbytes(3)]
    return [Mutator(random).msgpack(frame[0]), *frame[1:]]


def make_message(random: Random) -> bytes:
    frame = message(random)
    if random.random() < 0.9:
        frame = mutated(random, frame) or [b""]
    return whole(*frame)


def run_message(data: bytes) -> None:
    """Both readers agree; what they read is written again as it was; values inside are bad, or there."""
    frame = parts(data)
    try:
        found, buffers = messages.decode(frame)
    except BadFrame:
        found, buffers = None, []
    try:
        read, _ = messages.decode_read(frame)
    except BadFrame:
        read = None
    assert (found is None) == (read is None)
    if found is None:
        return
    again = [bytes(part) for part in messages.encode(found, buffers)]
    assert messages.encode(messages.decode(again)[0]) == again[:1]
    if isinstance(found, messages.Tasks | messages.Reports):
        shares = messages.share_out(found.items, buffers)
        for index, item in enumerate(found.items):
            head = item.call if isinstance(item, Item) else item.value
            with contextlib.suppress(BadFrame):
                codec.decode([head, *shares.get(index, ())])


def run_message_memory(data: bytes) -> None:
    with in_proportion(len(data)), contextlib.suppress(BadFrame):
        messages.decode_read(parts(data))


# --- pieces, and bodies of AMQP messages ------------------------------------------------------------------


def make_pieces(random: Random) -> bytes:
    return random.randbytes(random.choice((5, 20, 100, 400)))


def run_pieces(data: bytes) -> None:
    """Frames come out as they went in; of pieces that nobody vouches for no more is kept than may be."""
    choices = Choices(data)
    joiner = Joiner(most := 1 + choices.below(300))
    if choices.chance(40):
        frame = [choices.bytes(choices.below(20)) for _ in range(choices.below(8))]
        cut = list(split(frame, 1 + choices.below(9)))
        if sum(map(len, frame)) + len(frame) + 2 * len(cut) <= most:
            whole_ = [joiner.add(piece) for piece in cut]
            assert whole_[:-1] == [None] * (len(cut) - 1)
            assert list(map(bytes, whole_[-1] or [])) == frame
    kept = 0
    while choices:
        pieces = [choices.bytes(choices.below(40)) for _ in range(choices.below(5))]
        piece = Piece(pieces, choices.chance(30), choices.chance(20))
        kept += sum(map(len, pieces)) + len(pieces)
        try:
            joined = joiner.add(piece)
        except BadFrame:
            return
        assert kept <= most
        if joined is not None:
            kept = 0


def make_body(random: Random) -> bytes:
    body = frames.pack(mutated(random, message(random)))
    return Mutator(random).bytes(body) if random.random() < 0.3 else body


def run_body(data: bytes) -> None:
    """A body is a frame, or bad; calls that came back each have a fate, and travel again."""
    try:
        frame = frames.unpack(data)
    except BadFrame:
        return
    assert frames.pack(frame) == data
    try:
        run, some = frames.calls(data)
    except BadFrame:
        return
    for begun in (True, False):
        fate = frames.fate(some, begun=begun, worker="w")
        assert len(fate.again) + len(fate.lost) == len(some)
        for call in fate.again:
            assert frames.calls(frames.body_of(run, [call]))[1][0].item.place == call.item.place
        frames.report_of(run, fate.lost, ())


# --- records that a broker keeps --------------------------------------------------------------------------


def make_manifest(random: Random) -> bytes:
    tasks = [
        Task(function="f", params=[value(random, 1)], id=str(i), resources=1) for i in range(random.randrange(4))
    ]
    try:
        found = list(manifest.records(tasks, random.choice((None, 2)), None, 1.0))
    except CannotTravel:
        found = []
    found.append(manifest.note([0, 1]))
    if found and random.random() < 0.9:
        at = random.randrange(len(found))
        found[at] = Mutator(random).msgpack(found[at])
    return msgspec.msgpack.encode(found)


_list = msgspec.msgpack.Decoder(list[bytes])


def run_manifest(data: bytes) -> None:
    try:
        found = _list.decode(data)
    except msgspec.MsgspecError:
        return
    with in_proportion(len(data)), contextlib.suppress(ConfigError):
        manifest.read("name", found)


# --- texts that people write ------------------------------------------------------------------------------

_JSON = b'[ ] { } , : " null true false NaN -Infinity 1e400 1e-5 0 -1 "a" "$map" "$float" "$date" "$bytes" \\ud800 \
"$complex" "$npy" {"$float":"nan"} {"$date":"2001-01-01T00:00"} {"$map":[[1,2]]} {"$bytes":"AA=="} [[ ]] \n'
_JSON_WORDS = [word + b" " for word in _JSON.split(b" ")] + [b"[" * 300, b'{"a":' * 300, b"9" * 5000, b"\xff"]
_TASK_WORDS = [
    b'"function"', b'"params"', b'"kwargs"', b'"resources"', b'"id"', b'"timeout"', b'"retries"', b'"memory"',
    b'"2GB"', b"function,params,resources\n", b"kwargs.x", b"- function: f\n", b"  params: [1, 2]\n", b"tasks:\n",
]  # fmt: skip
_YAML = b"- | ? | : | & | * | ! | | | > | ' | \" | % | @ | [ | ] | { | } | , | # | \n | \n  | --- | ... | !!binary | \
!!set | !!python/object/apply:os.system | &a | *a | << | ~ | 0o7 | 0x | 1_000 | .inf | 2001-01-01 | 2001-99-99 | \
2001-01-01T00:00:00Z | 1e5 | \t | transport | zmq | heartbeat | patience | address | tcp://*:1 | keep | largest"
_YAML_WORDS = [*_YAML.split(b" | "), b"a: ", b"- ", b": ", b"[" * 300, b"9" * 5000, b"\xc2\x85", b"\0", b"\xff"]


def make_json(random: Random) -> bytes:
    try:
        text = jsonform.dumps(value(random)).encode()
    except CannotTravel:
        text = b"{}"
    return Mutator(random).text(text, _JSON_WORDS)


def run_json(data: bytes) -> None:
    """What JSON reads is a value, or there is one word about it; a value has a form again, or can't travel."""
    try:
        plain, _ = jsontext.load(data.decode())
        found = jsonform.from_json(plain)
    except ValueError:
        return
    with contextlib.suppress(CannotTravel):
        jsontext.load(jsonform.dumps(found))


_TASK_FILES = {
    ".jsonl": b'{"function": "f", "params": [1, 2], "resources": 1}\n{"function": "g.h", "kwargs": {"a": 1.5}}\n',
    ".json": b'{"tasks": [{"function": "f", "params": [1, {"$float": "inf"}], "timeout": 1, "memory": "2GB"}]}',
    ".yaml": b"tasks:\n- function: f\n  params: &a [1, 2e3]\n- {function: g, params: *a, retries: 2}\n",
    ".csv": b'function,params,kwargs.x,resources\nf,"[1, 2]",a,1\ng,[],2,\n',
}


def _scratch() -> Path:
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
            path = _scratch().with_suffix(suffix)
            path.write_bytes(data[1:])
            try:
                tasks = read_tasks(str(path))
            finally:
                path.unlink()
    except TaskFileError as error:
        assert "Traceback" not in str(error)
        return
    assert all(task.id and task.resources >= 1 for task in tasks)


_CONFIG = b"transport: zmq\naddress: tcp://login1:5555\nheartbeat: 1\npatience: 5.0\nlargest: 1000\nkeep: {seconds: 1, bytes: 1GB}\n"


def make_config(random: Random) -> bytes:
    return Mutator(random).text(_CONFIG.replace(b"zmq", random.choice((b"zmq", b"rabbitmq", b"grpc", b"rpyc"))), _YAML_WORDS)


def run_config(data: bytes) -> None:
    """Any bytes are settings, or one line about a mistake."""
    if b".." in data or b":" in data.partition(b"transport:")[2].partition(b"\n")[0]:
        return  # a class of somebody's own would be imported
    path = _scratch().with_suffix(".yml")
    path.write_bytes(data)
    try:
        config.read(str(path))
    except UsageError as error:
        assert "\n" not in str(error)
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
        assert "\n" not in str(error)


_LINE = b'{"id":"a-0","function":"f","params":[1,{"$float":"nan"}],"kwargs":{},"resources":1,"status":"ok",\
"value":3,"error":null,"attempt":1,"worker":"w","host":"h","cores":[0],"submitted":1.0,"started":1.5,"finished":2.0}'


def make_line(random: Random) -> bytes:
    return Mutator(random).text(_LINE, [*_JSON_WORDS, b'"\\ud800"', b'"status"', b'"lost"'])


def run_line(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        resultline.parse(data)


def make_literal(random: Random) -> bytes:
    words = [*_JSON_WORDS, b"(", b")", b"0x", b"1+2j", b"b'x'", b"r'", b"None", b"{1}", b"-", b"()" * 300, b"__import__('os')"]
    return Mutator(random).text(b"[1, {'a': (2.5, b'x')}, None]", words)


def run_literal(data: bytes) -> None:
    parse_literal(data.decode("utf-8", "surrogateescape"))


VALUES: list[Target] = [
    Target("codec", make_value, run_value),
    Target("codec-memory", make_value, run_value_memory),
    Target("messages", make_message, run_message),
    Target("messages-memory", make_message, run_message_memory),
    Target("pieces", make_pieces, run_pieces),
    Target("amqp-body", make_body, run_body),
    Target("manifest", make_manifest, run_manifest),
    Target("json", make_json, run_json),
    Target("task-file", make_tasks, run_tasks),
    Target("config", make_config, run_config),
    Target("yaml", make_yaml, run_yaml),
    Target("result-line", make_line, run_line),
    Target("literal", make_literal, run_literal),
]
