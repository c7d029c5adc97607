"""Messages of the protocol, right and broken, and what carries them: pieces, and bodies of AMQP messages."""

from __future__ import annotations

import contextlib
from random import Random

import msgspec

from executor import codec, manifest, messages
from executor.errors import BadFrame, CannotTravel, ConfigError
from executor.messages import NIL, PROTOCOL, Item, Message, Report, Running
from executor.packed import pack
from executor.task import Task
from tests.fuzz.choices import Choices, parts, whole
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target, in_proportion
from tests.fuzz.values import value
from transports.pieces import Joiner, Piece, split
from transports.rabbitmq import frames


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


def make_pieces(random: Random) -> bytes:
    return random.randbytes(random.choice((5, 20, 100, 400, 1500)))


def run_pieces(data: bytes) -> int:
    """Frames come out as they went in; of pieces that nobody vouches for no more is kept than may be.

    An input is a sequence; what is counted are the pieces.
    """
    choices = Choices(data)
    joiner = Joiner(most := 1 + choices.below(300))
    if choices.chance(40):
        frame = [choices.bytes(choices.below(20)) for _ in range(choices.below(8))]
        cut = list(split(frame, 1 + choices.below(9)))
        if sum(map(len, frame)) + len(frame) + 2 * len(cut) <= most:
            whole_ = [joiner.add(piece) for piece in cut]
            assert whole_[:-1] == [None] * (len(cut) - 1)
            assert list(map(bytes, whole_[-1] or [])) == frame
    kept = count = 0
    while choices:
        count += 1
        pieces = [choices.bytes(choices.below(40)) for _ in range(choices.below(5))]
        piece = Piece(pieces, choices.chance(30), choices.chance(20))
        kept += sum(map(len, pieces)) + len(pieces)
        try:
            joined = joiner.add(piece)
        except BadFrame:  # its link is cut, and another comes
            joiner, kept = Joiner(most), 0
            continue
        assert kept <= most
        if joined is not None:
            kept = 0
    return count


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
        frames.report_of(run, pack(fate.lost))


def make_manifest(random: Random) -> bytes:
    tasks = [
        Task(function="f", params=[value(random, 1)], id=str(i), resources=1)
        for i in range(random.randrange(4))
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


MESSAGES = [
    Target("messages", make_message, run_message),
    Target("messages-memory", make_message, run_message_memory),
    Target("pieces", make_pieces, run_pieces),
    Target("amqp-body", make_body, run_body),
    Target("manifest", make_manifest, run_manifest),
]
