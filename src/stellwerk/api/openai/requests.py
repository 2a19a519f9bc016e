"""Reads OpenAI's request bodies: checks what we and every upstream rely on, and keeps the rest as it came."""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from stellwerk.api._bodies import decode_body
from stellwerk.core.errors import BadRequest

_Temperature = Annotated[float, Meta(ge=0, le=2)]
_Probability = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=0, le=100_000_000)]
_Choices = Annotated[int, Meta(ge=1, le=128)]
_ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
_Fallbacks = Annotated[list[_ModelName], Meta(max_length=8)]
_Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


class Part(msgspec.Struct):
    type: str


class FunctionCall(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None


class Message(msgspec.Struct):
    role: _Role
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class FunctionDefinition(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    type: str
    function: FunctionDefinition | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Body(msgspec.Struct, kw_only=True):
    """What the line must know of every body."""

    model: _ModelName
    timeout: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None
    """Seconds for the whole call; a field of ours, as the next one, which no upstream sees."""
    retries: Annotated[int, Meta(ge=-(10**9), le=10**9)] | None = None
    """The most attempts."""
    session_id: Annotated[str, Meta(max_length=256)] | None = None
    """What the call belongs to, of ours too: a chat with one is remembered."""
    fallbacks: _Fallbacks | None = None
    """Models to try when the one that is named fails."""
    models: _Fallbacks | None = None
    """The same under the name that OpenRouter has for it. It stays here: what goes upstream is what was paid for."""
    prompt_cache_key: str | None = None

    @property
    def streams(self) -> bool:
        return False

    @property
    def wants_usage(self) -> bool:
        """Whether the usage chunk was asked for."""
        return False


class _Sampling(Body, kw_only=True):
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: _Temperature | None = None
    top_p: _Probability | None = None
    n: _Choices | None = None
    max_tokens: _Tokens | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    seed: int | None = None
    user: str | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None

    @property
    def streams(self) -> bool:
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatBody(_Sampling, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=20_000)]
    max_completion_tokens: _Tokens | None = None
    tools: Annotated[list[Tool], Meta(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class CompletionBody(_Sampling, kw_only=True):
    """POST /v1/completions."""

    prompt: str | Annotated[list[Any], Meta(min_length=1, max_length=20_000)]
    best_of: _Choices | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class EmbeddingBody(Body, kw_only=True):
    """POST /v1/embeddings."""

    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Any], Meta(min_length=1, max_length=20_000)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    user: str | None = None


class RerankDocument(msgspec.Struct):
    text: str


class RerankBody(Body, kw_only=True):
    """POST /v1/rerank."""

    query: Annotated[str, Meta(min_length=1, max_length=32_768)]
    """A reranker reads it once with each document: a long one is a thousand long ones."""
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1, max_length=1_000)]
    top_n: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    return_documents: bool | None = None


_Body = TypeVar("_Body")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_BODIES = (ChatBody, CompletionBody, EmbeddingBody, RerankBody)
_OURS = frozenset().union(*(kind.__struct_fields__ for kind in _BODIES))
"""Fields that the gateway itself reads: nobody may mean another value by another spelling."""


def read_body(
    body: bytes, content_type: bytes | None, decoder: "msgspec.json.Decoder[_Body]"
) -> tuple[_Body, dict[str, msgspec.Raw]]:
    """The checked fields, and every field as the client wrote it. Raises BadRequest that names the field."""
    decoded, fields = decode_body(body, content_type, decoder), _decode_fields(body)
    for name in fields:
        # Upstreams written in Go read names in any case and the last one counts: `MODEL` would be another model than
        # the one that was checked and is paid for. To them a long s is an s, and the
        # sign for kelvin a k.
        if (folded := name.casefold()) != name and folded in _OURS:
            raise BadRequest(f"Write '{name[:100]}' in lower case.", param=name[:100], code="invalid_parameter_name")
    return decoded, fields
