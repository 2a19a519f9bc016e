"""/admin/api/auto-switch: which local model should be in memory, and why."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import OBSERVERS
from stellwerk.routing.auto_switch import Recommendation


class RecommendationShape(msgspec.Struct, kw_only=True):
    """What should change, if anything."""

    model: Annotated[str | None, Meta(description="To be loaded; null when nothing should change.")]
    replaces: Annotated[str | None, Meta(description="What would have to go for it.")]
    requests: Annotated[int, Meta(description="For the model that was asked for most, in the window.")]
    share: Annotated[float, Meta(description="Its part of all requests for local models.")]
    reasons: list[str]
    act: Annotated[bool, Meta(description="Nothing stands against it: the next look, within a minute, does it.")]


class AutoSwitchAPI:
    def __init__(self, advise: Callable[[], Awaitable[Recommendation]]) -> None:
        self._advise = advise

    def register(self, registry: Registry) -> None:
        registry.add(
            Endpoint(
                method="GET",
                path="/admin/api/auto-switch",
                access=OBSERVERS,
                tag="Models",
                summary="Say which local model should be in memory, by what was asked for lately",
                handler=self._show,
                answer=RecommendationShape,
                example=_EXAMPLE,
                errors=(Unavailable,),
            )
        )

    async def _show(self, _asked: Asked) -> RecommendationShape:
        found = await self._advise()
        return RecommendationShape(**{**msgspec.structs.asdict(found), "reasons": list(found.reasons)})


_EXAMPLE = {
    "model": "qwen3-8b-Q4_K_M",
    "replaces": "llama-3.2-3b-Q4_K_M",
    "requests": 64,
    "share": 0.8,
    "reasons": ["qwen3-8b-Q4_K_M had 64 of 80 requests (80%).", "Switching by itself is off."],
    "act": False,
}
