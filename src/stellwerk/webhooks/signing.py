"""Signing secrets and signatures of Standard Webhooks (https://www.standardwebhooks.com)."""

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from stellwerk.core.secrets import Secret
from stellwerk.storage.sealing import Seal

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_PURPOSE = b"webhook secret"


def new_secret() -> Secret:
    """A new signing secret, `whsec_` and base64; its receiver needs it to check signatures."""
    return Secret(_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode())


def seal_secret(seal: Seal, secret: Secret) -> bytes:
    """The secret as it is stored."""
    return seal.seal(secret.reveal().encode(), purpose=_PURPOSE)


def open_secret(seal: Seal, sealed: bytes) -> Secret:
    """The reverse of `seal_secret`. Raises SealBroken."""
    return Secret(seal.open(sealed, purpose=_PURPOSE).decode())


def sign(signing_secrets: Sequence[Secret], message_id: str, at: float, body: bytes) -> tuple[tuple[str, str], ...]:
    """The three headers of a delivery at `at` (Unix seconds), with one signature for each secret.

    More than one secret stand there while a new one replaces an old one: the receiver may still know only that.
    """
    # Lazy: only who has a subscription needs it.
    from standardwebhooks import Webhook  # noqa: PLC0415

    moment = datetime.fromtimestamp(int(at), UTC)
    text = body.decode()
    signatures = [Webhook(secret.reveal()).sign(message_id, moment, text) for secret in signing_secrets]
    return (
        ("webhook-id", message_id),
        ("webhook-timestamp", str(int(at))),
        ("webhook-signature", " ".join(signatures)),
    )
