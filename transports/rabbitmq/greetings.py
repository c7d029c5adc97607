"""What workers say of themselves, as a dispatcher hears it; those of another version are refused."""

from __future__ import annotations

from collections.abc import Callable

from executor.errors import BadFrame
from executor.messages import PROTOCOL, Hello, Refused, decode
from transports.base import Say
from transports.rabbitmq.events import Delivered
from transports.rabbitmq.frames import unpack
from transports.rabbitmq.presence import Presence
from transports.rabbitmq.strangers import Strangers


class Greetings:
    """Enters in `presence` who announces itself; `tell` tells all, and so the one that is refused, too."""

    def __init__(
        self, presence: Presence, strangers: Strangers, *, say: Say, tell: Callable[[Refused], None]
    ) -> None:
        self._presence = presence
        self._strangers = strangers
        self._say = say
        self._tell = tell
        self._refused: set[str] = set()  # instances of which it was said

    def came(self, event: Delivered, now: float) -> None:
        """Take a worker's presence."""
        try:
            hello, _ = decode(unpack(event.body))
            if not isinstance(hello, Hello):
                raise BadFrame(f"a greeting was expected, not {type(hello).__name__}")
        except BadFrame as bad:
            self._strangers.ignore(event.queue, bad)
            return
        if hello.protocol != PROTOCOL:
            if hello.instance not in self._refused:
                self._refused.add(hello.instance)
                self._say(f"refused worker {hello.name} on {hello.host}: it speaks protocol {hello.protocol}")
            reason = f"it speaks protocol {PROTOCOL}, this worker {hello.protocol}: use the same version"
            self._tell(Refused(reason, hello.instance))
        else:
            self._presence.meet(hello, now)
