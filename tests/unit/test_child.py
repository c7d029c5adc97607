"""What runs in a child process, as far as it needs none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from executor import child, codec
from executor.call import resolve
from executor.messages import Item, Report


def test_text_that_is_too_long_for_a_report_is_its_tasks_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 4 GB for which MessagePack has no form: here it is a few letters that the encoder minds."""
    too_long = "x" * 100

    class Encoder:
        def encode(self, value: Any) -> bytes:
            if too_long in (value, getattr(value, "value", None)):
                raise msgspec.EncodeError("Can't encode strings longer than 2**32 - 1")
            return msgspec.msgpack.encode(value)

    (call,) = codec.encode(["copy.copy", [too_long], {}])
    monkeypatch.setattr(child, "encoder", Encoder())
    monkeypatch.setattr(codec, "_ENCODER", Encoder())
    monkeypatch.setattr(child, "take_printed", lambda *_: ("", ""))
    surroundings = SimpleNamespace(look_at=0.0, look=lambda *_: None, left_behind=lambda: False)
    process: Any = SimpleNamespace(
        _functions={}, _find=resolve, _surroundings=surroundings, _printed=(), _cores=(0,), _offset=0.0
    )
    item = Item(0, 1, 1, None, None, msgspec.Raw(call))
    encoded, large, _ = child._Child._call(process, item, (), 0.0)
    report = msgspec.msgpack.decode(encoded, type=Report)
    assert (report.status, large) == ("error", ())
    assert report.error is not None
    assert report.error[0] == "CannotTravel"
    assert "longer than 2**32 - 1" in report.error[1]
