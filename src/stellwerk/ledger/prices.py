"""What calls cost: published prices out of genai-prices, and exact arithmetic on prices.

genai-prices takes half a second and 36 MB to import, so nothing here imports it before `PriceBook.load`.
"""

import asyncio
import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from stellwerk.core.clock import Clock
from stellwerk.core.outcome import Usage
from stellwerk.core.plan import Price

_PICO_PER_TOKEN = Decimal(1_000_000)
"""A price of 1 USD for a million tokens is 10^6 pico a token."""

_PICO_PER_MICRO = 1_000_000
_MILLISECONDS = 1_000

_REMEMBERED_SECONDS = 3600.0
"""Some prices depend on the date or the time of day."""

Lookup = Callable[[str, str, datetime], Any]


class PriceBook:
    """Prices by vendor, as genai-prices names it, and the vendor's own name of the model.

    Works offline: the data ships with the package.
    """

    def __init__(self, clock: Clock, *, remembered: int = 10_000) -> None:
        self._clock = clock
        self._lookup: Lookup | None = None
        self._loading: asyncio.Task[Lookup] | None = None
        self._remembered = remembered
        self._prices: dict[tuple[str, str], Price | None] = {}
        self._stale_at = 0.0

    @property
    def loaded(self) -> bool:
        return self._lookup is not None

    async def load(self) -> None:
        """Imports the prices in a thread; at once when that has been done."""
        if self._lookup is None:
            if self._loading is None:
                self._loading = asyncio.create_task(asyncio.to_thread(_import_prices))
            self._lookup = await asyncio.shield(self._loading)

    def price(self, vendor: str, model: str) -> Price | None:
        """None when it is not known, and always before `load`."""
        if self._lookup is None:
            return None
        now = self._clock.now()
        if now >= self._stale_at or len(self._prices) >= self._remembered:
            self._prices.clear()
            self._stale_at = now + _REMEMBERED_SECONDS
        name = (vendor, model)
        if name not in self._prices:
            self._prices[name] = _to_price(self._lookup(vendor, model, datetime.fromtimestamp(now, UTC)))
        return self._prices[name]


def cost(price: Price, usage: Usage) -> int:
    """Micro units (10^-6) of the price's currency, exact and rounded up.

    Tokens from the upstream's prompt cache cost the cache price where there is one, and the input price otherwise.
    Numbers below zero count as zero.
    """
    tokens, cached = max(0, usage.input_tokens), 0
    if price.cache_read is not None:
        cached = min(max(0, usage.cached_tokens), tokens)
    pico = (tokens - cached) * price.input + cached * (price.cache_read or 0)
    pico += max(0, usage.output_tokens) * price.output + price.request
    if usage.characters > 0:
        pico += usage.characters * price.character
    if usage.pages > 0:
        pico += usage.pages * price.page
    if usage.audio_milliseconds > 0:
        # Rounded up twice, which comes to the same as once.
        pico -= -usage.audio_milliseconds * price.audio_second // _MILLISECONDS
    return -(-pico // _PICO_PER_MICRO)


def _import_prices() -> Lookup:
    snapshot = importlib.import_module("genai_prices.data_snapshot").get_snapshot()

    def look_up(vendor: str, model: str, at: datetime) -> Any:
        try:
            _, info = snapshot.find_provider_model(model, None, vendor, None)
        except LookupError:
            return None
        return info.get_prices(at)

    # The first look-up builds the data.
    look_up("openai", "gpt-4o", datetime.fromtimestamp(0, UTC))
    return look_up


def _to_price(prices: Any) -> Price | None:
    if prices is None:
        return None
    taken = (_pico(prices, "input_mtok"), _pico(prices, "output_mtok"))
    # A model that is paid by the request, the image or the second has no price that we could compute.
    if taken == (None, None):
        return None
    return Price(
        input=taken[0] or 0,
        output=taken[1] or 0,
        cache_read=_pico(prices, "cache_read_mtok"),
        cache_write=_pico(prices, "cache_write_mtok"),
    )


def _pico(prices: Any, name: str) -> int | None:
    """Pico units a token from a price for a million; of prices in tiers, the first."""
    value = getattr(prices, name)
    value = getattr(value, "base", value)
    if value is None:
        return None
    # What is left behind the point comes from a float somewhere on the way of the published price.
    return int((value * _PICO_PER_TOKEN).to_integral_value(ROUND_HALF_EVEN))
