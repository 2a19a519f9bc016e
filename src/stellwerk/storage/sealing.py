"""Seals what may not stand in the clear in the database: AES-256-GCM under a key of its own for every piece.

A sealed piece is `version (1 byte) · salt (16) · nonce (12) · ciphertext · tag (16)`. The key of a piece is derived
from the secret and the salt with HKDF-SHA256 (RFC 5869), so that chance never uses a nonce twice under one key,
however many pieces are sealed.
"""

import hmac
import secrets

_VERSION = b"\x01"
_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16
_LEAST_SECRET_BYTES = 32

OVERHEAD = len(_VERSION) + _SALT_BYTES + _NONCE_BYTES + _TAG_BYTES
"""Bytes by which a sealed piece is longer."""


class SealBroken(ValueError):
    """The piece was sealed under another secret or for another purpose, or somebody has changed it."""


class Seal:
    """Seals and opens with one secret of at least 32 random bytes. For every thread."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _LEAST_SECRET_BYTES:
            raise ValueError("a seal needs a secret of at least 32 bytes")
        self._secret = secret

    def seal(self, content: bytes, *, purpose: bytes = b"") -> bytes:
        """`purpose` is not kept: only who names the same one can open the piece."""
        # 15 ms to import, and many a gateway never seals anything.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + salt + nonce + AESGCM(self._key(salt)).encrypt(nonce, content, purpose)

    def open(self, sealed: bytes, *, purpose: bytes = b"") -> bytes:
        """Raises SealBroken."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        if len(sealed) < OVERHEAD or not sealed.startswith(_VERSION):
            raise SealBroken("this was not sealed here")
        salt, rest = sealed[1 : 1 + _SALT_BYTES], sealed[1 + _SALT_BYTES :]
        try:
            return AESGCM(self._key(salt)).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], purpose)
        except InvalidTag:
            raise SealBroken("this was sealed with another secret, or it has been changed") from None

    def _key(self, salt: bytes) -> bytes:
        extracted = hmac.digest(salt, self._secret, "sha256")
        return hmac.digest(extracted, b"stellwerk seal\x01", "sha256")
