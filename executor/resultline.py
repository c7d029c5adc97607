"""A line of a results file, as much of it as a resume reads: a million take seconds."""

from __future__ import annotations

import json
import sys

import msgspec

from executor import jsonform
from executor.task import Status


class Line(msgspec.Struct, gc=False):
    """What is read of a line; `params` and `kwargs` are JSON."""

    id: str
    function: str
    params: msgspec.Raw
    kwargs: msgspec.Raw
    resources: int
    status: Status
    started: float | None
    finished: float | None


_decoder = msgspec.json.Decoder(Line)


def parse(raw: bytes) -> Line:
    """Return the line that a JSON text holds.

    Raises:
        ValueError: it is none.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    # A lone surrogate, which msgspec does not read; Python does, but no long integers unless told to.
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        record = json.loads(raw)
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        for key in ("params", "kwargs"):
            record[key] = msgspec.Raw(jsonform.encode_line(record.get(key)))
        return msgspec.convert(record, Line)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error
    finally:
        sys.set_int_max_str_digits(digits)
