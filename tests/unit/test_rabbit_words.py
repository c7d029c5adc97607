"""URLs of brokers, and what went wrong, in words."""

from __future__ import annotations

import socket
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import (
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ConnectionClosedByClient,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)

from executor.errors import ConfigError
from tests.unit.listening import first_lost, listener
from transports.rabbitmq.events import NO_ANSWER, Lost
from transports.rabbitmq.words import Broker, channel_lost, in_words, lost, parameters, shown

SECRET = "S3cret"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("amqp://", "amqp://localhost:5672"),
        ("amqp://broker", "amqp://broker:5672"),
        (f"amqp://me:{SECRET}@broker:5673/", "amqp://broker:5673"),
        (f"amqp://me:{SECRET}@broker/%2f", "amqp://broker:5672"),
        (f"amqp://me:{SECRET}@broker/team%2Fa", "amqp://broker:5672/team/a"),
        (f"amqps://me:{SECRET}@broker/v", "amqps://broker:5671/v"),
        (f"amqp://me:{SECRET}@[::1]:5673/", "amqp://[::1]:5673"),
    ],
)
def test_a_broker_is_shown_without_the_password(url: str, where: str) -> None:
    assert shown(parameters(Broker(url))) == where


@given(password=st.text(min_size=1))
def test_no_password_is_ever_shown(password: str) -> None:
    found = parameters(Broker(f"amqp://me:{quote(password, safe='', errors='replace')}@broker:5673/v"))
    assert shown(found) == "amqp://broker:5673/v"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "http://broker",
        "amqp:/broker",
        f"AMQP//me:{SECRET}@broker",
        f"amqp://me:{SECRET}@broker:port/",
        f"amqp://me:{SECRET}@broker:99999999/",
        f"amqp://me:{SECRET}@broker/?heartbeat={SECRET}",
        f"amqp://me:{SECRET}@broker/?no_such_thing=1",
        f"amqp://me:{SECRET}@[::1/",
    ],
)
def test_a_url_that_is_none_is_said_in_a_line_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parameters(Broker(url))
    assert str(caught.value).startswith("url: write amqp://user:password@host:port/virtual-host")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionClosedByBroker(320, "CONNECTION_FORCED - bye"), "CONNECTION_FORCED - bye (320)"),
        (ConnectionClosedByClient(200, ""), "it was closed"),
        (ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'"), "NOT_FOUND - no queue 'q' (404)"),
        (StreamLostError("lost: ConnectionResetError(104, 'Connection reset')"), "connection reset"),
        (StreamLostError("Transport indicated EOF"), "it hung up"),
        (AMQPHeartbeatTimeout(NO_ANSWER), "it does not answer"),
    ],
)  # fmt: skip
def test_why_a_connection_is_none_is_said_in_few_words(error: Exception, words: str) -> None:
    assert in_words(error) == words


def test_what_somebody_must_mend_first_is_no_reason_to_try_again() -> None:
    to = parameters(Broker(f"amqp://me:{SECRET}@broker/v"))
    refused = ProbableAuthenticationError(repr(ConnectionClosedByBroker(403, "ACCESS_REFUSED")))
    assert lost(refused, to).fatal == "it does not let the user 'me' in: check name and password in the url"
    denied = ProbableAccessDeniedError(repr(ConnectionClosedByBroker(530, "NOT_ALLOWED")))
    assert lost(denied, to).fatal == "the user 'me' may not use the virtual host 'v': check the url"
    guess = ProbableAuthenticationError("Stream connection lost")  # it may have been the link
    assert lost(guess, to).fatal == ""
    assert lost(ConnectionClosedByBroker(320, "CONNECTION_FORCED"), to).fatal == ""


def test_of_channels_that_the_broker_closes_it_is_known_which_may_be_opened_again() -> None:
    other = "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q'"
    assert channel_lost(ChannelClosedByBroker(406, other)).fatal == f"{other} (406)"
    assert (
        channel_lost(ChannelClosedByBroker(403, "ACCESS_REFUSED - no")).fatal == "ACCESS_REFUSED - no (403)"
    )
    late = channel_lost(
        ChannelClosedByBroker(406, "PRECONDITION_FAILED - delivery acknowledgement timed out")
    )
    assert (late.fatal, late.most, late.locked) == ("", None, False)
    gone = channel_lost(ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'"))
    assert (gone.fatal, gone.most, gone.locked) == ("", None, False)
    large = "PRECONDITION_FAILED - message size 20000000 is larger than configured max size 16777216"
    too_large = channel_lost(ChannelClosedByBroker(406, large))
    assert (too_large.fatal, too_large.most) == ("", 16_777_216)
    useless = channel_lost(ChannelClosedByBroker(406, large.replace("16777216", "100")))
    assert useless.fatal == "the broker's `max_message_size` is 100 bytes: make it 4,096 at least"
    claimed = channel_lost(ChannelClosedByBroker(405, "RESOURCE_LOCKED - cannot obtain exclusive access"))
    assert (claimed.fatal, claimed.locked) == ("", True)


# -- with nobody, or a stranger, at the other end


def test_nobody_at_the_address() -> None:
    with listener(lambda near: None) as port:
        pass
    assert first_lost(f"amqp://me:{SECRET}@127.0.0.1:{port}") == Lost("connection refused")


def test_a_name_that_nobody_has() -> None:
    event = first_lost(f"amqp://me:{SECRET}@no-such-host.invalid")
    assert event.fatal == ""
    assert "name" in event.why  # the resolver's own words differ
    assert SECRET not in event.why


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\0\0\x09\x01", b"\1" * 99]
)
def test_something_else_at_the_address(answer: bytes) -> None:
    def reply(near: socket.socket) -> None:
        near.recv(8)
        near.sendall(answer)

    with listener(reply) as port:
        event = first_lost(f"amqp://me:{SECRET}@127.0.0.1:{port}")
    assert event == Lost("it hung up")
