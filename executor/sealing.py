"""Frames that lie with others on their way, sealed with the user's keys: nobody else reads or makes one.

    salt (16 bytes)   number (8 bytes, little-endian)   AES-256-GCM of the frame, with its tag (16 bytes)

Each process has a key of its own, derived of the user's by its random salt, and counts its frames: so no key
ever meets a number twice, which is what GCM asks for (NIST SP 800-38D, 8.2.1), however many processes there
are. `place` says where a frame belongs (its queue, and what stands on its envelope), and is authenticated
with it: moved elsewhere it opens no more. Who opens frames remembers the numbers, and so knows one that comes
again.
"""

from __future__ import annotations

import itertools
import secrets
import struct
from collections import OrderedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from executor.errors import BadFrame
from executor.keys import Keys

#: Bytes that sealing adds to a frame.
OVERHEAD = 16 + 8 + 16

#: Processes whose keys are kept, and frames that are remembered: enough for all that is under way at a time.
_PROCESSES_MOST = 4096
_REMEMBERED = 100_000

_NUMBER = struct.Struct("<Q")


class Seal:
    """Seals and opens the frames of one process."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._salt = secrets.token_bytes(16)
        self._own = self._cipher(self._salt)
        self._numbers = itertools.count(1)
        self._others: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def seal(self, frame: bytes, place: bytes) -> bytes:
        """Return a frame sealed for a place."""
        number = _NUMBER.pack(next(self._numbers))
        return b"".join((self._salt, number, self._own.encrypt(_nonce(number), frame, place)))

    def open(self, sealed: bytes, place: bytes, *, again: bool = False) -> bytes:
        """Return the frame that was sealed for a place; `again` says that it may have come before.

        Raises:
            BadFrame: it was not sealed with our keys, not for this place, or it came before.
        """
        if len(sealed) < OVERHEAD:
            raise BadFrame("it is not sealed")
        salt, number = sealed[:16], sealed[16:24]
        cipher = self._others.get(salt)
        known = cipher is not None
        if cipher is None:
            cipher = self._cipher(salt)
        try:
            frame = cipher.decrypt(_nonce(number), memoryview(sealed)[24:], place)
        except InvalidTag as error:
            raise BadFrame("it is not sealed with our keys, or for another place") from error
        if not known:  # only of who has the keys: strangers' salts are not kept
            self._others[salt] = cipher
            if len(self._others) > _PROCESSES_MOST:
                self._others.popitem(last=False)
        name = sealed[:24]
        if name in self._seen and not again:
            raise BadFrame("it came before")
        self._seen[name] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return frame

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(self._keys.derive("rabbitmq", salt=salt))


def _nonce(number: bytes) -> bytes:
    return b"\0\0\0\0" + number
