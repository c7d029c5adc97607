"""Peers gone mad: they speak the protocol, nearly: out of turn, in others' words, of what is not theirs."""

from __future__ import annotations

from collections import deque

import msgspec

from executor import codec
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Beat,
    Cancel,
    Hello,
    Item,
    Leaving,
    Message,
    Over,
    Recall,
    Recorded,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Tasks,
    Unknown,
    Welcome,
    decode,
    encode,
)
from tests.fuzz.choices import Choices
from tests.fuzz.messages import message
from tests.fuzz.mutate import NUMBERS, Mutator
from tests.fuzz.stage import RIGHTFUL, THE_RUN

_THE_RUN = msgspec.msgpack.encode(THE_RUN)
_CALL = msgspec.Raw(codec.encode(["f", [1], {}])[0])
_STATUSES = ("ok", "ok", "ok", "error", "lost", "crashed", "cancelled", "rejected", "timeout")
_VALUES = [
    msgspec.Raw(each) for each in (b"\x07", b"\xc0", b"\x93\x01\x02", b"\xc1", b"\xd4\x01\x00", b"\x91")
]

#: Numbers that stand for a place, an attempt or a count, most of them small.
_SMALL = (0, 1, 2, 3, 4, 5, 7, 9, 11, 12)


class Heard:
    """What was said by anybody, to be said again, whole or changed: recorded conversations."""

    def __init__(self) -> None:
        self.frames: deque[list[bytes]] = deque(maxlen=30)

    def again(self, choices: Choices, mine: str) -> list[bytes] | None:
        """Return a frame that was said, perhaps changed; greetings are in one's own name, or run (`mine`).

        For whoever knows a worker's instance is that worker: it is random, and told to no other. And whoever
        greets with a run's id continues that run.
        """
        if not self.frames:
            return None
        frame = self.frames[choices.below(len(self.frames))]
        if not frame:
            return frame
        if b"\xa5hello" in frame[0][:8]:
            frame = _renamed(frame, mine)
        elif b"\xa7welcome" in frame[0][:10]:
            frame = [frame[0].replace(_THE_RUN, msgspec.msgpack.encode(mine))]
        return changed(choices, frame) if choices.chance(60) else frame


def _renamed(frame: list[bytes], mine: str) -> list[bytes]:
    try:
        said, _ = decode(frame)
    except BadFrame:
        return [frame[0].replace(RIGHTFUL.encode(), b"mad-----")]
    if isinstance(said, Hello) and said.instance == RIGHTFUL:
        said.instance = said.name = mine
    return [bytes(part) for part in encode(said)]


def changed(choices: Choices, frame: list[bytes]) -> list[bytes]:
    """Return a frame cut, doubled, with other buffers, or with one thing in it another, mostly the last."""
    way = choices.below(20)
    if way == 0:
        return [frame[0][: choices.below(len(frame[0]) + 1)], *frame[1:]]
    if way == 1:
        return [*frame, *frame]
    if way == 2:
        return frame[:-1]
    if way == 3:
        return [*frame, choices.bytes(3)]
    head = bytearray(frame[0])
    if way < 8 and head:  # bytes
        for _ in range(1 + choices.below(3)):
            head[choices.below(len(head))] = choices.below(256)
        return [bytes(head), *frame[1:]]
    return [Mutator(choices.random()).msgpack(frame[0]), *frame[1:]]


def _place(choices: Choices, places: list[int]) -> int:
    if places and choices.chance(70):
        return choices.one(places)
    return choices.one(_SMALL) if choices.chance(90) else choices.one(NUMBERS)


def _attempt(choices: Choices, right: int) -> int:
    if choices.chance(75):
        return right
    return choices.one(_SMALL) if choices.chance(90) else choices.one(NUMBERS)


def _framed(said: Message, buffers: list[bytes] | None = None) -> list[bytes]:
    try:
        return [bytes(part) for part in encode(said, buffers or [])]
    except OverflowError:  # a sum of numbers that are as large as can be
        return [b"\xc1"]


class MadWorker:
    """A worker that knows what it holds, by run and place, and may say anything of it, or of other calls."""

    def __init__(self, number: int, cores: int, instance: str) -> None:
        self.peer = b"mad-%d" % number
        self.instance = instance
        self.cores = cores
        self.held: dict[tuple[str, int], int] = {}
        self._episode = 1
        self._number = number * 1000

    def told(self, frame: list[bytes]) -> None:
        """It was sent a frame, which is one of ours."""
        if frame[0][1:7] == b"\xa5tasks":
            said, _ = decode(frame)
            assert isinstance(said, Tasks)
            for item in said.items:
                self.held[said.run, item.place] = item.attempt

    def says(self, choices: Choices, runs: list[str], heard: Heard) -> list[bytes]:
        """Return its next frame."""
        what = choices.below(24)
        run = choices.one(runs)
        mine = [place for of, place in self.held if of == run]
        if what < 3:
            return self._hello(choices, run)
        if what < 10:
            return self._reports(choices, run, mine)
        if what == 10:
            places = [_place(choices, mine) for _ in range(choices.below(4))]
            return _framed(Returned(run, places))
        if what == 11:
            return _framed(choices.one((Leaving(), Beat(), Over(run), Beat([Running(run, 1, 2.0)]))))
        if what < 14 and (frame := heard.again(choices, self.instance)):
            return frame
        if what < 16:
            frame = self._reports(choices, run, mine) if choices.chance(50) else self._hello(choices, run)
            return changed(choices, frame)
        if what == 16:
            return message(choices.random(), run)
        if what == 17:  # what a dispatcher says
            return MadDispatcher(0, run).says(choices, heard)
        if what == 18:
            return [choices.bytes(choices.below(12)) for _ in range(choices.below(3))]
        return self._reports(choices, run, mine)

    def _hello(self, choices: Choices, run: str) -> list[bytes]:
        if choices.chance(60):
            self._episode += 1
        holding: dict[int, int] = {}
        for (of, place), attempt in self.held.items():
            if of == run and choices.chance(70):
                holding[place] = attempt
        for _ in range(choices.below(4)):
            holding[_place(choices, [])] = _attempt(choices, 1)
        if choices.chance(10):
            self.cores = choices.one((1, 2, 3, 1 << 20))
        protocol = PROTOCOL if choices.chance(97) else choices.one(NUMBERS)
        hello = Hello(
            protocol, self.instance, self.instance, "mad", choices.below(3), self.cores, choices.chance(20),
            {run: holding} if choices.chance(80) else {}, self._episode,
        )  # fmt: skip
        return _framed(hello)

    def _reports(self, choices: Choices, run: str, mine: list[int]) -> list[bytes]:
        reports: list[Report] = []
        buffers: list[bytes] = []
        for _ in range(1 + choices.below(3)):
            place = _place(choices, mine)
            status = choices.one(_STATUSES)
            error = ("E", "no", "") if status != "ok" or choices.chance(5) else None
            count = choices.below(3) if choices.chance(5) else 0
            buffers += [b"b"] * count
            attempt = _attempt(choices, self.held.get((run, place), 1))
            value = choices.one(_VALUES) if error is None else NIL
            reports.append(Report(place, attempt, status, value, count, error, (0,), 1.0, 2.0))
            if choices.chance(50):
                self.held.pop((run, place), None)
        self._number += choices.one((1, 1, 1, 0, 2, -1))
        number = self._number if choices.chance(95) else choices.one(NUMBERS)
        return _framed(Reports(run, number, reports), buffers)


class MadDispatcher:
    """A dispatcher that hears greetings and reports, and may say anything of its run, or of others."""

    def __init__(self, number: int, run: str) -> None:
        self.peer = b"mad-%d" % number
        self.run = run
        self.episode = 0
        self.number = 0
        self._next = 0

    def told(self, frame: list[bytes]) -> None:
        """It was sent a frame, which is one of ours."""
        if frame[0][1:9] == b"\xa7reports":
            said, _ = decode(frame)
            assert isinstance(said, Reports)
            self.number = max(self.number, said.number)
        elif frame[0][1:7] == b"\xa5hello":
            said, _ = decode(frame)
            assert isinstance(said, Hello)
            self.episode = said.episode

    def says(self, choices: Choices, heard: Heard) -> list[bytes]:
        """Return its next frame."""
        what = choices.below(24)
        run = self.run if choices.chance(90) else choices.one(("r0", "r1", "nobody's"))
        if what < 6:
            return self._welcome(choices, run)
        if what < 12:
            return self._tasks(choices, run)
        if what == 12:
            return _framed(Recall(run, choices.one(_SMALL)))
        if what == 13:
            number = self.number if choices.chance(80) else choices.one((*_SMALL, *NUMBERS))
            return _framed(Recorded(run, number))
        if what == 14:
            places = [choices.one(_SMALL) for _ in range(choices.below(4))] if choices.chance(70) else None
            return _framed(Cancel(run, places))
        if what == 15:
            return _framed(choices.one((Over(run), Beat(), Unknown(), Refused("why"), Beat())))
        if what < 18 and (frame := heard.again(choices, run)):
            return frame
        if what == 18:
            frame = self._tasks(choices, run) if choices.chance(50) else self._welcome(choices, run)
            return changed(choices, frame)
        if what == 19:
            return message(choices.random(), run)
        if what == 20:
            return [choices.bytes(choices.below(12)) for _ in range(choices.below(3))]
        return _framed(Recorded(run, self.number)) if choices.chance(50) else self._tasks(choices, run)

    def _welcome(self, choices: Choices, run: str) -> list[bytes]:
        earlier = [choices.one(("r0", "r1", "r2", "r3")) for _ in range(choices.below(3))]
        if choices.chance(70):
            earlier = []
        protocol = PROTOCOL if choices.chance(97) else choices.one(NUMBERS)
        heartbeat, patience = (
            choices.one((1.0, 1.0, 0.001, 86_400.0)),
            choices.one((5.0, 5.0, 0.01, 86_400.0)),
        )
        episode = self.episode if choices.chance(90) else choices.one(_SMALL)
        return _framed(Welcome(protocol, run, heartbeat, patience, earlier, episode))

    def _tasks(self, choices: Choices, run: str) -> list[bytes]:
        items: list[Item] = []
        buffers: list[bytes] = []
        for _ in range(choices.below(4)):
            self._next += 1
            place = self._next if choices.chance(80) else choices.one((*_SMALL, *NUMBERS))
            count = choices.below(3) if choices.chance(5) else 0
            buffers += [b"b"] * count
            width = choices.one((1, 1, 2, 9)) if choices.chance(95) else choices.one(NUMBERS)
            items.append(Item(place, _attempt(choices, 1), width, None, None, _CALL, count, 3))
        return _framed(Tasks(run, items), buffers)
