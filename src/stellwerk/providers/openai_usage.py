"""OpenAI's usage object, which both sides of the gateway read."""

import msgspec

from stellwerk.core.outcome import Usage

_MOST_TOKENS = 1_000_000_000


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


_decode = msgspec.json.Decoder(_Usage | None).decode


def read_usage(raw: bytes | msgspec.Raw) -> Usage | None:
    """Usage from its JSON; None when it is absent or counts nothing, or a number in it is below 0 or beyond belief."""
    try:
        usage = _decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None
    if usage is None:
        return None
    inner, outer = usage.prompt_tokens_details, usage.completion_tokens_details
    counted = Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_tokens=(inner.cached_tokens or 0) if inner is not None else 0,
        reasoning_tokens=(outer.reasoning_tokens or 0) if outer is not None else 0,
    )
    numbers = (counted.input_tokens, counted.output_tokens, counted.cached_tokens, counted.reasoning_tokens)
    # No call is without a token. Zeros are what some write as long as they do not know, or for ever.
    counts = counted.input_tokens > 0 or counted.output_tokens > 0
    return counted if counts and min(numbers) >= 0 and max(numbers) <= _MOST_TOKENS else None


def render_usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
