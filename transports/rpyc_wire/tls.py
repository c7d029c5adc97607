"""TLS on connections of the RPyC wire: either end shows a certificate of the user's, and asks for one."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

from transports.rpyc_wire.protocol import SYNC_TIMEOUT

if TYPE_CHECKING:
    from executor.certificates import Context, Identity


def settings_of(identity: Identity | None, *, server: bool) -> Context | None:
    """Return the TLS settings of an end; None: it goes without."""
    if identity is None:
        return None
    from executor.certificates import Context

    return Context(identity, server=server)


class _Secured(ssl.SSLSocket):
    """A socket that is connected, or none.

    Of one whose other end has hung up already, `ssl` makes a socket that speaks no TLS, or drops it unclosed.
    """

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError("it hung up") from error


def secure(sock: socket.socket, context: Context, *, server: bool) -> ssl.SSLSocket:
    """Speak TLS on a connection from now on.

    Raises:
        OSError: the other end doesn't, or it is no worker, or to a server no dispatcher.
    """
    from executor.certificates import is_role, name_of

    sock.settimeout(SYNC_TIMEOUT)
    current = context.current()
    current.sslsocket_class = _Secured
    if server:
        secured = current.wrap_socket(sock, server_side=True)
    else:
        secured = current.wrap_socket(sock, server_hostname=name_of("worker"))
    if server and not is_role(secured, "dispatcher"):
        secured.close()
        raise ssl.SSLError("it is no dispatcher")
    return secured


def in_words(error: OSError) -> str:
    """Say why a connection could not be secured."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return reason.lower().replace("_", " ") if reason else str(error)
