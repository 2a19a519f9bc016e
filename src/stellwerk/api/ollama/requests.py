"""Reads Ollama's request bodies: checks what we rely on, and keeps the rest for upstreams that are Ollamas."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from stellwerk.api._bodies import decode_body
from stellwerk.core.errors import BadRequest

_Count = Annotated[int, Meta(ge=-(10**9), le=10**9)] | Annotated[float, Meta(ge=-1e9, le=1e9)]
"""Ollama reads 100.0 and 100.5 as 100."""
_EMPTY_OBJECT = msgspec.Raw(b"{}")
_OWN_FIELDS = ("session_id", "timeout", "retries")
_TRUE, _FALSE = msgspec.Raw(b"true"), msgspec.Raw(b"false")
_NULL = b"null"
_THINK = frozenset({"low", "medium", "high", "max"})


class CalledFunction(msgspec.Struct):
    name: str
    arguments: msgspec.Raw = _EMPTY_OBJECT
    """An object, unlike OpenAI's string."""


class CalledTool(msgspec.Struct):
    function: CalledFunction
    id: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    """What the assistant thought before it answered or called a tool."""
    images: Annotated[list[str], Meta(max_length=256)] | None = None
    """Base64 without a `data:` before it."""
    tool_calls: Annotated[list[CalledTool], Meta(max_length=1024)] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    function: Function
    type: str = "function"


class Options(msgspec.Struct):
    """Of all options those that other wires have too."""

    num_predict: _Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | Annotated[float, Meta(ge=-1e18, le=1e18)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: _Count | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: _Count | None = None


class Body(msgspec.Struct, kw_only=True):
    model: Annotated[str, Meta(max_length=256)] = ""
    keep_alive: float | str | None = None
    options: Options | None = None


class Sampling(Body, kw_only=True):
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def streams(self) -> bool:
        """Unlike elsewhere, who says nothing gets a stream."""
        return self.stream is not False


class ChatBody(Sampling, kw_only=True):
    """POST /api/chat."""

    messages: Annotated[list[Message], Meta(max_length=20_000)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=1024)] | None = None

    @property
    def only_loads(self) -> bool:
        """Nothing is asked: the model is to be loaded, or unloaded."""
        return not self.messages


class GenerateBody(Sampling, kw_only=True):
    """POST /api/generate."""

    prompt: str | None = None
    system: str | None = None
    suffix: str | None = None
    images: Annotated[list[str], Meta(max_length=256)] | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None

    @property
    def only_loads(self) -> bool:
        return not self.prompt


class EmbedBody(Body, kw_only=True):
    """POST /api/embed."""

    input: str | Annotated[list[str], Meta(max_length=20_000)] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class OldEmbedBody(Body, kw_only=True):
    """POST /api/embeddings, which takes one text and has another name for it."""

    prompt: str | None = None


class ShowBody(msgspec.Struct, kw_only=True):
    """POST /api/show."""

    model: Annotated[str, Meta(max_length=256)] = ""
    name: Annotated[str, Meta(max_length=256)] = ""
    """What `model` was called before."""


class PullBody(ShowBody, kw_only=True):
    """POST /api/pull. Whether the registry is to be trusted is not for a client to say."""

    stream: bool | None = None


class CopyBody(msgspec.Struct, kw_only=True):
    """POST /api/copy."""

    source: Annotated[str, Meta(max_length=256)] = ""
    destination: Annotated[str, Meta(max_length=256)] = ""


_Body = TypeVar("_Body")
_Asking = TypeVar("_Asking", bound=Body)
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read(body: bytes, content_type: bytes | None, decoder: "msgspec.json.Decoder[_Body]") -> _Body:
    """The checked body. Raises BadRequest that names the field."""
    if not body.strip():
        raise BadRequest("missing request body", code="json_invalid")
    return decode_body(body, content_type, decoder)


def read_call(
    body: bytes, content_type: bytes | None, decoder: "msgspec.json.Decoder[_Asking]"
) -> tuple[_Asking, dict[str, msgspec.Raw]]:
    """The checked body, and what of it an Ollama upstream gets."""
    checked = read(body, content_type, decoder)
    if not checked.model:
        raise no_model()
    if isinstance(checked, Sampling):
        _check_sampling(checked)
    fields = _decode_object(body)
    for name in _OWN_FIELDS:
        fields.pop(name, None)
    # Ollama drops the oldest messages in silence unless it is told not to.
    if bytes(fields.get("truncate", b"null")) == _NULL:
        fields["truncate"] = _FALSE
    if isinstance(checked, Sampling):
        fields["stream"] = _TRUE if checked.streams else _FALSE
    return checked, fields


def no_model() -> BadRequest:
    return BadRequest("model is required", param="model", code="missing_required_parameter")


def _check_sampling(body: Sampling) -> None:
    if isinstance(body.think, str) and body.think not in _THINK:
        raise BadRequest(
            'invalid think value: it must be "high", "medium", "low", "max", true, or false', param="think"
        )
    if isinstance(body.format, str) and body.format not in ("", "json"):
        raise BadRequest('invalid format: expected "json" or a JSON schema', param="format")
    if body.top_logprobs is not None and not 0 <= body.top_logprobs <= 20:
        raise BadRequest("top_logprobs must be between 0 and 20", param="top_logprobs")


def as_embed_fields(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The fields of POST /api/embeddings as those of POST /api/embed."""
    return {"input" if name == "prompt" else name: value for name, value in fields.items()}
