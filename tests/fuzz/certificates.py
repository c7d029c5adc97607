"""Who shows a certificate that is nearly right to a server, and to a client: TLS without a network.

What is shown differs from what one of ours shows in one or more fields: by whom it is signed, from when to
when it is good, for which names, and for what. An input is one handshake.
"""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from executor.certificates import Context, Identity, Role, is_role, name_of
from executor.keys import Keys
from tests.fuzz.choices import Choices
from tests.fuzz.target import Target
from tests.fuzz.texts import scratch

_NAMES = [
    name_of("dispatcher"),
    name_of("worker"),
    "*.function-executor",
    "function-executor",
    "localhost",
    "",
]
_NAMES += ["dispatcher.function-executor.example", "DISPATCHER.function-executor", "xn--dispatcher"]
_DAYS = [-3650, -31, -1, 0, 1, 30, 3650]


@cache
def _identity(number: int, role: Role) -> Identity:
    return Identity(Keys(Path("nowhere"), bytes([number]) * 32), role)


@cache
def _ours(role: Role) -> ssl.SSLContext:
    return Context(_identity(1, role), server=role == "worker").current()


@cache
def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make(random: Random) -> bytes:
    return bytes(0 if random.random() < 0.6 else random.randrange(256) for _ in range(24))


def run(data: bytes) -> None:
    """Only who shows what our keys signed, is good now, and for that role, is taken for one of ours."""
    choices = Choices(data)
    role: Role = choices.one(("dispatcher", "worker"))  # of whoever shows it
    number = 1 if choices.below(8) < 6 else 2
    signer = _identity(number, role)
    by_itself = choices.below(8) == 7
    key = _key(0)
    name = name_of(role) if choices.below(4) < 3 else choices.one(_NAMES)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or "-")])
    now = datetime.now(UTC)
    begin, end = (
        now + timedelta(days=days) for days in ((-1, 30) if choices.below(4) < 3 else _span(choices))
    )
    names = [name] if choices.below(4) < 3 else [choices.one(_NAMES) for _ in range(choices.below(4))]
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.issuer_name(subject if by_itself else signer._name).serial_number(1)
    builder = builder.not_valid_before(begin).not_valid_after(end)
    authority = x509.BasicConstraints(ca=choices.below(8) == 7, path_length=None)
    builder = builder.add_extension(authority, critical=True)
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
        builder = builder.add_extension(alternatives, critical=False)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    odd = choices.below(8) == 7
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING] if odd else usages)
    builder = builder.add_extension(usage, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
        (key if by_itself else signer._key).public_key()
    )
    builder = builder.add_extension(issuer, critical=False)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    shown = builder.sign(key if by_itself else signer._key, hashes.SHA256())
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "dispatcher" else ssl.PROTOCOL_TLS_SERVER)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    path = scratch().with_suffix(".pem")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + shown.public_bytes(Encoding.PEM))
    try:
        theirs.load_cert_chain(path)
    finally:
        path.unlink()
    right = number == 1 and not by_itself and begin <= now < end and not odd
    among = [name_of(role)]
    if role == "worker":  # as clients understand that: of a name for many, and where there is no other
        among, names = [*among, "*.function-executor"], names or [name]
    named = any(each.lower() in among for each in names)
    taken = _meet(theirs, role)
    assert not taken or (right and named), "a stranger is taken for one of ours"
    assert taken or not (right and names == [name_of(role)]), "one of ours is refused"


def _span(choices: Choices) -> list[int]:
    first, second = choices.one(_DAYS), choices.one(_DAYS)
    return [min(first, second), max(first, second) + 1]


def _meet(theirs: ssl.SSLContext, role: Role) -> bool:
    """Return whether our end takes the other for one in that role."""
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = _ours("worker" if role == "dispatcher" else "dispatcher")
    wanted = name_of("worker")
    if role == "dispatcher":
        client, server = theirs.wrap_bio(there, here), ours.wrap_bio(here, there, server_side=True)
    else:
        client, server = (
            ours.wrap_bio(there, here, server_hostname=wanted),
            theirs.wrap_bio(here, there, True),
        )
    mine = server if role == "dispatcher" else client
    done = False
    for _ in range(4):
        for each in (client, server):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                if each is mine:
                    return False
                continue
            done = done or each is mine
    if not done:
        return False
    with contextlib.suppress(ssl.SSLError):
        mine.read(1)
    return role == "worker" or is_role(mine, "dispatcher")  # type: ignore[arg-type]


CERTIFICATES = [Target("certificates", make, run, slow=True)]
