"""Where a broker is, and why a connection to it is none, in words."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorException
from pika.exceptions import AMQPHeartbeatTimeout

from executor.errors import ConfigError
from transports.rabbitmq.events import NO_ANSWER, Lost

#: AMQP reply codes. After the first, and some of the last, somebody must act before one tries again.
ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406

#: What the broker says as it hangs up on a message beyond its `max_message_size`.
_TOO_LARGE = re.compile(r"larger than (?:configured )?max size (\d+)")

#: Bytes that a broker must take in a message: what tells of a call that is too large has to pass.
LEAST = 4096

#: OpenSSL's codes for certificates of other hosts, and of authorities that are not known.
_OTHER_HOST, _UNKNOWN = (62, 64), (2, 18, 19, 20, 21)

#: OpenSSL's reasons where the other end speaks no TLS.
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")

#: What an OSError, or the broker, says, in an exception's text: (111, 'Connection refused')
_SAID = re.compile(r"\(-?\d+(?:,|\)) \\*['\"]([^'\"\\]+)")


class Broker(NamedTuple):
    """Where a broker is; `ca_file` has the authorities of its certificate in PEM, None: the system's."""

    url: str
    ca_file: str | None = None


def parameters(broker: Broker) -> pika.URLParameters:
    """Read where a broker is. Over TLS it must show a certificate, of its host and one of the authorities.

    Raises:
        ConfigError: the URL is none, or the file of authorities can't be used.
    """
    found = read_url(broker.url)
    if found.ssl_options is not None:
        found.ssl_options = pika.SSLOptions(_trusting(broker.ca_file), found.host)
    elif broker.ca_file is not None:
        raise ConfigError("ca_file: is for a url of amqps://")
    return found


def read_url(url: str, key: str = "url") -> pika.URLParameters:
    """Read a broker's URL; `key` is what it is a value of.

    Raises:
        ConfigError: it is none.
    """
    wrong = f"{key}: write amqp://user:password@host:port/virtual-host, or amqps:// for TLS"
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigError(wrong)
    try:
        if "ssl_options" in parse_qs(urlsplit(url).query):  # which could turn the verification off
            raise ConfigError(f"{key}: can't have ssl_options: name the broker's authority in `ca_file`")
        return pika.URLParameters(url)
    except ConfigError:
        raise
    except Exception as error:  # it raises whatever its parts raise
        raise ConfigError(wrong) from error


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    path = None if ca_file is None else Path(ca_file).expanduser()
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"ca_file: {path} has no certificates in PEM") from error
    except OSError as error:
        raise ConfigError(f"ca_file: {path}: {error.strerror}") from error


def shown(found: pika.URLParameters) -> str:
    """Return where a broker is, without the password."""
    scheme = "amqp" if found.ssl_options is None else "amqps"
    host = f"[{found.host}]" if ":" in found.host else found.host
    virtual = "" if found.virtual_host == "/" else f"/{found.virtual_host}"
    return f"{scheme}://{host}:{found.port}{virtual}"


def version(connection: pika.SelectConnection) -> tuple[int, ...]:
    """Return the version of the broker that a connection stands to, as far as it says."""
    said = (connection.server_properties or {}).get("version", "0")
    text = said.decode() if isinstance(said, bytes) else str(said)
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def lost(error: object, to: pika.URLParameters, *, first: bool = True) -> Lost:
    """Return what is told of a connection that broke, or could not be made; `first` if there was none before.

    A broker that can't be trusted is no reason to give up what is under way: whoever stands in between could
    else end it. At the start it is.
    """
    fatal = ""
    for cause in _causes(error):
        if distrust := _distrust(cause):
            return Lost(distrust, distrust if first else "")
    if "ConnectionClosedByBroker" in repr(error):  # pika only guesses; this is the broker's own word
        if isinstance(error, pika.exceptions.ProbableAuthenticationError):
            user = to.credentials.username
            fatal = f"it does not let the user {user!r} in: check name and password in the url"
        elif isinstance(error, pika.exceptions.ProbableAccessDeniedError):
            user, host = to.credentials.username, to.virtual_host
            fatal = f"the user {user!r} may not use the virtual host {host!r}: check the url"
    return Lost(in_words(error), fatal)


def channel_lost(reason: object) -> Lost:
    """Return what is told of a channel that the broker closed."""
    code, text = getattr(reason, "reply_code", 0), in_words(reason)
    fatal = code == ACCESS_REFUSED or (code == PRECONDITION_FAILED and "inequivalent" in text)
    found = _TOO_LARGE.search(text)
    most = int(found[1]) if found else None
    if most is not None and most < LEAST:
        fatal, text = True, f"the broker's `max_message_size` is {most:,} bytes: make it {LEAST:,} at least"
    return Lost(text, text if fatal else "", most, code == RESOURCE_LOCKED)


def in_words(error: object) -> str:
    """Say in a few words why a connection is none: pika packs what the system or broker said in layers."""
    if isinstance(error, AMQPHeartbeatTimeout) and error.args == (NO_ANSWER,):
        return NO_ANSWER
    if isinstance(error, pika.exceptions.ConnectionClosed | pika.exceptions.ChannelClosed):
        return f"{error.reply_text} ({error.reply_code})" if error.reply_text else "it was closed"
    text = repr(_causes(error)[-1])
    if said := _SAID.search(text):
        return said[1].lower()
    return "it hung up" if "EOF" in text else " ".join(text.split())


def _causes(error: object) -> list[object]:
    """Return what pika packed, in the order in which it came: each address may fail in its own way."""
    if isinstance(error, AMQPConnectionWorkflowFailed):
        return [cause for each in error.exceptions for cause in _causes(each)]
    return _causes(error.exception) if isinstance(error, AMQPConnectorException) else [error]


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def _distrust(error: object) -> str:
    """Say why a broker is not trusted, and what to do; "" if an error is another."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            return f"{_first_lower(error.verify_message)}: write one of its own names in the url"
        if error.verify_code in _UNKNOWN:
            why = "its certificate is of an authority that is not known here"
            return f"{why}: name the authority's own (a file in PEM) in `ca_file`"
        why = f"its certificate is not good ({error.verify_message})"
        return f"{why}: it needs another, or this machine's clock is wrong"
    if isinstance(error, ssl.SSLError) and error.reason in _PLAIN:
        return "it speaks no TLS at this port: RabbitMQ's for amqps:// is 5671, unless it is set otherwise"
    return ""
