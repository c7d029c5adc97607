"""What dispatcher and worker say to each other: the protocol, and its form in bytes.

A frame is a list of parts: the first is one message in MessagePack, the rest are the large buffers of the
calls or reports in it, in their order (see `executor.codec`). The same records, without a run around
them, go between a worker and its child processes.

    worker to dispatcher        dispatcher to worker
    Hello    who I am           Welcome   the run I do, and how often to be heard
    Reports  what came of it    Tasks     calls to run, in this order
    Returned given back         Recall    give back what you have not started
    Leaving  no more, please    Cancel    stop the run's calls
    Over     so be it           Recorded  your reports up to here are safe, forget them
    Beat     still here         Over      the run is over
                                Unknown   I don't know you: say hello
                                Refused   we can't talk: here is why
                                Beat

Where a broker lies between them, calls and reports are the same `Tasks` and `Reports`; the rest is told to
all:

    worker to all dispatchers   dispatcher to all workers
    Hello    here I am, again   Alive     my run goes on
    Pushed   calls came back    Pushed    calls wait for you
                                Who       say hello
                                Halt      begin no more of this run
                                Cancel, Over, Refused
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

from executor import bounds, codec
from executor.errors import BadFrame
from executor.task import Status
from executor.travel import are_shallow

#: Grows when an old peer could not understand a new one; both sides say so when theirs differ.
PROTOCOL = 1

#: What a frame is made of, and what a wire moves.
Buffer: TypeAlias = bytes | bytearray | memoryview
Parts: TypeAlias = Sequence[Buffer]


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Positive: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=bounds.LONGEST_NAME)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=bounds.LONGEST_TEXT)]
Places: TypeAlias = Annotated[list[int], msgspec.Meta(max_length=bounds.MOST_PLACES)]
Silence: TypeAlias = Annotated[float, msgspec.Meta(ge=bounds.SHORTEST_SILENCE, le=bounds.LONGEST_SILENCE)]

#: By run, the places of unfinished calls, each with the number of the latest attempt at it.
Holding: TypeAlias = Annotated[
    dict[Name, Annotated[dict[int, int], msgspec.Meta(max_length=bounds.MOST_PLACES)]],
    msgspec.Meta(max_length=bounds.MOST_RUNS),
]


class Running(NamedTuple):
    """A call that runs, and for how many seconds it has."""

    run: Name
    place: int
    seconds: Annotated[float, msgspec.Meta(ge=0, le=bounds.LONGEST_CALL)]


#: Of each run, the calls that a worker tells of as those that run longest ...
RUNNING_MOST = 8

#: ... and the seconds that they have run for at least: shorter ones are no news.
RUNNING_LEAST = 1.0

Longest: TypeAlias = Annotated[list[Running], msgspec.Meta(max_length=RUNNING_MOST * bounds.MOST_RUNS)]


class Item(msgspec.Struct, array_like=True, gc=False):
    """A task on its way: `call` is the codec's head of (function, params, kwargs).

    `place` is the task's index in the order pushed; `width` is its cores; `timeout` is in seconds and
    `memory` in bytes, None for no limit; `buffers` of the frame's further parts belong to it. `retries` is
    the task's own number of further attempts, or its run's, or None; `lone` says that it must have a worker
    to itself: its worker vanished before, and this attempt is its last.
    """

    place: Count
    attempt: Count
    width: Positive
    timeout: float | None
    memory: int | None
    call: msgspec.Raw
    buffers: Count = 0
    retries: Count | None = None
    lone: bool = False


class Report(msgspec.Struct, array_like=True, gc=False):
    """A result on its way: `value` is the codec's head of what the function returned.

    `error` is (type, message, traceback); `cores` are the core ids it ran on; times are epoch seconds,
    None if it never started.
    """

    place: Count
    attempt: Count
    status: Status
    value: msgspec.Raw
    buffers: Count = 0
    error: tuple[Name, Text, Text] | None = None
    cores: Annotated[tuple[int, ...], msgspec.Meta(max_length=bounds.MOST_CORES)] = ()
    started: float | None = None
    finished: float | None = None
    stdout: Text = ""
    stderr: Text = ""

    def read(self, buffers: Sequence[Buffer] = ()) -> Any:
        """Return what the function returned.

        Raises:
            BadFrame: that can't be read.
        """
        return codec.decode([self.value, *buffers])


class ReadReport(Report):
    """A report whose value was read with the frame that it came in, and has no buffers."""

    value: Any
    buffers: Literal[0] = 0

    def read(self, buffers: Sequence[Buffer] = ()) -> Any:
        """Return what the function returned."""
        return self.value


class _Message(msgspec.Struct, array_like=True, gc=False):
    """Common form of all messages: an array that begins with the message's name."""


class Hello(_Message, tag="hello"):
    """A worker introduces itself, and says what it has, in particular after a healed link."""

    protocol: int
    instance: Name  # random, new for each process start: tells a worker from its successor
    name: Name
    host: Name
    pid: int
    cores: Annotated[int, msgspec.Meta(ge=1, le=bounds.MOST_CORES)]
    backfill: bool = False
    holding: Holding = {}
    episode: Count = 0  # grows when something may have got lost; one and the same greeting may come twice
    leaving: bool = False  # it drains, and takes no more
    running: Longest = []  # what runs longest, where no Beat tells it
    # Runs that it was told to stop lately, where it has no link of its own to their dispatchers.
    stopped: Annotated[list[Name], msgspec.Meta(max_length=bounds.MOST_RUNS)] = []


class Welcome(_Message, tag="welcome"):
    """A dispatcher answers Hello: its run's id, and after how many seconds of silence it is gone.

    `earlier` are the runs that this one continues: what is kept of them is for this dispatcher.
    """

    protocol: int
    run: Name
    heartbeat: Silence
    patience: Silence
    earlier: Annotated[list[Name], msgspec.Meta(max_length=bounds.MOST_RUNS)] = []
    episode: Count = 0  # of the greeting that this answers


class Refused(_Message, tag="refused"):
    """The other end can't be served; the worker says why on its screen and goes on waiting.

    `instance` names the worker, where all of them hear it.
    """

    reason: Text
    instance: Name = ""


class Unknown(_Message, tag="unknown"):
    """A dispatcher heard from a worker that it never greeted (it is new itself)."""


class Tasks(_Message, tag="tasks"):
    """Calls to run in this order."""

    run: Name
    items: Annotated[list[Item], msgspec.Meta(max_length=bounds.MOST_ITEMS)]


class Recall(_Message, tag="recall"):
    """Give back up to `count` unstarted calls, the last in order first."""

    run: Name
    count: Count


class Returned(_Message, tag="returned"):
    """These calls were not started and will not be."""

    run: Name
    places: Places


class Cancel(_Message, tag="cancel"):
    """Stop these calls, running or not; None means all of the run."""

    run: Name
    places: Places | None = None


class Reports(_Message, tag="reports"):
    """What came of calls. `number` counts the frames of a run, from 1, for Recorded."""

    run: Name
    number: int
    items: Annotated[list[Report], msgspec.Meta(max_length=bounds.MOST_ITEMS)]


class Sealed(_Message, tag="reports"):
    """`Reports` around records that are encoded already (`executor.packed`): the same bytes."""

    run: Name
    number: int
    items: msgspec.Raw


class ReadReports(Reports, tag="reports"):
    """Reports as a dispatcher reads them, if it can."""

    items: Annotated[list[ReadReport], msgspec.Meta(max_length=bounds.MOST_ITEMS)]  # type: ignore[assignment]  # which nobody adds to


class Recorded(_Message, tag="recorded"):
    """All Reports up to `number` are safe with the dispatcher."""

    run: Name
    number: int


class Over(_Message, tag="over"):
    """The run is over: drop what belongs to it. The worker answers with the same, and was told all then."""

    run: Name


class Leaving(_Message, tag="leaving"):
    """The worker drains: it finishes what it runs and takes nothing more."""


class Alive(_Message, tag="alive"):
    """The dispatcher of a run is there."""

    run: Name


class Pushed(_Message, tag="pushed"):
    """Calls of these widths wait in the broker."""

    widths: Annotated[list[Positive], msgspec.Meta(max_length=bounds.MOST_CORES)]


class Who(_Message, tag="who"):
    """A dispatcher asks all workers to say hello."""


class Halt(_Message, tag="halt"):
    """Begin no more calls of this run; what runs finishes."""

    run: Name


class Beat(_Message, tag="beat"):
    """Nothing new, still alive. A worker tells what runs longest (see `longest`)."""

    running: Longest = []


Message: TypeAlias = (
    Hello | Welcome | Refused | Unknown | Tasks | Recall | Returned | Cancel | Reports | Recorded | Over
    | Leaving | Beat | Alive | Pushed | Who | Halt
)  # fmt: skip

#: Those whose items may have buffers. As a tuple: a union would be made anew for each frame.
_WITH_ITEMS = (Tasks, Reports)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

_reader = msgspec.msgpack.Decoder(ReadReports, ext_hook=codec.read_extension)

#: MessagePack of None: the value of a report that has none.
NIL = msgspec.Raw(b"\xc0")


def introduce(name: str, cores: int, *, backfill: bool = False) -> Hello:
    """Return the greeting of this process, a worker of that name and number of cores."""
    name, host = (each[: bounds.LONGEST_NAME] for each in (name, socket.gethostname()))
    return Hello(PROTOCOL, secrets.token_hex(8), name, host, os.getpid(), cores, backfill)


def longest(running: Iterable[Running]) -> list[Running]:
    """Return what is told of the calls that run: of each run those that run longest, the longest first."""
    told: list[Running] = []
    counts: dict[str, int] = {}
    for each in sorted(running, key=lambda each: -each.seconds):
        if each.seconds < RUNNING_LEAST:
            break
        counts[each.run] = counts.get(each.run, 0) + 1
        if counts[each.run] <= RUNNING_MOST:
            told.append(each)
    return told


def encode(message: Message | Sealed, buffers: Iterable[Buffer] = ()) -> list[Buffer]:
    """Return the frame of `message`; `buffers` are those of its items, in order."""
    return [_encoder.encode(message), *buffers]


def encode_calls(run: str, calls: Sequence[tuple[Any, ...]]) -> bytes | None:
    """Return the frame of `Tasks` whose calls hold only plain values (see `jsonform.are_plain`), in one go.

    Each is the fields of an `Item` in their order, with (function, params, kwargs) as `call`. None: one of
    them holds an int or a text that MessagePack lacks.
    """
    try:
        return _encoder.encode((Tasks.__struct_config__.tag, run, calls))
    except (OverflowError, UnicodeEncodeError):
        return None


def decode(frame: Parts) -> tuple[Message, list[Buffer]]:
    """Return the message of a frame and the buffers of its items, in order.

    Raises:
        BadFrame: it is not one of ours, or its items ask for other buffers than it has.
    """
    if not frame:
        raise BadFrame("an empty frame")
    try:
        message = _decoder.decode(frame[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"not a message of this protocol: {error}") from error
    buffers = list(frame[1:])
    wanted = 0
    if isinstance(message, _WITH_ITEMS):
        for item in message.items:
            wanted += item.buffers
    if wanted != len(buffers):
        raise BadFrame(f"{len(buffers)} buffers where the message has {wanted}")
    return message, buffers


def decode_read(frame: Parts) -> tuple[Message, list[Buffer]]:
    """Like `decode`, and read the values of reports with their frame: a tenth of what each by itself takes.

    Where a value can't be read so, or has buffers, all reports of the frame are as `decode` leaves them.

    Raises:
        BadFrame: as `decode`.
    """
    if len(frame) == 1:
        try:
            reports = _reader.decode(frame[0])
            if are_shallow([report.value for report in reports.items]):
                return reports, []
        except Exception:  # of a value, which may raise anything, or no reports: `decode` tells
            pass
    return decode(frame)


def share_out(items: Iterable[Item | Report], buffers: Sequence[Buffer]) -> dict[int, list[Buffer]]:
    """Return the buffers of each item that has some, by its index among `items`."""
    shares: dict[int, list[Buffer]] = {}
    if not buffers:
        return shares
    position = 0
    for index, item in enumerate(items):
        if item.buffers:
            shares[index] = list(buffers[position : position + item.buffers])
            position += item.buffers
    return shares


def too_large(what: str, size: int, largest: int, limit: str = "`largest`") -> str:
    """Say that a call or result of `size` bytes has to stay where it is; `limit` is what says so."""
    return (
        f"{what} is too large for the wire: {size:,} bytes, and {limit} is {largest:,}; "
        "leave the data in a file and pass its path"
    )


def rejected(item: Item, kind: str, message: str, stdout: str = "", stderr: str = "") -> Report:
    """Return the report of an item that can never run."""
    return Report(item.place, 0, "rejected", NIL, error=(kind, message, ""), stdout=stdout, stderr=stderr)
