"""The keys that every wire's YAML may have; a wire adds its own in a subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec

from executor.allow import Allowed
from executor.bounds import LARGEST
from executor.errors import ConfigError
from executor.sizes import parse_size

#: Seconds for which anything is kept, at most: a month. RabbitMQ could not count many more.
KEEP_MOST = 31 * 86_400.0


class Keep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """For how long, and how much, is kept of a run whose dispatcher is gone, until another continues it.

    Where either is 0, nothing is kept.
    """

    seconds: Annotated[float, msgspec.Meta(ge=0, le=KEEP_MOST)] = 3600.0
    #: Bytes, or text such as 1GB.
    bytes: Annotated[int, msgspec.Meta(ge=0)] | str = 1_000_000_000

    def __post_init__(self) -> None:
        if isinstance(self.bytes, str):
            try:
                msgspec.structs.force_setattr(self, "bytes", parse_size(self.bytes))
            except ValueError as mistake:
                raise ValueError(f"bytes: {mistake}") from None

    @property
    def most(self) -> int:
        """The bytes, as a number."""
        return int(self.bytes)


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Keys that every wire's YAML may have."""

    #: The wire: a name from `transports.WIRES`, or ``package.module:Class``.
    transport: str = "zmq"
    #: Seconds between two signs of life, both ways.
    heartbeat: float = 1.0
    #: Seconds of silence after which the other end counts as gone.
    patience: float = 5.0
    #: Bytes of the largest call or result that is sent; a larger one is that task's error.
    largest: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)] = LARGEST
    #: What a worker, or the broker, keeps of a run whose dispatcher is gone.
    keep: Keep = Keep()
    #: The folder of the user's keys; None: the usual one, see `executor.keys.place`.
    keys: str | None = None
    #: Whether a link to another machine may go without protection.
    insecure: bool = False
    #: Patterns of the functions that a worker runs, see `executor.allow`; None: any.
    allow: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.allow is not None:
            try:
                Allowed(self.allow)
            except ValueError as mistake:
                raise ValueError(f"allow: {mistake}") from None


def checked(read: Callable[[str, str], object], text: str, key: str) -> None:
    """See whether the value `text` of a key can be read, for a `__post_init__` of settings.

    Raises:
        ValueError: it can't, which `executor.config` then says of the file or the option that it stands in.
    """
    try:
        read(text, key)
    except ConfigError as error:
        raise ValueError(str(error)) from error
