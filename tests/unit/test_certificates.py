"""Who may talk over TLS: the two roles of one user, with certificates that are still good."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from executor import keys
from executor.certificates import LIFE, Context, Identity, Role, is_role, name_of

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def ours(tmp_path: Path) -> keys.Keys:
    return keys.load(tmp_path / "keys")


def meet(server: ssl.SSLContext, client: ssl.SSLContext, expected: Role = "dispatcher") -> bytes:
    """Connect a client to a server that says hello to who is in the expected role; return what it heard."""
    here, there = socket.socketpair()
    for sock in (here, there):
        sock.settimeout(20)

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as connection:
                connection.sendall(b"hello" if is_role(connection, expected) else b"who are you?")
        except OSError:
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name_of("worker")) as connection:
            assert connection.version() == "TLSv1.3"
            return connection.recv(100)
    finally:
        here.close()
        thread.join()


def test_a_dispatcher_and_a_worker_of_one_user_meet(ours: keys.Keys, tmp_path: Path) -> None:
    keys.export(ours, tmp_path / "elsewhere")
    copied = keys.load(tmp_path / "elsewhere")
    worker = Context(Identity(copied, "worker"), server=True)
    dispatcher = Context(Identity(ours, "dispatcher"), server=False)
    assert meet(worker.current(), dispatcher.current()) == b"hello"


def test_roles_are_told_from_each_other(ours: keys.Keys) -> None:
    worker, dispatcher = Identity(ours, "worker"), Identity(ours, "dispatcher")
    accepts = Context(worker, server=True).current()
    assert meet(accepts, Context(worker, server=False).current()) == b"who are you?"
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        meet(Context(dispatcher, server=True).current(), Context(dispatcher, server=False).current())


def test_another_users_certificate_is_refused_at_both_ends(ours: keys.Keys, tmp_path: Path) -> None:
    other = keys.load(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(
            Context(Identity(other, "worker"), server=True).current(),
            Context(Identity(ours, "dispatcher"), server=False).current(),
        )
    stranger = Context(Identity(other, "dispatcher"), server=False).current()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError, match=r"unknown ca|UNKNOWN_CA|reset|Broken"):
        assert meet(Context(Identity(ours, "worker"), server=True).current(), stranger) != b""


def test_who_shows_no_certificate_is_refused(ours: keys.Keys) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError, match=r"certificate required|CERTIFICATE_REQUIRED|reset|Broken"):
        assert meet(Context(Identity(ours, "worker"), server=True).current(), stranger) != b""


def test_an_expired_certificate_is_refused(ours: keys.Keys) -> None:
    worker = Context(Identity(ours, "worker", life=-60.0), server=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        meet(worker.current(), Context(Identity(ours, "dispatcher"), server=False).current())


def test_older_tls_is_refused(ours: keys.Keys) -> None:
    old = Context(Identity(ours, "dispatcher"), server=False).current()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):  # noqa: PT011 — whichever end is faster to hang up
        meet(Context(Identity(ours, "worker"), server=True).current(), old)


def test_certificates_are_renewed_long_before_they_expire(ours: keys.Keys) -> None:
    identity = Identity(ours, "worker")
    first = identity.shown(now=1e9)
    assert identity.shown(now=1e9 + LIFE * 0.49) is first
    second = identity.shown(now=1e9 + LIFE * 0.51)
    assert second.certificate != first.certificate
    assert second.until - first.until == pytest.approx(LIFE * 0.51)
