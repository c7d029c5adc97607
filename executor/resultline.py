"""Lines of a results file: how they are written, and as much of one as a resume reads. Pure.

A million take seconds, so what is usual is done for many at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain

import msgspec

from executor import jsonform
from executor.task import Result, Status


def plain(results: Sequence[Result]) -> bytes | None:
    """Return the lines of results that hold only what JSON has; None: one of them holds something else."""
    values = [result.value for result in results]
    params = chain.from_iterable([result.params for result in results])
    kwargs = [result.kwargs for result in results if result.kwargs]
    if not jsonform.are_plain([*values, *params, *kwargs]):
        return None
    try:
        return _encoder.encode_lines(results)
    except ValueError:  # a surrogate, or very many digits
        return None


def line(result: Result, arrays: jsonform.Store | None = None) -> bytes:
    """Return the line of any result; `arrays` stores large arrays, as in `jsonform.to_json`.

    Raises:
        CannotTravel, OSError: as `jsonform.to_json`.
    """
    value = jsonform.to_json(result.value, arrays)  # before the parameters: its array has the plain name
    params, kwargs = (jsonform.to_json(each, arrays) for each in (result.params, result.kwargs))
    record = msgspec.structs.replace(result, value=value, params=params, kwargs=kwargs)
    return jsonform.encode_line(record) + b"\n"


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


_encoder = msgspec.json.Encoder()
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
    # A lone surrogate, which msgspec does not read; Python does, but long integers slowly: they stay digits.
    try:
        record = json.loads(raw, parse_int=_whole)
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        for key in ("params", "kwargs"):
            record[key] = msgspec.Raw(jsonform.encode_line(record.get(key)))
        return msgspec.convert(record, Line)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _whole(digits: str) -> int | msgspec.Raw:
    """Return an integer, or its digits if they are many: to read these takes quadratic time."""
    return int(digits) if len(digits) < 1000 else msgspec.Raw(digits.encode())
