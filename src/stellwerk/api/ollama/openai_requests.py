"""Ollama's requests in OpenAI's words, for models whose provider is no Ollama."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stellwerk.api.ollama.requests import CalledTool, ChatBody, GenerateBody, Message, Options, Sampling
from stellwerk.core.errors import BadRequest

_encode = msgspec.json.encode
_ROLES = frozenset({"system", "user", "assistant", "tool"})
_SHARED_OPTIONS = ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")
_LOCAL_OPTIONS = {
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typ_p",
    "repeat_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
}
"""Ollama's names and llama.cpp's."""
_WHOLE = frozenset({"top_k", "repeat_last_n"})
_EFFORTS = {True: "medium", "low": "low", "medium": "medium", "high": "high", "max": "high"}
_MAGIC = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp"))
_HEAD = 24
"""Base64 characters that hold every image format's mark."""


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the model that is asked."""

    thinks: bool = False
    """It takes `reasoning_effort`."""
    engine: bool = False
    """It runs in an engine of ours and nowhere else, which takes more options than OpenAI has."""
    context_length: int | None = None
    """Tokens; None when not known."""


def chat_fields(body: Sampling, abilities: Abilities) -> Mapping[str, msgspec.Raw]:
    """The body of a chat completion. Raises BadRequest for what it cannot express."""
    try:
        return {name: msgspec.Raw(_encode(value)) for name, value in _chat_values(body, abilities).items()}
    except RecursionError:
        raise BadRequest("the request is nested too deeply", code="json_invalid") from None


def _chat_values(body: Sampling, abilities: Abilities) -> dict[str, Any]:
    if body.logprobs or body.top_logprobs:
        raise _unsayable("logprobs", "is not possible with this model")
    fields: dict[str, Any] = {"model": body.model}
    if isinstance(body, ChatBody):
        fields["messages"] = _Conversation(thoughts=abilities.engine).translate(body.messages or ())
        if body.tools:
            fields["tools"] = [{"type": tool.type, "function": _present(tool.function)} for tool in body.tools]
    elif isinstance(body, GenerateBody):
        fields["messages"] = _prompt_messages(body)
    fields["stream"] = body.streams
    if body.format:
        fields["response_format"] = _response_format(body.format)
    if body.options is not None:
        fields.update(_options(body.options, abilities))
    fields.update(_thinking(body, abilities))
    return fields


def embedding_fields(fields: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
    """The body of an embeddings request, from one of POST /api/embed."""
    kept = {name: fields[name] for name in ("model", "input", "dimensions") if name in fields}
    if bytes(kept.get("dimensions", b"null")) == b"null":
        kept.pop("dimensions", None)
    return {**kept, "encoding_format": msgspec.Raw(b'"float"')}


def _unsayable(name: str, why: str) -> BadRequest:
    return BadRequest(f"'{name}' {why}", param=name, code="unsupported_parameter")


def _present(part: msgspec.Struct) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(part).items() if value is not None}


def _prompt_messages(body: GenerateBody) -> list[dict[str, Any]]:
    for name in ("raw", "template", "context"):
        if getattr(body, name):
            raise _unsayable(name, "is not possible with this model, which takes chats only")
    if body.suffix:
        raise BadRequest(f'"{body.model}" does not support insert', param="suffix", code="unsupported_parameter")
    messages: list[dict[str, Any]] = [{"role": "system", "content": body.system}] if body.system else []
    content = _content(body.prompt or "", body.images, "images")
    return [*messages, {"role": "user", "content": content}]


class _Conversation:
    """Turns messages one by one and remembers which tool calls are not answered yet."""

    def __init__(self, *, thoughts: bool) -> None:
        """`thoughts` are kept where the template of the model decides about them; vendors know no such field."""
        self._thoughts = thoughts
        self._open: list[tuple[str, str]] = []
        """Id and name of each call that waits for its answer."""
        self._made = 0

    def translate(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        return [self._message(message, f"messages[{number}]") for number, message in enumerate(messages)]

    def _message(self, message: Message, place: str) -> dict[str, Any]:
        role = message.role.lower()
        if role not in _ROLES:
            raise BadRequest(
                "invalid role: it must be one of 'system', 'user', 'assistant' or 'tool'", param=f"{place}.role"
            )
        text = message.content or ""
        if message.images and role != "user":
            raise BadRequest(
                "this model takes images only in messages of the role 'user'",
                param=f"{place}.images",
                code="unsupported_value",
            )
        if role == "tool":
            return {"role": role, "tool_call_id": self._answered(message, place), "content": text}
        if role != "assistant":
            return {"role": role, "content": _content(text, message.images, f"{place}.images")}
        said: dict[str, Any] = {"role": role, "content": text}
        if message.tool_calls:
            said["content"] = text or None
            said["tool_calls"] = [
                self._call(call, f"{place}.tool_calls[{n}]") for n, call in enumerate(message.tool_calls)
            ]
        if self._thoughts and message.thinking:
            said["reasoning_content"] = message.thinking
        return said

    def _call(self, call: CalledTool, place: str) -> dict[str, Any]:
        arguments = bytes(call.function.arguments)
        if arguments == b"null":
            arguments = b"{}"
        if not arguments.startswith(b"{"):
            raise BadRequest(f"'{place}.function.arguments' must be an object", param=f"{place}.function.arguments")
        identity = call.id
        if not identity:
            # Counted over the whole conversation, so that the same conversation reads the same every time.
            self._made += 1
            identity = f"call_{self._made}"
        self._open.append((identity, call.function.name))
        function = {"name": call.function.name, "arguments": msgspec.json.format(arguments, indent=-1).decode()}
        return {"id": identity, "type": "function", "function": function}

    def _answered(self, message: Message, place: str) -> str:
        """The id of the call that a tool's message answers: by id, else by name, else the one that waits longest."""
        wanted = (
            lambda identity, _name: identity == message.tool_call_id,
            lambda _identity, name: name == message.tool_name,
            lambda _identity, _name: True,
        )
        for fits in wanted:
            for index, (identity, name) in enumerate(self._open):
                if fits(identity, name):
                    del self._open[index]
                    return identity
        raise BadRequest(f"'{place}' answers no tool call", param=place, code="invalid_value")


def _content(text: str, images: Sequence[str] | None, place: str) -> str | list[dict[str, Any]]:
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for number, image in enumerate(images):
        parts.append({"type": "image_url", "image_url": {"url": _data_url(image, f"{place}[{number}]")}})
    return parts


def _data_url(image: str, place: str) -> str:
    # Ollama skips the line ends that many encoders put in; others do not.
    image = image.replace("\n", "").replace("\r", "")
    if image.startswith("data:image/"):
        return image
    try:
        head = base64.b64decode(image[:_HEAD].encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BadRequest(f"'{place}' is not Base64", param=place) from None
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), None)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        kind = "webp"
    if kind is None:
        raise BadRequest(f"'{place}' is no image of a known kind", param=place)
    return f"data:image/{kind};base64,{image}"


def _response_format(wanted: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(wanted, str):
        return {"type": "json_object"}
    schema, closed = _closed(wanted)
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": closed, "schema": schema}}


def _closed(schema: Any) -> tuple[Any, bool]:
    """The schema with every object's properties required and no others allowed, as strict vendors want it.

    What fits it fits the original too. False beside it: some object takes names that the schema does not list, so
    it has to be asked for without the vendor's guarantee.
    """
    if isinstance(schema, list):
        parts = [_closed(part) for part in schema]
        return [part for part, _ in parts], all(closed for _, closed in parts)
    if not isinstance(schema, dict):
        return schema, True
    result: dict[str, Any] = {}
    closed = True
    for name, value in schema.items():
        if name in ("properties", "$defs", "definitions") and isinstance(value, dict):
            inner = {key: _closed(part) for key, part in value.items()}
            result[name] = {key: part for key, (part, _) in inner.items()}
            closed = closed and all(fits for _, fits in inner.values())
        elif name in ("items", "anyOf", "allOf", "oneOf", "prefixItems"):
            result[name], fits = _closed(value)
            closed = closed and fits
        else:
            result[name] = value
    if isinstance(result.get("properties"), dict):
        if result.get("additionalProperties"):
            return result, False
        result["required"] = list(result["properties"])
        result["additionalProperties"] = False
    elif "object" in (kind if isinstance(kind := result.get("type"), list) else [kind]):
        closed = False
    return result, closed


def _options(options: Options, abilities: Abilities) -> dict[str, Any]:
    fields = {name: value for name in _SHARED_OPTIONS if (value := getattr(options, name)) is not None}
    if options.seed is not None:
        fields["seed"] = int(options.seed)
        if fields["seed"] < 0:
            del fields["seed"]
    if options.num_predict is not None and options.num_predict >= 1:
        # Below 0 stands for as much as there is room for.
        fields["max_tokens"] = int(options.num_predict)
    if abilities.engine:
        for name, known_as in _LOCAL_OPTIONS.items():
            if (value := getattr(options, name)) is not None:
                fields[known_as] = int(value) if name in _WHOLE else value
        if fields.get("repeat_last_n", 0) < 0:
            # It stands for the whole context, in a word that our engines do not know.
            del fields["repeat_last_n"]
            if abilities.context_length is not None:
                fields["repeat_last_n"] = abilities.context_length
    return fields


def _thinking(body: Sampling, abilities: Abilities) -> dict[str, Any]:
    """Nothing for models that are not known to think: a wish that cannot be met is no reason to refuse the call."""
    think = body.think
    if think is None:
        return {}
    if abilities.engine:
        return {"chat_template_kwargs": {"enable_thinking": think is not False}}
    return {"reasoning_effort": _EFFORTS[think]} if abilities.thinks and think is not False else {}
