"""What comes in has bounds: honest use is far below them, and who breaks one is told which it was."""

from __future__ import annotations

import msgspec
import pytest

from executor import bounds, child, codec
from executor.call import describe, resolve
from executor.errors import BadFrame, UnknownFunction
from executor.messages import (
    NIL,
    PROTOCOL,
    RUNNING_MOST,
    Beat,
    Cancel,
    Hello,
    Item,
    Message,
    Pushed,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Tasks,
    Welcome,
    decode,
    encode,
    introduce,
)
from executor.travel import MAX_DEPTH
from transports.pieces import Joiner, Piece

HELLO = introduce("w", 4)
OK = Report(0, 1, "ok", NIL)
NAME, TEXT = "n" * bounds.LONGEST_NAME, "t" * bounds.LONGEST_TEXT


def of(message: Message, **changes: object) -> Message:
    return msgspec.structs.replace(message, **changes)


HONEST: dict[str, Message] = {
    "a worker of ten thousand cores that has a million calls": of(
        HELLO, cores=10_000, holding={"r": dict.fromkeys(range(1_000_000), 1)}
    ),
    "a million calls that were not begun": Returned("r", list(range(1_000_000))),
    "a tenth of a million reports at once": Reports("r", 1, [OK] * 100_000),
    "what many runs have running": Beat([Running(NAME, 1, 1e9)] * RUNNING_MOST * 100),
    "a name of a thousand characters": of(HELLO, name=NAME, host=NAME),
    "a traceback of a megabyte": Reports("r", 1, [of(OK, error=(NAME, TEXT, TEXT))]),
    "64 KB of what was printed": Reports("r", 1, [of(OK, stdout="é" * 65536, stderr="x" * 65536)]),
    "a function's path of a thousand characters": Tasks(
        "r", [Item(0, 1, 1, None, None, msgspec.Raw(codec.encode(["f" * 1000, [], {}])[0]))]
    ),
    "silence of a day": Welcome(PROTOCOL, "r", 43_200.0, 86_400.0),
}


@pytest.mark.parametrize("what", HONEST)
def test_honest_use_is_within(what: str) -> None:
    assert encode(decode([bytes(part) for part in encode(HONEST[what])])[0]) == encode(HONEST[what])


BROKEN: dict[str, Message] = {
    "a worker's name": of(HELLO, name=NAME + "n"),
    "a worker's host": of(HELLO, host=NAME + "n"),
    "a worker's instance": of(HELLO, instance=NAME + "n"),
    "a run's name": Tasks(NAME + "n", []),
    "a run's name in what a worker has": of(HELLO, holding={NAME + "n": {}}),
    "a worker's cores": of(HELLO, cores=bounds.MOST_CORES + 1),
    "the runs that a worker has": of(HELLO, holding={str(n): {} for n in range(bounds.MOST_RUNS + 1)}),
    "the runs that one continues": Welcome(PROTOCOL, "r", 1.0, 5.0, ["e"] * (bounds.MOST_RUNS + 1)),
    "an exception's type": Reports("r", 1, [of(OK, error=(NAME + "n", "", ""))]),
    "an exception's message": Reports("r", 1, [of(OK, error=("", TEXT + "t", ""))]),
    "a traceback": Reports("r", 1, [of(OK, error=("", "", TEXT + "t"))]),
    "what was printed": Reports("r", 1, [of(OK, stdout=TEXT + "t")]),
    "a reason": Refused(TEXT + "t"),
    "the cores that a call ran on": Reports("r", 1, [of(OK, cores=(0,) * (bounds.MOST_CORES + 1))]),
    "widths": Pushed([1] * (bounds.MOST_CORES + 1)),
    "a call that has run for ever": Beat([Running("r", 1, float("inf"))]),
    "a call that has run for no time that is": Beat([Running("r", 1, float("nan"))]),
    "signs of life without a pause": Welcome(PROTOCOL, "r", 0.0, 5.0),
    "signs of life a million times a second": Welcome(PROTOCOL, "r", 1e-6, 5.0),
    "patience without end": Welcome(PROTOCOL, "r", 1.0, float("inf")),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_a_bound_is_bad_and_named(what: str) -> None:
    with pytest.raises(BadFrame, match=r"Expected .* (<=|>=|>) .* - at `"):
        decode(encode(BROKEN[what]))


@pytest.mark.parametrize("kind", [Returned, Cancel])
def test_how_many_places_a_message_names_is_bounded(
    kind: type[Returned | Cancel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The count alone is enough: it is looked at before anything is read for it."""
    head = encode(kind("r", []))[0]
    with pytest.raises(BadFrame, match=f"length <= {bounds.MOST_PLACES}"):
        decode([bytes(head)[:-1] + b"\xdd" + (bounds.MOST_PLACES + 1).to_bytes(4, "big")])


@pytest.mark.parametrize("kind", [Tasks("r", []), Reports("r", 1, [])], ids=["calls", "reports"])
def test_how_many_items_a_frame_has_is_bounded(kind: Message) -> None:
    head = bytes(encode(kind)[0])[:-1]
    with pytest.raises(BadFrame, match=f"length <= {bounds.MOST_ITEMS}"):
        decode([head + b"\xdd" + (bounds.MOST_ITEMS + 1).to_bytes(4, "big")])


def test_how_deep_a_value_nests_is_bounded() -> None:
    assert codec.decode([b"\x91" * MAX_DEPTH + b"\xc0"])
    with pytest.raises(BadFrame, match="nested deeper"):
        codec.decode([b"\x91" * (MAX_DEPTH + 1) + b"\xc0"])


def test_how_many_parts_a_frame_has_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.pieces.MOST_PARTS", 10)
    joiner = Joiner(1000)
    assert joiner.add(Piece([b""] * 10, False, True)) == [b""] * 10
    assert joiner.add(Piece([b""] * 10, False, False)) is None
    with pytest.raises(BadFrame, match="more than 10 parts"):
        joiner.add(Piece([b""], False, False))


def test_what_a_worker_says_of_itself_and_of_errors_is_within() -> None:
    class Loud(Exception):
        pass

    Loud.__qualname__ = "L" * 5000
    told = describe(Loud("long " * 1_000_000))
    error = (told.type, told.message, told.traceback)
    messages: list[Message] = [introduce("w" * 5000, 1), Reports("r", 1, [of(OK, error=error)])]
    for message in messages:
        decode(encode(message))
    assert isinstance(messages[0], Hello)
    assert error[1].startswith("long long ")
    assert error[1].endswith("long long ")
    assert "characters and more left out" in error[1]


def test_a_result_that_no_wire_carries_is_its_tasks_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is made: a child that sent it would be taken for one gone mad."""
    monkeypatch.setattr(child, "LARGEST", 250_000)
    value, large, error = child._packed([b"x" * 100_000] * 3, None)
    assert (value, large) == (NIL, ())
    assert error is not None
    assert error[:2] == ("CannotTravel", error[1])
    assert error[1].startswith("the result is too large for the wire: 300,0")
    assert child._packed([b"x" * 100_000] * 2, None)[2] is None


def test_a_function_whose_path_is_endless_is_unknown() -> None:
    with pytest.raises(UnknownFunction, match="it has 30,001 characters"):
        resolve("a." * 15_000 + "b")
