"""Which local model should be in memory, by what was asked for lately: a recommendation with its reasons."""

from collections.abc import Sequence

import msgspec


class SwitchRules(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool = False
    """Act by itself; otherwise only say what would be done."""
    window_seconds: float = 7 * 86_400.0
    min_requests: int = 10
    share: float = 0.6
    cooldown_seconds: float = 300.0


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How often a local model was asked for in the window."""

    model: str
    requests: int


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A local model that is in memory."""

    model: str
    busy: bool = False
    """Work runs on it or waits for it."""
    pinned: bool = False


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    model: str | None
    """To be loaded; None when nothing should change."""
    replaces: str | None
    """What would have to go for it."""
    requests: int
    """For the model that was asked for most, in the window."""
    share: float
    """Its part of all requests for local models."""
    reasons: tuple[str, ...]
    """Sentences for people: what speaks for it, and what holds it up."""
    act: bool
    """Nothing stands against doing it now."""


def recommend(
    uses: Sequence[Use],
    loaded: Sequence[Loaded],
    *,
    free_places: int,
    now: float,
    last_switch: float | None,
    rules: SwitchRules,
) -> Recommendation:
    """`uses` are those models only that could be loaded; `free_places` are slots without a model. Times are Unix
    seconds."""
    total = sum(use.requests for use in uses)
    top = max(uses, key=lambda use: (use.requests, use.model), default=None)
    if top is None or not total:
        return _nothing(0, 0.0, "No local model was asked for in the window.")
    share = top.requests / total
    said = f"{top.model} had {top.requests} of {total} requests ({share:.0%})."
    if any(each.model == top.model for each in loaded):
        return _nothing(top.requests, share, said, "It is in memory already.")
    if top.requests < rules.min_requests:
        return _nothing(top.requests, share, said, f"Fewer than {rules.min_requests} requests say too little.")
    if share < rules.share:
        return _nothing(top.requests, share, said, f"Less than {rules.share:.0%} of the requests is no clear pattern.")
    replaces, obstacles = _make_place(uses, loaded, free_places)
    if last_switch is not None and now - last_switch < rules.cooldown_seconds:
        left = rules.cooldown_seconds - (now - last_switch)
        obstacles.append(f"The last switch was a moment ago; the next one may come in {left:.0f} s.")
    if not rules.enabled:
        obstacles.append("Switching by itself is off.")
    return Recommendation(
        model=top.model,
        replaces=replaces,
        requests=top.requests,
        share=share,
        reasons=(said, *obstacles),
        act=not obstacles,
    )


def _make_place(uses: Sequence[Use], loaded: Sequence[Loaded], free_places: int) -> tuple[str | None, list[str]]:
    """Which model would go, and what stands against it: the least wanted of those that may go at all."""
    if free_places > 0:
        return None, []
    wanted = {use.model: use.requests for use in uses}
    may_go = [each for each in loaded if not each.pinned]
    if not may_go:
        return None, ["Every model in memory is pinned."]
    goes = min(may_go, key=lambda each: (each.busy, wanted.get(each.model, 0), each.model))
    return goes.model, [f"{goes.model} would have to go, and work is running on it."] if goes.busy else []


def _nothing(requests: int, share: float, *reasons: str) -> Recommendation:
    return Recommendation(model=None, replaces=None, requests=requests, share=share, reasons=reasons, act=False)
