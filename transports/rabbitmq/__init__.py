"""RabbitMQ: a broker between dispatchers and workers, which keeps calls and results while neither is there.

topology.py     queues and exchanges: names and arguments
amqp.py         one connection that is kept
  envelope.py     messages, sealed for their place
  publisher.py    publications and what is said of them;  prober.py  which queues exist
  commands.py     what is asked of it, in order;  overdue.py  answers that are missing for too long
  bulk.py         many messages of a queue at once
  deliveries.py   what a channel brought, until it is settled;  unsettled.py  ... in few words
  events.py       what it tells;  words.py  where it is, and what went wrong
outage.py       whether it can be reached, and what is said of that
post.py         what must reach the broker, until it is confirmed
frames.py       calls and reports as messages, and what becomes of calls that came back
mending.py      ... and sends them out again;  reaping.py  looks for them
held.py         what a worker has, and how much more it wants
lookout.py      into which queue it looks next
runs.py         which runs it takes part in
fetching.py     what it asks for, and what it keeps of what comes
moving.py       calls on their way into its hands
replies.py      what leaves its hands: reports, and calls that go back into line
renewing.py     copies of calls that run for long
announcing.py   what it says of itself
worker.py       the worker's end, made of these

presence.py     which workers there are, and which calls have no report yet;  unheld.py  ... and no worker
greetings.py    workers introduce themselves
continued.py    which runs a dispatcher gathers: its own, and those that it continues
runqueues.py    their queues: declared, found again, lost, or gone
pushing.py      calls on their way into line
intake.py       reports on their way in;  acknowledging.py  ... which are recorded
stopping.py     a run is stopped, until all have heard it
lostwatch.py    which calls the broker has lost;  restoring.py  they are pushed again
parting.py      the end of a run: asked for until the broker has done it
dispatcher.py   the dispatcher's end, made of these;  kept.py  ... for runs that it leaves there

strangers.py    what is none of ours, on either end;  telling.py  what is in line is told to all, by either
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any

import msgspec

from executor import keys
from executor.errors import ConfigError
from executor.messages import Hello
from executor.sealing import Seal
from transports.addresses import is_loopback
from transports.base import Say, Transport
from transports.rabbitmq.dispatcher import RabbitDispatcherEnd
from transports.rabbitmq.kept import RabbitKeepingEnd
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker, parameters, read_url, shown
from transports.rabbitmq.worker import RabbitWorkerEnd
from transports.settings import Settings as CommonSettings
from transports.settings import checked

#: A name of ours within the 255 bytes of AMQP's names; no dot at its ends, where ours are joined.
_NAME = re.compile(r"[A-Za-z0-9_-]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")


class Settings(CommonSettings, frozen=True):
    """Keys of a YAML file for RabbitMQ."""

    url: str = "amqp://guest:guest@127.0.0.1:5672/"
    #: A file with the authorities (PEM) of the certificate of a broker at amqps://; None: the system's.
    ca_file: str | None = None
    #: What the names of all queues and exchanges begin with: scripts with the same one belong together.
    queue: str = "function-executor"
    #: Seconds that the broker lets a delivery go unacknowledged (its `consumer_timeout`).
    acknowledgement_timeout: Annotated[float, msgspec.Meta(gt=0)] = 1800.0
    #: Below RabbitMQ 4's `max_message_size` of 16 MiB, with room for what is around a call.
    largest: Annotated[int, msgspec.Meta(ge=1, le=500_000_000)] = 16_000_000
    #: Remove the queues with the run: for brokers that others use, and runs that stand alone.
    temporary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checked(read_url, self.url, "url")
        if not _NAME.fullmatch(self.queue):
            raise ValueError("queue: must be of letters, digits, and . _ - between them, 100 at most")

    @property
    def broker(self) -> Broker:
        """Where the broker is."""
        return Broker(self.url, self.ca_file)


class RabbitMQ(Transport):
    """The wire of the name ``rabbitmq``."""

    Settings = Settings
    OVERRIDES = {"address": "url"}

    @classmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> RabbitDispatcherEnd:
        return RabbitDispatcherEnd(
            *_of_user(settings, say), say=say, heartbeat=settings.heartbeat,
            largest=settings.largest,
        )  # fmt: skip

    @classmethod
    def kept_run(cls, settings: Any, name: str, *, collects: bool, say: Say) -> RabbitKeepingEnd:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r}: a run's name has letters, digits, and . _ - between them, 100 at most"
            )
        return RabbitKeepingEnd(
            *_of_user(settings, say), name, say=say, heartbeat=settings.heartbeat,
            largest=settings.largest, collects=collects,
        )  # fmt: skip

    @classmethod
    def worker_end(cls, settings: Any, hello: Hello, *, say: Say) -> RabbitWorkerEnd:
        return RabbitWorkerEnd(
            *_of_user(settings, say), hello, say=say, heartbeat=settings.heartbeat,
            largest=settings.largest,
        )  # fmt: skip

    @classmethod
    def private(cls, settings: Any, folder: str, workers: int) -> tuple[Any, list[Any]]:
        parameters(settings.broker)
        own = msgspec.structs.replace(
            settings, queue=f"{settings.queue}.{secrets.token_hex(4)}", temporary=True
        )
        return own, [own] * workers


def _of_user(settings: Settings, say: Say) -> tuple[Broker, Topology, Seal]:
    """Return the broker, the names of this user's queues, and what seals what lies in them.

    Those of other keys have other names: so nobody takes what only others can read.

    Raises:
        ConfigError: the keys can't be used, or the way to the broker is not protected.
    """
    found = parameters(settings.broker)
    if found.ssl_options is None and not is_loopback(found.host):
        if not settings.insecure:
            raise ConfigError(
                f"url: {shown(found)} is on another machine, and the password would go there in the clear: "
                "write amqps://, or set `insecure: true`"
            )
        say(f"insecure: the password goes to {shown(found)} in the clear; calls and results are sealed")
    own = keys.load(keys.place(settings.keys))
    names = Topology(
        f"{settings.queue}.{own.short}", settings.patience, settings.acknowledgement_timeout,
        settings.keep.seconds, settings.temporary,
    )  # fmt: skip
    return settings.broker, names, Seal(own)
