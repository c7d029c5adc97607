"""One AMQP connection that is kept: a thread with pika's loop in it, commands in, events out.

Its owner sees nothing of pika. It asks for things (`publish`, `get`, `ack`, ...) and never waits; what comes
of them lies in a queue that a descriptor announces. A connection that breaks is made again, with back-off and
jitter, and is a new *generation*: what was asked of an earlier one is dropped, and its delivery tags mean
nothing any more (AMQP 0-9-1, 1.8.3.13). So the owner, when it reads `Opened`, declares and asks anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPHeartbeatTimeout

from transports.rabbitmq.bulk import Bulk
from transports.rabbitmq.commands import Commands
from transports.rabbitmq.deliveries import Deliveries
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import (
    NO_ANSWER,
    AMQPEvent,
    Blocked,
    Delivered,
    Empty,
    Ended,
    Fetched,
    Found,
    Lost,
    Opened,
    Tag,
)
from transports.rabbitmq.overdue import Kind, Overdue
from transports.rabbitmq.prober import Prober
from transports.rabbitmq.publisher import Publisher
from transports.rabbitmq.words import Broker, channel_lost, lost, parameters, shown, version
from transports.threads import Inbox, back_off

#: Seconds that a broker gets to take a connection.
_CONNECTING = 10.0

#: Seconds that closing waits for the broker's goodbye.
_CLOSING = 2.0

# pika tells its troubles to the log, and without one to stderr; here they are events.
logging.getLogger("pika").addHandler(logging.NullHandler())
logging.getLogger("pika").propagate = False


class Connection:
    """Keeps a connection to a broker; `name` is how its management page shows it.

    `heartbeat` is in seconds: a peer that is silent for twice that long is given up, by either side. What is
    published goes in `envelopes`, and what is delivered comes out of them: as b"" if it is not one of ours.

    Raises:
        ConfigError: the URL is none, or the file of authorities can't be used.
    """

    def __init__(self, broker: Broker, envelopes: Envelopes, *, name: str, heartbeat: int) -> None:
        self._envelopes = envelopes
        self._parameters = parameters(broker)
        self._parameters.heartbeat = heartbeat
        self._parameters.socket_timeout = self._parameters.stack_timeout = _CONNECTING
        self._parameters.client_properties = {"connection_name": name, "product": "function-executor"}
        #: Where the broker is, as it is shown: without the password.
        self.address = shown(self._parameters)
        self._inbox = Inbox()
        self._generation = 0  # of the present connection, in the thread; grows with each
        self._seen = -1  # ... as the owner knows it; -1 when it knows of none
        self._getting = ""
        self._loop = IOLoop()
        self._waits = back_off()
        self._connection: pika.SelectConnection | None = None
        self._channel: Any = None
        self._prober: Prober | None = None
        self._bulk: Bulk | None = None
        self._publisher: Any = None
        self._brought: dict[bool, Deliveries] = {}  # by whether the channel is that for many at once
        self._commands = Commands(self._loop.add_callback_threadsafe, self._broke)
        self._got = True  # whether the last `get` was answered
        self._blocked = False
        self._overdue = Overdue()
        self._closing = False
        self._retry: object = None
        self._thread = threading.Thread(target=self._run, name="amqp", daemon=True)
        self._thread.start()

    # -- for the owner: none of these waits

    def fileno(self) -> int:
        """Return a descriptor that is readable while `take` has something."""
        return self._inbox.fileno()

    def ready(self) -> bool:
        """Return whether `take` has something."""
        return bool(self._inbox)

    def take(self, most: int = 64) -> list[Any]:
        """Return up to `most` events."""
        events: list[Any] = self._inbox.take(most)
        for event in events:
            if isinstance(event, Opened):
                self._seen = event.generation
            elif isinstance(event, Lost):
                self._seen = -1
        return events

    def publish(
        self, exchange: str, key: str, body: bytes, *, token: int | None = None, message_id: str = "",
        headers: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Publish a message. With a `token` it is persistent, must reach a queue, and is `Confirmed`."""
        self._do(lambda: self._publisher.publish(exchange, key, body, token, message_id, headers))

    def get(self, queue: str) -> None:
        """Ask for the next message of a queue: `Delivered` or `Empty`. One question at a time."""

        def got(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._overdue.heard(Kind.GET)
            self._got = True
            self._put(self._brought[False].came(queue, method, properties, body), len(body))

        def ask() -> None:
            self._getting, self._got = queue, False
            self._channel.basic_get(queue, got)

        self._do(ask)

    def fetch(self, queue: str, most: int, linger: float) -> None:
        """Ask for the next messages of a queue, up to `most` (2 or more): `Fetched` or `Empty`.

        If they are fewer, others are waited for until none comes for `linger` seconds. Only one `get` or
        `fetch` at a time.
        """

        def ask() -> None:
            self._getting, self._got = queue, False
            assert self._bulk is not None
            self._bulk.fetch(queue, most, linger)

        self._do(ask)

    def consume(self, queue: str, *, prefetch: int = 0, unacknowledged: bool = True) -> None:
        """Have a queue's messages delivered, at most `prefetch` of them unacknowledged (0: no limit)."""

        def came(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            if unacknowledged:
                message = self._brought[False].came(queue, method, properties, body)
            else:
                message = self._envelopes.delivered(queue, None, method, properties, body)
            self._put(message, len(body))

        self._ask(lambda done: self._channel.basic_qos(prefetch_count=prefetch, callback=done))
        self._ask(
            lambda done: self._channel.basic_consume(
                queue, came, auto_ack=not unacknowledged, consumer_tag=queue, callback=done
            )
        )

    def stop_consuming(self, queue: str) -> None:
        """Have no more of a queue's messages delivered."""
        self._ask(lambda done: self._channel.basic_cancel(queue, callback=done))

    def declare(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Make a durable queue, unless there is one."""
        own = dict(arguments)
        self._ask(lambda done: self._channel.queue_declare(queue, durable=True, arguments=own, callback=done))

    def listen(self, exchange: str, queue: str) -> None:
        """Make a queue of this connection alone, have it hear an exchange, and have it delivered."""
        arguments = {
            "x-queue-type": "classic"
        }  # whatever the virtual host's default is: no other is exclusive
        self._ask(
            lambda done: self._channel.queue_declare(
                queue, exclusive=True, auto_delete=True, arguments=arguments, callback=done
            )
        )
        self._ask(lambda done: self._channel.queue_bind(queue, exchange, callback=done))
        self.consume(queue, unacknowledged=False)

    def claim(self, queue: str) -> None:
        """Make a queue of this connection alone, to say so; it breaks if another has it (`Lost.locked`)."""
        self._ask(lambda done: self._channel.queue_declare(queue, exclusive=True, callback=done))

    def declare_fanout(self, exchange: str) -> None:
        """Make a durable exchange that copies what it is sent to every queue that hears it."""
        self._ask(
            lambda done: self._channel.exchange_declare(exchange, "fanout", durable=True, callback=done)
        )

    def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it, if there is one."""
        self._ask(lambda done: self._channel.queue_delete(queue, callback=done))

    def delete_exchange(self, exchange: str) -> None:
        """Delete an exchange, if there is one."""
        self._ask(lambda done: self._channel.exchange_delete(exchange, callback=done))

    def look_for(self, queue: str) -> None:
        """Ask whether a queue exists: `Found`. On a channel of its own, which a "no" closes."""
        self._do(lambda: self._prober.ask(queue) if self._prober is not None else None)

    def ack(self, *tags: Tag) -> None:
        """Acknowledge deliveries; those of an earlier connection are dropped."""
        for bulk in (False, True):
            numbers = [tag.number for tag in tags if tag.generation == self._seen and tag.bulk == bulk]
            if numbers:
                self._do(partial(self._acknowledge, numbers, bulk))

    def reject(self, tag: Tag) -> None:
        """Put a delivery back into its queue."""
        if tag.generation == self._seen:
            self._do(lambda: self._brought[tag.bulk].reject(tag.number))

    def break_off(self, why: str) -> None:
        """Give this connection up, and make another."""
        self._do(lambda: self._broke(why))

    def close(self) -> None:
        """Do what was asked for so far, and let go. Closing twice is harmless."""
        if self._closing:
            return
        self._loop.add_callback_threadsafe(self._close)
        self._thread.join(_CLOSING)
        self._closing = True
        if self._thread.is_alive():  # the broker does not answer
            self._loop.add_callback_threadsafe(self._cut)
            self._thread.join(_CLOSING)
        self._inbox.close()

    # -- in the thread

    def _do(self, command: Callable[[], object]) -> None:
        """Have a command done that has no answer, or whose answer is an event."""
        self._commands.put(self._seen, command, answered=False)

    def _ask(self, command: Callable[[Callable[[object], None]], object]) -> None:
        """Have a command done that must be answered before anything that was asked for later is done."""
        self._commands.put(self._seen, lambda: command(self._answered), answered=True)

    def _answered(self, frame: object) -> None:
        self._overdue.heard(Kind.QUESTION)
        self._commands.answer()

    def _got_nothing(self, frame: object) -> None:
        self._overdue.heard(Kind.GET)
        self._got = True
        self._put(Empty(self._getting))

    def _watch(self) -> None:
        """See whether the broker owes us an answer for too long."""
        if self._closing:
            return
        self._loop.call_later(1.0, self._watch)
        if self._overdue.look(self._owed()):
            self._cut()

    def _owed(self) -> dict[Kind, bool]:
        """Return which answers are waited for; pika itself sees to a connection that is not open yet."""
        assert self._connection is not None
        if self._connection.is_closing or (self._connection.is_open and self._channel is None):
            return {Kind.HANDSHAKE: True}
        if self._channel is None or self._prober is None or self._blocked:
            self._overdue.clear()
            return {}
        return {
            Kind.GET: not self._got, Kind.QUESTION: self._commands.asking,
            Kind.EXISTENCE: self._prober.asking, Kind.CONFIRMATION: self._publisher.waits,
        }  # fmt: skip

    def _put(self, event: AMQPEvent, size: int = 0) -> None:
        self._inbox.put(event, size)  # type: ignore[arg-type] # a queue of events of whatever kind

    def _run(self) -> None:
        self._connect()
        self._watch()
        try:
            self._loop.start()
        except Exception as error:  # a bug, ours or pika's: the owner must not wait for ever
            self._put(Lost(str(error), f"the AMQP client failed: {type(error).__name__}: {error}"))
        finally:
            self._loop.close()

    def _connect(self) -> None:
        self._retry = None
        if self._closing:
            return
        self._connection = pika.SelectConnection(
            self._parameters, self._opened, self._not_opened, self._closed, custom_ioloop=self._loop
        )

    def _opened(self, connection: pika.SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(
            lambda _, method: self._stopped(method.method.reason or "it gives no reason")
        )
        connection.add_on_connection_unblocked_callback(lambda *_: self._stopped(""))
        if self._closing:
            connection.close()
        else:
            connection.channel(on_open_callback=self._channel_opened)

    def _stopped(self, why: str) -> None:
        self._blocked = bool(why)
        self._put(Blocked(why))

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(lambda frame: self._put(Ended(frame.method.consumer_tag)))
        channel.add_callback(self._got_nothing, [pika.spec.Basic.GetEmpty], False)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._confirms(channel))

    def _confirms(self, channel: Any) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.channel(on_open_callback=lambda bulk: self._ready(channel, bulk))

    def _ready(self, channel: Any, bulk: Any) -> None:
        bulk.add_on_close_callback(self._channel_closed)
        self._waits = back_off()
        self._overdue.clear()
        self._channel = channel
        self._generation += 1
        self._commands.begin(self._generation)
        self._publisher = Publisher(channel, self._generation, self._envelopes, self._put)
        for many, each in ((False, channel), (True, bulk)):
            self._brought[many] = Deliveries(each, self._generation, self._envelopes, bulk=many)
        self._bulk = Bulk(
            bulk, self._brought[True], self._loop.call_later, self._fetched,
            lambda queue: self._put(Ended(queue)),
        )  # fmt: skip
        assert self._connection is not None
        self._prober = Prober(self._connection, self._found, self._broke)
        self._put(Opened(version(self._connection), self._generation))

    def _not_opened(self, connection: object, error: BaseException | str) -> None:
        self._again(lost(error, self._parameters, first=not self._generation))

    def _closed(self, connection: object, reason: BaseException) -> None:
        self._again(lost(reason, self._parameters, first=not self._generation))

    def _channel_closed(self, channel: Any, reason: Any) -> None:
        event = channel_lost(reason)
        if self._channel is not None:
            self._put(event)
            self._drop()
        self._broke(event.why)

    def _broke(self, why: str) -> None:
        """End a connection of which a part has failed: all of it is made anew."""
        if self._connection is not None and self._connection.is_open:
            self._connection.close(reply_text=why[:255])

    def _drop(self) -> None:
        """What was asked of this connection is void."""
        if self._prober is not None:
            self._prober.stop()
        self._channel = self._prober = self._bulk = self._publisher = None
        self._commands.drop()
        self._blocked = False
        self._got = True
        self._overdue.clear()

    def _again(self, event: Lost) -> None:
        if not self._closing:
            self._put(event)
        self._drop()
        if self._closing:
            self._loop.stop()
        elif self._retry is None:
            self._retry = self._loop.call_later(next(self._waits), self._connect)

    def _close(self) -> None:
        self._closing = True
        self._commands.end(self._hang_up)

    def _hang_up(self) -> None:
        if self._connection is None or self._connection.is_closed:
            self._loop.stop()
        elif not self._connection.is_closing:
            self._connection.close()

    def _cut(self) -> None:
        """End a connection at once, its socket too; `_closed` is told.

        Not by `close`, which would wait for an answer: as pika does when heartbeats fail.
        """
        if self._connection is None or self._connection.is_closed:
            self._loop.stop()
        else:
            self._connection._terminate_stream(AMQPHeartbeatTimeout(NO_ANSWER))

    def _confirmed(self, frame: Any) -> None:
        self._overdue.heard(Kind.CONFIRMATION)
        if self._publisher is not None:
            self._publisher.confirmed(frame)

    def _fetched(self, queue: str, messages: Sequence[Delivered]) -> None:
        self._overdue.heard(Kind.GET)
        self._got = True
        if messages:
            self._put(Fetched(queue, messages), sum(len(message.body) for message in messages))
        else:
            self._put(Empty(queue))

    def _found(self, event: Found) -> None:
        self._overdue.heard(Kind.EXISTENCE)
        self._put(event)

    def _acknowledge(self, numbers: Sequence[int], bulk: bool) -> None:
        self._brought[bulk].ack(numbers)
