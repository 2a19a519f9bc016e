"""Where a call may go."""

import msgspec

from stellwerk.core.call import Operation


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Money per token, or per what the field names, in pico units (10^-12) of `currency`.

    Every published price is a whole number of them.
    """

    input: int = 0
    output: int = 0
    cache_read: int | None = None
    cache_write: int | None = None
    request: int = 0
    """For the call itself, whatever it holds."""
    audio_second: int = 0
    character: int = 0
    """For each character that is spoken."""
    page: int = 0
    """For each page that is read."""
    currency: str = "USD"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model of one provider, as the catalogue knows it. None means not known."""

    provider: str
    name: str
    """The name that goes upstream."""
    id: str
    """The name that clients use: `provider/name`, or a name of its own."""
    owned_by: str = "stellwerk"
    created: int = 0
    """Unix seconds; 0 when not known."""
    context_length: int | None = None
    max_output_tokens: int | None = None
    operations: frozenset[Operation] = frozenset({Operation.CHAT, Operation.COMPLETION})
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    parameters: tuple[str, ...] = ()
    """Request fields that the model is known to support."""
    price: Price | None = None
    description: str = ""
    architecture: str | None = None
    """The family that engines know it by: llama, qwen3, bert."""
    parameter_count: int | None = None
    """How many numbers its tensors have."""
    embedding_length: int | None = None
    """How many numbers it has for each token, and in each vector that it makes."""
    quantization: str | None = None
    size_bytes: int | None = None
    local: bool = False
    shortcode: str | None = None
    """A short name that means the same model."""
    temperature: tuple[float, float] | None = None
    """The least and the highest that the model takes."""
    completion_tokens: bool = False
    """It wants `max_completion_tokens` and refuses `max_tokens`."""
    certain: bool = False
    """What it takes is known for sure: it need not be asked for anything else."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One place that can answer: a provider and the model's name there."""

    provider: str
    model: str
    price: Price | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The targets to try, in order; never empty."""

    name: str
    """The canonical name of what was asked for."""
    targets: tuple[Target, ...]
    stands_for: str | None = None
    """Of an alias, the canonical name of the model that it leads to first: limits of that model count for both."""
    note: str | None = None
    """What the client has to know of how the targets were found: that another model stands in for the one it named."""
