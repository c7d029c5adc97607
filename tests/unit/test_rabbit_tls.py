"""A broker over TLS shows who it is before it is told anything, or it is refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorSocketConnectError,
    AMQPConnectorTransportSetupError,
)

from executor.errors import ConfigError
from tests.unit.listening import first_lost, listener
from transports.rabbitmq.events import Lost
from transports.rabbitmq.words import Broker, lost, parameters

SECRET = "S3cret"

#: An authority that whoever connects knows.
AUTHORITY = trustme.CA()


@pytest.fixture
def known(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return str(path)


@contextmanager
def shows(certificate: trustme.LeafCert) -> Iterator[tuple[int, list[bytes]]]:
    """A port where this certificate is shown, and what came there after it was taken for good."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    heard: list[bytes] = []

    def answer(near: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(near, server_side=True) as there:
            heard.append(there.recv(1024))

    with listener(answer) as port:
        yield port, heard


def days(count: int) -> datetime:
    return datetime.now(UTC) + timedelta(count)


REMEDY = "it needs another, or this machine's clock is wrong"

BAD: dict[str, tuple[Callable[[], trustme.LeafCert], str]] = {
    "another authority": (
        lambda: trustme.CA().issue_cert("127.0.0.1"),
        "its certificate is of an authority that is not known here: name the authority's own "
        "(a file in PEM) in `ca_file`",
    ),
    "another host": (
        lambda: AUTHORITY.issue_cert("elsewhere.example"),
        "certificate is not valid for '127.0.0.1': write one of its own names in the url",
    ),
    "expired": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_before=days(-9), not_after=days(-1)),
        f"its certificate is not good (certificate has expired): {REMEDY}",
    ),
    "not good yet": (
        lambda: AUTHORITY.issue_cert("127.0.0.1", not_before=days(1), not_after=days(9)),
        f"its certificate is not good (certificate is not yet valid): {REMEDY}",
    ),
}


@pytest.mark.parametrize("flaw", BAD)
def test_a_broker_that_does_not_show_who_it_is_is_told_nothing(flaw: str, known: str) -> None:
    certificate, words = BAD[flaw]
    with shows(certificate()) as (port, heard):
        event = first_lost(f"amqps://me:{SECRET}@127.0.0.1:{port}", known)
    assert event.fatal.endswith(words)
    assert not any(heard)


def test_without_a_file_the_systems_authorities_are_those_that_are_known() -> None:
    with shows(AUTHORITY.issue_cert("127.0.0.1")) as (port, heard):
        assert "not known here" in first_lost(f"amqps://me:{SECRET}@127.0.0.1:{port}").fatal
    assert not any(heard)


def test_one_that_shows_who_it_is_is_spoken_to(known: str) -> None:
    with shows(AUTHORITY.issue_cert("127.0.0.1")) as (port, heard):
        event = first_lost(f"amqps://me:{SECRET}@127.0.0.1:{port}", known)
    assert event.fatal == ""
    assert heard == [b"AMQP\0\0\x09\x01"]


@pytest.mark.parametrize("answer", [b"AMQP\0\0\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_connection_that_was_to_be_private_is_never_one_in_the_clear(answer: bytes, known: str) -> None:
    """Nor does whoever stands in between get the password by saying that there is no TLS."""
    heard = bytearray()

    def reply(near: socket.socket) -> None:
        heard.extend(near.recv(1 << 16))
        near.sendall(answer)
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 16):
                heard.extend(data)

    with listener(reply) as port:
        event = first_lost(f"amqps://me:{SECRET}@127.0.0.1:{port}", known)
    assert "it speaks no TLS at this port" in event.fatal
    assert heard.startswith(b"\x16\x03")  # a greeting of TLS
    assert SECRET.encode() not in heard
    assert b"AMQP" not in heard


def test_who_stands_in_between_later_ends_nothing_that_is_under_way() -> None:
    bad = ssl.SSLCertVerificationError()
    bad.verify_code, bad.verify_message = 10, "certificate has expired"
    failed = AMQPConnectionWorkflowFailed(  # whatever the host's other addresses say
        [AMQPConnectorTransportSetupError(bad), AMQPConnectorSocketConnectError(OSError(111, "refused"))]
    )
    to = parameters(Broker("amqps://broker"))
    why = f"its certificate is not good (certificate has expired): {REMEDY}"
    assert lost(failed, to, first=False) == Lost(why, "")
    assert lost(failed, to, first=True) == Lost(why, why)


def test_what_is_trusted_is_said_in_one_place(tmp_path: Path) -> None:
    empty, missing = tmp_path / "empty.pem", tmp_path / "missing.pem"
    empty.touch()
    for broker, said in (
        (Broker("amqps://broker", str(missing)), f"ca_file: {missing}: No such file or directory"),
        (Broker("amqps://broker", str(empty)), f"ca_file: {empty} has no certificates in PEM"),
        (Broker("amqp://broker", str(empty)), "ca_file: is for a url of amqps://"),
        (Broker("amqps://broker/?ssl_options={'protocol': 2}"), "url: can't have ssl_options: "),
    ):
        with pytest.raises(ConfigError) as caught:
            parameters(broker)
        assert str(caught.value).startswith(said)
