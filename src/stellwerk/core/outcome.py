"""What happened: the one record of a call that ledger, metrics and logs read."""

import msgspec

from stellwerk.core.call import Operation


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call as the upstream reported them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Part of `input_tokens` that the upstream read from its prompt cache."""
    reasoning_tokens: int = 0
    """Part of `output_tokens` that the client does not see."""
    audio_milliseconds: int = 0
    """Speech that was heard."""
    characters: int = 0
    """Text that was spoken."""
    pages: int = 0
    """Pages that were read."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may use up, before anybody has counted it."""

    input_tokens: int
    """More than the prompt should have."""
    least_input_tokens: int
    """Fewer than it can have."""
    output_tokens: int | None
    """The most that the client lets the model write, over all answers; None when it did not say."""
    answers: int = 1
    """How many answers the client wants."""
    pages: int = 0
    """How many pages are to be read."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    at: float
    """Unix seconds at which the request arrived."""
    key_id: str
    user_id: int
    operation: Operation
    model: str
    """The model as the client named it."""
    provider: str | None
    """The provider that was tried last; None when no target was reached."""
    target: str | None
    """The model's name at that provider."""
    stream: bool
    status: int
    """The HTTP status that the client saw, 499 when it left first."""
    error: str | None
    """Code of the error, None on success."""
    attempts: int
    usage: Usage | None
    """None when nothing was counted."""
    estimated: bool
    """The usage is our own count: the upstream reported none."""
    cost: int | None
    """Micro units (10^-6) of the ledger's currency; None when the price is not known."""
    duration: float
    """Seconds from the request's head to the last byte."""
    first_byte: float | None
    """Seconds from the request's head to the first byte of the answer."""
    upstream_key: int | None = None
    """The place of the provider's key that the answer came for; None without an answer or without a key."""
