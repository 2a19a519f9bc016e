"""Reads OpenAI's request bodies: checks what we and every upstream rely on, and keeps the rest as it came."""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from stellwerk.core.errors import BadRequest, UnsupportedMedia

_Temperature = Annotated[float, Meta(ge=0, le=2)]
_Probability = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=0, le=100_000_000)]
_Choices = Annotated[int, Meta(ge=1, le=128)]
_ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
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


_Body = TypeVar("_Body")
_LONGEST_REASON = 200
_AT = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_body(
    body: bytes, content_type: bytes | None, decoder: "msgspec.json.Decoder[_Body]"
) -> tuple[_Body, dict[str, msgspec.Raw]]:
    """The checked fields, and every field as the client wrote it. Raises BadRequest that names the field."""
    check_content_type(content_type)
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body), _decode_fields(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except UnicodeDecodeError:
        raise BadRequest("The request body is not valid UTF-8.", code="json_invalid") from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply.", code="json_invalid") from None
    except msgspec.DecodeError as error:
        if not body.strip():
            raise BadRequest("The request has no body; a JSON object is expected.", code="json_invalid") from None
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="json_invalid") from None


def check_content_type(content_type: bytes | None) -> None:
    """Raises UnsupportedMedia for types that are surely something else.

    `curl -d` announces a form and means JSON, so a form's type is read as JSON too.
    """
    if content_type is None:
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind in (b"application/json", b"", b"text/plain", b"application/x-www-form-urlencoded") or kind.endswith(
        b"+json"
    ):
        return
    raise UnsupportedMedia("Send the request as JSON, with 'Content-Type: application/json'.")


def _explain(text: str) -> BadRequest:
    at = _AT.search(text)
    path = at["path"].lstrip(".") if at is not None else ""
    what = text[: at.start()] if at is not None else text
    missing = _MISSING.match(what)
    if missing is not None:
        param = f"{path}.{missing['name']}" if path else missing["name"]
        return BadRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if not path:
        return BadRequest(f"The request body must be a JSON object: {what}.", code="invalid_type")
    code = "invalid_type" if what.startswith("Expected `") and ", got `" in what else "invalid_value"
    return BadRequest(f"Invalid value for '{path}': {_shown(what)}.", param=path, code=code)


def _shown(text: str) -> str:
    """What is wrong as the rest of a sentence; it may repeat a value of the client, which may be megabytes."""
    cut = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
    return cut[:1].lower() + cut[1:]
