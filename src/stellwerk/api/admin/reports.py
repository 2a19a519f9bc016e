"""/admin/api/usage and /v1/stats/summary: what was used, by whom, and what for."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api._shapes import Instant, KeyId, UserId, to_time, to_units
from stellwerk.api.admin.administration import Administration
from stellwerk.auth.users import list_users
from stellwerk.core.errors import BadRequest, Unavailable
from stellwerk.core.principal import OBSERVERS, READERS
from stellwerk.ledger.reports import Group, Stats, UsageRow, stats_24h, usage_by
from stellwerk.telemetry.machine import Memory

_TAG = "Reports"
_DAY = 86_400.0
_USUAL_DAYS = 30
_GIB = 1 << 30


class UsageQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which calls, and by what they are summed up."""

    group: Group = "day"
    since: Annotated[Instant, Meta(description="Without it, thirty days before the end.")] | None = None
    until: Annotated[Instant, Meta(description="Without it, now.")] | None = None
    user_id: UserId | None = None
    key_id: KeyId | None = None
    model: Annotated[str, Meta(max_length=256)] | None = None


class UsageShape(msgspec.Struct, kw_only=True):
    """Sums over calls."""

    value: Annotated[str, Meta(description="The day, the number of the user, the id of the key or the model.")]
    requests: int
    failed: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost: Annotated[float, Meta(description="Currency units, of the calls whose price is known.")]
    avg_latency_ms: float


class StatsShape(msgspec.Struct, kw_only=True):
    """Sums over the last 24 hours; cost in currency units."""

    new_users: int
    total_requests: int
    total_tokens: int
    avg_latency_ms: float
    total_cost: float


class SystemShape(msgspec.Struct, kw_only=True):
    """The machine; null where it does not tell."""

    cpu_percent: float | None
    ram_used_gb: float | None
    ram_total_gb: float | None
    ram_percent: float | None


class SummaryShape(msgspec.Struct, kw_only=True):
    """The last 24 hours: of everybody for who may see that, else of the caller alone."""

    period: Literal["24h"]
    summary: str
    stats: StatsShape
    system: SystemShape | None
    active_models: int
    models: Annotated[list[str], Meta(description="Loaded models that the caller may use.")]


class ReportsAPI:
    """`loaded` are the ids of the models that are loaded, `processor` percent, `memory` bytes of the machine."""

    def __init__(
        self,
        administration: Administration,
        *,
        loaded: Callable[[], Sequence[str]],
        processor: Callable[[], float | None],
        memory: Callable[[], Memory | None],
    ) -> None:
        self._administration = administration
        self._loaded = loaded
        self._processor = processor
        self._memory = memory

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/usage",
                access=OBSERVERS,
                tag=_TAG,
                summary="Sum up the usage by day, user, key or model",
                description="Days newest first, all else by cost; a thousand rows at most.",
                handler=self._show_usage,
                query=UsageQuery,
                answer=list[UsageShape],
                example=[_USAGE],
                errors=(Unavailable,),
            ),
            Endpoint(
                method="GET",
                path="/v1/stats/summary",
                access=READERS,
                tag=_TAG,
                summary="The last 24 hours in figures and in a sentence",
                description="The sentence is German unless `Accept-Language` prefers English.",
                handler=self._show_summary,
                answer=SummaryShape,
                example=_SUMMARY,
                errors=(Unavailable,),
            ),
        )

    async def _show_usage(self, asked: Asked) -> list[UsageShape]:
        query: UsageQuery = asked.query
        until = self._administration.clock.now() if query.until is None else to_time(query.until, "until")
        since = until - _USUAL_DAYS * _DAY if query.since is None else to_time(query.since, "since")
        if since > until:
            raise BadRequest("'since' must not be later than 'until'.", param="since")
        rows = await self._administration.fetch(
            lambda connection: usage_by(
                connection, query.group, since, until, user_id=query.user_id, key_id=query.key_id, model=query.model
            )
        )
        return [_show_row(row) for row in rows]

    async def _show_summary(self, asked: Asked) -> SummaryShape:
        caller, now = asked.caller, self._administration.clock.now()
        sees_all = caller.role in OBSERVERS

        def read(connection: Connection) -> tuple[Stats, int]:
            if not sees_all:
                return stats_24h(connection, now, caller.user_id), 0
            new = [user for user in list_users(connection) if user.created_at > now - _DAY and not user.is_built_in]
            return stats_24h(connection, now), len(new)

        stats, new_users = await self._administration.fetch(read)
        models = [name for name in self._loaded() if caller.may_use(name)]
        figures = StatsShape(new_users=new_users, **msgspec.structs.asdict(stats))
        speaks_english = prefers_english(asked.request.exchange.headers.get(b"accept-language", b""))
        return SummaryShape(
            period="24h",
            summary=say(
                figures, len(models), self._administration.currency, english=speaks_english, all_users=sees_all
            ),
            stats=figures,
            system=self._show_system() if sees_all else None,
            active_models=len(models),
            models=models,
        )

    def _show_system(self) -> SystemShape:
        memory = self._memory()
        return SystemShape(
            cpu_percent=self._processor(),
            ram_used_gb=None if memory is None else round(memory.used / _GIB, 2),
            ram_total_gb=None if memory is None else round(memory.total / _GIB, 2),
            ram_percent=None if memory is None else round(100 * memory.used / memory.total, 1),
        )


def prefers_english(accept_language: bytes) -> bool:
    """Whether English comes before German in an Accept-Language header; what cannot be read is left out."""
    best = {"de": 0.0, "en": 0.0}
    for part in accept_language.decode("latin-1").lower().split(",")[:20]:
        tag, _, weight = part.strip().partition(";q=")
        language = tag.partition("-")[0]
        try:
            quality = float(weight) if weight else 1.0
        except ValueError:
            continue
        # A later language of the same weight is wanted less.
        if language in best and quality > max(best.values()):
            best[language] = quality
    return best["en"] > best["de"]


def say(stats: StatsShape, models: int, currency: str, *, english: bool, all_users: bool) -> str:
    """`models` is how many are loaded; new users are left out unless the sentence is about everybody."""
    cost = f"{stats.total_cost:.4f}"
    seconds = f"{stats.avg_latency_ms / 1000:.1f}"
    if english:
        requests = _count(stats.total_requests, "request", "requests")
        tokens = _count(stats.total_tokens, "token", "tokens")
        people = ", " + _count(stats.new_users, "new user", "new users") if all_users else ""
        return (
            f"In the last 24 hours: {requests} with {tokens} for {cost} {currency}, "
            f"{seconds} s on average{people}. Models loaded: {models}."
        )
    requests = _count(stats.total_requests, "Anfrage", "Anfragen")
    tokens = _count(stats.total_tokens, "Token", "Tokens")
    people = ", " + _count(stats.new_users, "neuer Benutzer", "neue Benutzer") if all_users else ""
    cost, seconds = cost.replace(".", ","), seconds.replace(".", ",")
    return (
        f"In den letzten 24 Stunden: {requests} mit {tokens} für {cost} {currency}, "
        f"im Mittel {seconds} s{people}. Geladene Modelle: {models}."
    )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _show_row(row: UsageRow) -> UsageShape:
    return UsageShape(
        value=row.value,
        requests=row.calls,
        failed=row.failed,
        tokens_in=row.input_tokens,
        tokens_out=row.output_tokens,
        tokens_cached=row.cached_tokens,
        cost=to_units(row.cost),
        avg_latency_ms=round(row.average_duration * 1000, 1),
    )


_USAGE = {
    "value": "2026-11-21",
    "requests": 4,
    "failed": 0,
    "tokens_in": 1200,
    "tokens_out": 340,
    "tokens_cached": 0,
    "cost": 0.000188,
    "avg_latency_ms": 812.5,
}
_SUMMARY = {
    "period": "24h",
    "summary": "In den letzten 24 Stunden: 4 Anfragen mit 1540 Tokens für 0,0002 EUR, im Mittel 0,8 s, "
    "1 neuer Benutzer. Geladene Modelle: 1.",
    "stats": {"new_users": 1, "total_requests": 4, "total_tokens": 1540, "avg_latency_ms": 812.5, "total_cost": 0.0002},
    "system": {"cpu_percent": 12.5, "ram_used_gb": 5.1, "ram_total_gb": 15.6, "ram_percent": 32.7},
    "active_models": 1,
    "models": ["stellwerk-demo"],
}
