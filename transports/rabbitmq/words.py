"""URLs of brokers, and why a connection to one is none, in words."""

from __future__ import annotations

import re

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

#: What an OSError, or the broker, says, in an exception's text: (111, 'Connection refused')
_SAID = re.compile(r"\(-?\d+(?:,|\)) \\*['\"]([^'\"\\]+)")


def parameters(url: str) -> pika.URLParameters:
    """Read a URL of AMQP.

    Raises:
        ConfigError: it is none.
    """
    wrong = "url: write amqp://user:password@host:port/virtual-host, or amqps:// for TLS"
    if not url.startswith(("amqp://", "amqps://")):
        raise ConfigError(wrong)
    try:
        return pika.URLParameters(url)
    except Exception as error:  # it raises whatever its parts raise
        raise ConfigError(wrong) from error


def shown(found: pika.URLParameters) -> str:
    """Return where a broker is, without the password."""
    scheme = "amqp" if found.ssl_options is None else "amqps"
    host = f"[{found.host}]" if ":" in found.host else found.host
    virtual = "" if found.virtual_host == "/" else f"/{found.virtual_host}"
    return f"{scheme}://{host}:{found.port}{virtual}"


def lost(error: object, to: pika.URLParameters) -> Lost:
    """Return what is told of a connection that broke, or could not be made."""
    fatal = ""
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
    most = _TOO_LARGE.search(text)
    return Lost(text, text if fatal else "", int(most[1]) if most else None, code == RESOURCE_LOCKED)


def in_words(error: object) -> str:
    """Say in a few words why a connection is none: pika packs what the system or broker said in layers."""
    if isinstance(error, AMQPHeartbeatTimeout) and error.args == (NO_ANSWER,):
        return NO_ANSWER
    if isinstance(error, pika.exceptions.ConnectionClosed | pika.exceptions.ChannelClosed):
        return f"{error.reply_text} ({error.reply_code})" if error.reply_text else "it was closed"
    inner = error
    while isinstance(inner, AMQPConnectionWorkflowFailed | AMQPConnectorException):
        inner = inner.exceptions[-1] if isinstance(inner, AMQPConnectionWorkflowFailed) else inner.exception
    text = repr(inner)
    if said := _SAID.search(text):
        return said[1].lower()
    return "it hung up" if "EOF" in text else " ".join(text.split())
