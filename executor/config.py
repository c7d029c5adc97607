"""From a YAML file and the command line to a wire and its settings, every mistake named with file and key."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import transports
from executor import jsontext
from executor.bounds import LONGEST_SILENCE, SHORTEST_SILENCE
from executor.errors import ConfigError
from executor.words import one_line

if TYPE_CHECKING:
    from transports.base import Transport
    from transports.settings import Settings


class Wire(NamedTuple):
    """A wire that was chosen, and its settings."""

    transport: type[Transport]
    settings: Settings


#: The options that are lists.
_LISTS = {"connect"}


def read(path: str | None, **overrides: str | None) -> Wire:
    """Return the wire that a YAML file chooses; without a file, ZeroMQ with its defaults.

    `overrides` are options of the command line, None where they are not given; the wire says which key each
    stands for.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    values, place = ({}, "") if path is None else (_mapping(path), f"{path}: ")
    name = values.get("transport", "zmq")
    if not isinstance(name, str):
        raise ConfigError(f"{place}transport: must be the name of a wire, not {name!r}")
    try:
        transport = transports.load(name)
    except ConfigError as error:
        raise ConfigError(f"{place}transport: {error}") from error
    known = transport.Settings.__struct_fields__
    for key in values:
        if key not in known:
            hint = _hint(str(key), known)
            raise ConfigError(f"{place}{one_line(str(key), 100)}: unknown key for transport {name}{hint}")
    settings = _convert({**values, "transport": name}, transport, place)
    for option, value in overrides.items():
        if value is None:
            continue
        if option not in transport.OVERRIDES:
            fitting = [f"--{each}" for each in transport.OVERRIDES if each in overrides]
            instead = f"; {' or '.join(fitting)} is" if fitting else ""
            raise ConfigError(f"--{option}: is not for transport {name}{instead}")
        key = transport.OVERRIDES[option]
        values[key] = value.split(",") if option in _LISTS else value
        settings = _convert({**values, "transport": name}, transport, "", {key: f"--{option}"})
    for key in ("heartbeat", "patience"):
        if not SHORTEST_SILENCE <= getattr(settings, key) <= LONGEST_SILENCE:
            raise ConfigError(
                f"{place}{key}: must be at least {SHORTEST_SILENCE:g} seconds, and at most a day"
            )
    if settings.patience < 2 * settings.heartbeat:
        raise ConfigError(
            f"{place}patience: must be at least twice the heartbeat of {settings.heartbeat:g} s"
        )
    return Wire(transport, settings)


def _convert(
    values: dict[str, Any], transport: type[Transport], place: str, options: Mapping[str, str] | None = None
) -> Settings:
    """Return settings of these values; a mistake is said of `place`, and of an option in place of its key."""
    try:
        return msgspec.convert(values, transport.Settings)
    except msgspec.ValidationError as error:
        said = _unknown_below(str(error), transport) or _in_words(one_line(str(error), 1000))
        key, colon, text = said.partition(": ")
        raise ConfigError(f"{place}{(options or {}).get(key, key)}{colon}{text}") from error


def _unknown_below(message: str, transport: type[Transport]) -> str:
    """Return what to say of an unknown key in the mapping under a key, or "" if it is not that."""
    found = re.fullmatch(r"Object contains unknown field `(.*)` - at `\$\.(\w+)`", message, re.DOTALL)
    if found is None:
        return ""
    unknown, key = one_line(found[1], 100), found[2]
    types = {field.name: field.type for field in msgspec.structs.fields(transport.Settings)}
    known: tuple[str, ...] = getattr(types.get(key), "__struct_fields__", ())
    return f"{key}.{unknown}: unknown key{_hint(unknown, known)}"


def _hint(unknown: str, known: tuple[str, ...]) -> str:
    """Return what ends a line about a key that is unknown: the one that was meant, or all that are known."""
    near = difflib.get_close_matches(unknown, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _mapping(path: str) -> dict[str, Any]:
    if not path:
        raise ConfigError("--yaml '': names no file")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigError(f"{path}: {reason}") from error
    values = _load(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold keys and values, such as `transport: zmq`")
    return values


def _load(text: str, path: str) -> object:
    """Return the value of a file: YAML, of which JSON, in which local workers get theirs, is a part."""
    if path.endswith(".json"):
        with contextlib.suppress(ValueError):
            value, mistakes = jsontext.load(text)
            if not mistakes:
                return value
    from executor import yamlfile  # takes 17 ms, and says what is wrong

    return yamlfile.load(text, path)


#: msgspec's words for types, in a user's.
_TYPES = {
    "float": "a number",
    "int": "an integer",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "keys and values",
    "null": "nothing",
}


def _in_words(message: str) -> str:
    """Turn msgspec's "Expected `float | null`, got `str` - at `$.wait`" into a line for the user."""
    message = message.replace(" - at `key` in `$.", " as a key - at `$.")
    text, _, path = message.partition(" - at `$.")

    def words(match: re.Match[str]) -> str:
        return " or ".join(_TYPES.get(name, name) for name in match[1].split(" | "))

    text = re.sub(r"`([^`]*)`", words, text)
    text = text[:1].lower() + text[1:]
    if not path:
        return text
    # What a nested mapping says of one of its keys begins with that key.
    joint = "." if re.match(r"\w+: ", text) else ": "
    return f"{path.rstrip('`')}{joint}{text}"
