"""`stellwerk upstream-keys`: how each key for an upstream fares in the running gateway: its place, never its text."""

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from stellwerk.cli.chat import ADMIN_KEY_FILE
from stellwerk.cli.data import AsJson, Data
from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble
from stellwerk.cli.own_address import own_url
from stellwerk.cli.question import report
from stellwerk.cli.tables import NOTHING, Column, Wording, print_json, print_table
from stellwerk.config.reading import data_folder
from stellwerk.core.clock import SystemClock
from stellwerk.core.errors import Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.ledger.upstream_usage import UseInAll, use_by_key
from stellwerk.storage.database import FILE_NAME, open_database
from stellwerk.storage.failures import StorageRefused

app = typer.Typer(add_completion=False)

_MOST_KEYS = 10_000
_LONGEST_KEY = 4096

TEXTS: Mapping[str, Mapping[str, str]] = {
    "column_provider": {"en": "provider", "de": "Anbieter"},
    "column_key": {"en": "key", "de": "Schlüssel"},
    "column_state": {"en": "state", "de": "Zustand"},
    "column_retry": {"en": "back in", "de": "zurück in"},
    "column_reason": {"en": "reason", "de": "Grund"},
    "column_requests_hour": {"en": "requests this hour", "de": "Anfragen diese Stunde"},
    "column_tokens_hour": {"en": "tokens this hour", "de": "Tokens diese Stunde"},
    "column_requests_day": {"en": "requests 24 h", "de": "Anfragen 24 h"},
    "column_tokens_day": {"en": "tokens 24 h", "de": "Tokens 24 h"},
    "ready": {"en": "ready", "de": "bereit"},
    "cooling": {"en": "cooling", "de": "pausiert"},
    "parked": {"en": "parked", "de": "stillgelegt"},
    "rate": {"en": "rate limit", "de": "Anfragelimit"},
    "concurrency": {"en": "too many at once", "de": "zu viele gleichzeitig"},
    "hourly_quota": {"en": "hourly quota", "de": "Stundenkontingent"},
    "session_quota": {"en": "session or daily quota", "de": "Sitzungs- oder Tageskontingent"},
    "weekly_quota": {"en": "weekly or monthly quota", "de": "Wochen- oder Monatskontingent"},
    "unauthorized": {"en": "not known to the vendor", "de": "dem Anbieter unbekannt"},
    "none": {
        "en": "No provider of the gateway has a key.",
        "de": "Kein Anbieter des Gateways hat einen Schlüssel.",
    },
    "no_provider": {
        "en": "No provider {provider} has a key; these do: {providers}",
        "de": "Ein Anbieter {provider} mit Schlüssel ist nicht dabei; diese haben einen: {providers}",
    },
    "no_key": {
        "en": "This needs the key of an admin or a viewer: --key or STELLWERK_API_KEY. "
        "`stellwerk keys create NAME --role viewer` makes one.",
        "de": "Das braucht den Schlüssel eines Admins oder Viewers: --key oder STELLWERK_API_KEY. "
        "`stellwerk keys create NAME --role viewer` erzeugt einen.",
    },
    "parked_hint": {
        "en": "A parked key is tried again after `kill -HUP` or a restart of the gateway.",
        "de": "Ein stillgelegter Schlüssel wird nach `kill -HUP` oder einem Neustart des Gateways wieder versucht.",
    },
}
text = Wording(TEXTS)

_COLUMNS = ("provider", "key", "state", "retry", "reason")
_COUNTS = ("requests_hour", "tokens_hour", "requests_day", "tokens_day")
_HOUR = 3600
_HOURS_OF_DAY = 24

_UNUSED = UseInAll(requests=0, prompt_tokens=0, completion_tokens=0)
Uses = Mapping[tuple[str, int], UseInAll]


class KeyState(msgspec.Struct, frozen=True):
    """One key as /health/details tells of it; `retry_in` in seconds."""

    index: int
    state: Literal["ready", "cooling", "parked"]
    retry_in: float | None = None
    reason: str | None = None


class _Details(msgspec.Struct, frozen=True):
    keys: dict[str, list[KeyState]] = {}


@app.command()
def upstream_keys(
    provider: Annotated[str | None, typer.Option(help="Only the keys of this provider.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option(help="Where the gateway listens; without it the one of this machine.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of an admin or viewer; better in STELLWERK_API_KEY.", show_default=False)
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show the state of every key for an upstream: ready, cooling until it comes back, or parked."""
    if url is None:
        url = own_url(data, os.environ)
    try:
        states = read_states(url, _candidates(key, url, data, os.environ))
    except GatewayTrouble as trouble:
        if trouble.values.get("status") in (401, 403):
            text.fail("no_key")
        report(trouble)
        raise typer.Exit(1) from None
    if provider is not None:
        if provider not in states:
            text.fail("no_provider", provider=provider, providers=", ".join(states) or NOTHING)
        states = {provider: states[provider]}
    table = KeyTable(states, *read_uses(url, data, os.environ))
    if as_json:
        print_json(table.values())
    elif not states:
        text.say("none")
    else:
        table.print()


def read_states(url: str, keys: list[Secret]) -> dict[str, list[KeyState]]:
    """The keys of each provider in the order of the names. Raises GatewayTrouble."""
    client, trouble = GatewayClient(url), GatewayTrouble("chat.refused", status=401, message="")
    for client.key in keys:
        try:
            return _understood(client.get("/health/details"))
        except GatewayTrouble as refusal:
            if refusal.values.get("status") not in (401, 403):
                raise
            trouble = refusal
    if not keys:
        # Whether anybody is there at all is to be said first.
        return _understood(client.get("/health/details"))
    raise trouble


def _understood(details: Any) -> dict[str, list[KeyState]]:
    try:
        found = msgspec.convert(details, _Details).keys
    except msgspec.ValidationError:
        raise GatewayTrouble("chat.not_understood") from None
    if sum(map(len, found.values())) > _MOST_KEYS:
        raise GatewayTrouble("chat.not_understood")
    return dict(sorted(found.items()))


def _candidates(given: str | None, url: str, data: Path | None, environ: Mapping[str, str]) -> list[Secret]:
    """Keys to try one after the other; the data folder's is for the gateway on this machine alone."""
    if given:
        return [Secret(given.strip())]
    found = [environ.get("STELLWERK_ADMIN_KEY", ""), environ.get("STELLWERK_API_KEY", "")]
    if GatewayClient(url).is_on_this_machine:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            file = data_folder(data, environ) / ADMIN_KEY_FILE
            with file.open(encoding="ascii") as stream:
                found.append(stream.read(_LONGEST_KEY))
    return [Secret(each.strip()) for each in dict.fromkeys(found) if each.strip()]


def read_uses(url: str, data: Path | None, environ: Mapping[str, str]) -> tuple[Uses | None, Uses | None]:
    """What each key was used for in this hour and in the last 24 of them; None where the gateway's database is not at
    hand."""
    folder = data_folder(data, environ)
    if not GatewayClient(url).is_on_this_machine or not (folder / FILE_NAME).is_file():
        return None, None
    hour = int(SystemClock().now()) // _HOUR * _HOUR
    try:
        with contextlib.closing(open_database(folder)) as database:
            return (
                database.read(lambda connection: use_by_key(connection, hour)),
                database.read(lambda connection: use_by_key(connection, hour - (_HOURS_OF_DAY - 1) * _HOUR)),
            )
    except (StorageRefused, Unavailable):
        return None, None


class KeyTable:
    """The keys of all providers with what is known of their use."""

    def __init__(self, states: Mapping[str, list[KeyState]], hour: Uses | None, day: Uses | None) -> None:
        self._states = states
        self._hour = hour
        self._day = day

    def values(self) -> list[dict[str, Any]]:
        """For programs; null for a use that is not known."""
        return [
            {"provider": provider, **msgspec.to_builtins(state), **self._counts(provider, state.index)}
            for provider, states in self._states.items()
            for state in states
        ]

    def print(self) -> None:
        usual = {"retry": NOTHING, "reason": NOTHING, **dict.fromkeys(_COUNTS, NOTHING)}
        right = {"key", "retry", *_COUNTS}
        columns = [
            Column(text(f"column_{name}"), right=name in right, usual=usual.get(name)) for name in _COLUMNS + _COUNTS
        ]
        rows = [self._cells(provider, state) for provider, states in self._states.items() for state in states]
        print_table(columns, rows)
        if any(state.state == "parked" for states in self._states.values() for state in states):
            text.say("parked_hint")

    def _cells(self, provider: str, state: KeyState) -> list[str]:
        counts = self._counts(provider, state.index).values()
        return [
            provider,
            str(state.index),
            text(state.state),
            NOTHING if state.retry_in is None else duration(state.retry_in),
            NOTHING if state.reason is None else text(state.reason) if state.reason in TEXTS else state.reason,
            *(NOTHING if count is None else str(count) for count in counts),
        ]

    def _counts(self, provider: str, index: int) -> dict[str, int | None]:
        counts: dict[str, int | None] = {}
        for name, uses in (("hour", self._hour), ("day", self._day)):
            use = None if uses is None else uses.get((provider, index), _UNUSED)
            counts[f"requests_{name}"] = None if use is None else use.requests
            counts[f"tokens_{name}"] = None if use is None else use.prompt_tokens + use.completion_tokens
        return counts


def duration(seconds: float) -> str:
    """`45s`, `12m 30s`, `2h 5m` or `3d 4h`, rounded up."""
    left = math.ceil(max(seconds, 0.0))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m {left % 60}s"
    if left < 86_400:
        return f"{left // 3600}h {left % 3600 // 60}m"
    return f"{left // 86_400}d {left % 86_400 // 3600}h"
