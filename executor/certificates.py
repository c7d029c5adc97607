"""Certificates for the wires that speak TLS: a user's own authority, and what dispatchers and workers show.

The authority's key is derived from the user's keys, so whoever has those is of one authority, and there is no
file besides. Each process makes a certificate of its own, for its role, and a new one long before it expires.
A certificate holds a name that stands for the role in place of a host's, as hosts change on a cluster:
`name_of` says which, and both ends see to it that the other's is the one that they expect.

What is written here is read by OpenSSL (RPyC) and BoringSSL (gRPC): certificates of version 3 with the
extensions that RFC 5280, 4.2, asks for.
"""

from __future__ import annotations

import ssl
import tempfile
import time
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from executor.keys import Keys

Role: TypeAlias = Literal["dispatcher", "worker"]

#: Seconds that a certificate is good for; a process makes another when half of them are over.
LIFE = 30 * 86_400.0

#: Seconds by which machines' clocks may differ.
_SKEW = 86_400.0

#: The order of the group of P-256 (SEC 2, 2.4.2): a private key is from 1 to one less.
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

_BEGIN, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def name_of(role: Role) -> str:
    """Return the name in the certificates of a role."""
    return f"{role}.function-executor"


class Shown(NamedTuple):
    """What a process shows: its private key and its certificate, both in PEM, and until when it is good."""

    key: bytes
    certificate: bytes
    until: float


class Identity:
    """A process in a role of the user with these keys; `life` is in seconds."""

    def __init__(self, keys: Keys, role: Role, life: float = LIFE) -> None:
        self.role = role
        self._life = life
        # 16 bytes more than the group's order has: so no key is likelier than another (FIPS 186-5, A.2.1).
        number = int.from_bytes(keys.derive("tls authority", length=48)) % (_ORDER - 1) + 1
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        self._name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"function-executor {keys.fingerprint}")]
        )
        #: The authority's certificate in PEM: what the other's is checked against.
        self.authority = self._authority().public_bytes(Encoding.PEM)
        self._shown: Shown | None = None

    def shown(self, now: float | None = None) -> Shown:
        """Return what this process shows at a time (epoch seconds; None: now)."""
        now = time.time() if now is None else now
        if self._shown is None or now > self._shown.until - self._life / 2:
            self._shown = self._made(now)
        return self._shown

    def _made(self, now: float) -> Shown:
        key = ec.generate_private_key(ec.SECP256R1())
        begin, end = (datetime.fromtimestamp(at, UTC) for at in (now - _SKEW, now + self._life))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name_of(self.role))])
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(name, key.public_key(), begin, end, authority=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        names = x509.SubjectAlternativeName([x509.DNSName(name_of(self.role))])
        builder = builder.add_extension(names, critical=False)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        certificate = builder.sign(self._key, hashes.SHA256())
        return Shown(private, certificate.public_bytes(Encoding.PEM), now + self._life)

    def _authority(self) -> x509.Certificate:
        builder = self._builder(self._name, self._key.public_key(), _BEGIN, _END, authority=True)
        return builder.sign(self._key, hashes.SHA256())

    def _builder(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePublicKey,
        begin: datetime,
        end: datetime,
        *,
        authority: bool,
    ) -> x509.CertificateBuilder:
        usage = x509.KeyUsage(
            digital_signature=not authority, key_cert_sign=authority, crl_sign=authority,
            content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(
                x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True
            )
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(ours, critical=False)
        )


class Context:
    """The TLS settings of one end for Python's `ssl`: version 1.3 only, and each end shows a certificate."""

    def __init__(self, identity: Identity, *, server: bool) -> None:
        self._identity = identity
        self._protocol = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
        self._context: ssl.SSLContext | None = None
        self._until = 0.0

    def current(self) -> ssl.SSLContext:
        """Return the context for a new connection, with a certificate that is good for a while.

        A client wraps its socket with ``server_hostname=name_of(role)``; a server sees who is there by
        `is_role`.
        """
        shown = self._identity.shown()
        if self._context is None or shown.until != self._until:
            context = ssl.SSLContext(self._protocol)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self._identity.authority.decode())
            with tempfile.NamedTemporaryFile() as file:  # of mode 0600; OpenSSL reads these from files only
                file.write(shown.key + shown.certificate)
                file.flush()
                context.load_cert_chain(file.name)
            self._context, self._until = context, shown.until
        return self._context


def is_role(connection: ssl.SSLSocket, role: Role) -> bool:
    """Whether the certificate of the other end, which was verified, is of a role."""
    certificate = connection.getpeercert() or {}
    return ("DNS", name_of(role)) in certificate.get("subjectAltName", ())
