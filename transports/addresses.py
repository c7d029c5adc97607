"""Addresses as people write them: ``host:port`` and ``unix:/path``."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from executor.private import check_socket_path


def socket_path(text: str) -> str:
    """Return the absolute path in an address ``unix:PATH``, "" in any other.

    Raises:
        ConfigError: it is too long for a socket.
    """
    path = text.removeprefix("unix:")
    if not path or path == text:
        return ""
    path = str(Path(path).absolute())
    check_socket_path(path)
    return path


def unknown_name(address: str) -> str:
    """Return what to say of an address whose host has a name that leads nowhere: by a slip, or not yet."""
    return f"can't find {address}: its name is not known here; trying again"


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own, which nothing leaves."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return what ``host:port`` or ``[ipv6]:port`` holds, or None if the text is neither."""
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536) or "/" in host:
        return None
    return host, int(port)
