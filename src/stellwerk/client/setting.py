"""What a client is told once: which gateway, with which key, and how patiently."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from stellwerk.client.address import Address, make_tls, parse_address
from stellwerk.client.connection import Patience
from stellwerk.client.request import FindKey
from stellwerk.client.retries import Retries
from stellwerk.core.secrets import Secret

HERE = "http://127.0.0.1:4000"
"""Where a gateway listens that was told nothing else."""
VARIABLE = "STELLWERK_API_KEY"
Key: TypeAlias = str | Secret | Callable[[], Secret | None] | None


@dataclass(frozen=True)
class Setting:
    address: Address
    find_key: FindKey
    tls: ssl.SSLContext | None
    patience: Patience
    retries: Retries
    most_bytes: int
    """Of one answer that is not streamed."""


def make_setting(
    base_url: str, api_key: Key, *, timeout: float, retries: Retries | int, ca: str | Path | None, most_bytes: int
) -> Setting:
    """Raises BadAddress for a URL that is none, and for a file of certificates that cannot be read."""
    address = parse_address(base_url)
    return Setting(
        address=address,
        find_key=_find_key(api_key),
        tls=make_tls(ca) if address.secure else None,
        patience=Patience(silence_seconds=timeout),
        retries=retries if isinstance(retries, Retries) else Retries(attempts=1 + max(0, retries)),
        most_bytes=most_bytes,
    )


def _find_key(given: Key) -> FindKey:
    if given is None:
        given = os.environ.get(VARIABLE, "")
    if callable(given):
        return given
    key = Secret(given.strip()) if isinstance(given, str) else given
    return lambda: key or None
