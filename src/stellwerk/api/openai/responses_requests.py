"""Requests of OpenAI's Responses API, said as chat completions."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stellwerk.api.openai.responses_tools import MOST_TOOLS, Tool, cannot, chat_tool_choice, chat_tools, flat_name
from stellwerk.core.errors import BadRequest

_Text = Annotated[str, Meta(max_length=64)]
_UNSUPPORTED = {
    "previous_response_id": "Responses are not chained here: send the whole conversation in 'input'.",
    "conversation": "Conversations are not kept here: send the whole of it in 'input'.",
    "prompt": "Stored prompts are not kept here: send 'instructions' and 'input'.",
}
_SAME = ("temperature", "top_p", "parallel_tool_calls", "user", "service_tier", "prompt_cache_key", "safety_identifier")
"""Fields that a chat completion has under the same name."""
_OURS = ("timeout", "retries", "fallbacks", "models")
_PARTS = {"input_text": "text", "output_text": "text", "text": "text"}
_MOST_ITEMS = 20_000


class TextFormat(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: _Text | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponsesBody(msgspec.Struct, kw_only=True):
    """POST /v1/responses."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=_MOST_ITEMS)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MOST_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: (
        Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
        | None
    ) = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    timeout: Any = None
    retries: Any = None
    fallbacks: Any = None
    models: Any = None


def to_chat(body: ResponsesBody) -> dict[str, Any]:
    """The body of the chat completion. Raises BadRequest naming what cannot be said in one."""
    for name, reason in _UNSUPPORTED.items():
        if getattr(body, name) is not None:
            raise BadRequest(reason, param=name, code="unsupported_parameter")
    chat: dict[str, Any] = {"model": body.model, "messages": _messages(body)}
    for name in (*_SAME, *_OURS):
        if (value := getattr(body, name)) is not None:
            chat[name] = value
    if body.max_output_tokens is not None:
        chat["max_completion_tokens"] = body.max_output_tokens
    if body.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.top_logprobs:
        chat |= {"logprobs": True, "top_logprobs": body.top_logprobs}
    if body.reasoning is not None and body.reasoning.effort is not None:
        chat["reasoning_effort"] = body.reasoning.effort
    if body.tools:
        chat["tools"] = chat_tools(body.tools)
        if body.tool_choice is not None:
            chat["tool_choice"] = chat_tool_choice(body.tool_choice)
    if body.text is not None:
        chat |= _text_options(body.text)
    return chat


def _messages(body: ResponsesBody) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        messages.append({"role": "user", "content": body.input})
        return messages
    for index, item in enumerate(body.input):
        _add_item(messages, item, f"input[{index}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: dict[str, Any], at: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append(_message(item, at))
    elif kind == "function_call":
        name, namespace = _field(item, "name", at), item.get("namespace")
        call = {
            "id": _field(item, "call_id", at),
            "type": "function",
            "function": {
                "name": flat_name(namespace, name) if isinstance(namespace, str) else name,
                "arguments": _field(item, "arguments", at),
            },
        }
        last = messages[-1] if messages else {}
        if last.get("role") == "assistant":
            # Calls of one turn stand in one message.
            last.setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        output = item.get("output")
        content = output if isinstance(output, str) else _parts(output, f"{at}.output")
        messages.append({"role": "tool", "tool_call_id": _field(item, "call_id", at), "content": content})
    elif kind != "reasoning":
        # What a model has thought is not sent back to it.
        raise cannot(f"{at}.type", f"items of the type '{str(kind)[:50]}'")


def _message(item: dict[str, Any], at: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise BadRequest(f"'{at}.role' is user, assistant, system or developer.", param=f"{at}.role")
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = _parts(content, f"{at}.content")
    if role == "assistant":
        return {"role": role, "content": "".join(part.get("text", "") for part in parts)}
    return {"role": role, "content": parts}


def _parts(content: Any, at: str) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        raise BadRequest(f"'{at}' is a text or a list of parts.", param=at, code="invalid_type")
    return [_part(part, f"{at}[{index}]") for index, part in enumerate(content)]


def _part(part: Any, at: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise BadRequest(f"'{at}' is an object.", param=at, code="invalid_type")
    kind = part.get("type")
    if kind in _PARTS:
        return {"type": "text", "text": _field(part, "text", at)}
    if kind == "refusal":
        return {"type": "text", "text": _field(part, "refusal", at)}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image = {"url": part["image_url"]}
        if isinstance(part.get("detail"), str):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        file = {name: part[name] for name in ("file_data", "filename") if isinstance(part.get(name), str)}
        return {"type": "file", "file": file}
    raise cannot(f"{at}.type", f"parts like this one of the type '{str(kind)[:50]}'")


def _field(item: dict[str, Any], name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"'{at}.{name}' is a text.", param=f"{at}.{name}", code="invalid_type")
    return value


def _text_options(text: TextOptions) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if text.verbosity is not None:
        options["verbosity"] = text.verbosity
    wanted = text.format
    if wanted is None or wanted.type == "text":
        return options
    if wanted.type == "json_object":
        return {**options, "response_format": {"type": "json_object"}}
    if not wanted.name or wanted.schema is None:
        raise BadRequest("A format json_schema has a name and a schema.", param="text.format")
    fields = {
        "name": wanted.name,
        "schema": wanted.schema,
        "strict": wanted.strict,
        "description": wanted.description,
    }
    schema = {name: value for name, value in fields.items() if value is not None}
    return {**options, "response_format": {"type": "json_schema", "json_schema": schema}}
