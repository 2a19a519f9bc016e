"""What an engine must not be asked: it trusts a request more than a server may that strangers write to.

llama.cpp and vLLM fetch every address that a message holds, also where OpenAI's API has base64 only, and so would
reach whatever this machine reaches. Images that are named by their address have been put into the request before it
comes here; whatever still leads somewhere is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Model
from stellwerk.providers._schema_bounds import check_schemas

_ENGINE_ONLY = frozenset(
    {
        "cache_salt",
        "chat_template",
        "chat_template_file",
        "grammar",
        "grammar_lazy",
        "grammar_triggers",
        "guided_choice",
        "guided_decoding_backend",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "guided_whitespace_pattern",
        "id_slot",
        "kv_transfer_params",
        "lora",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "n_cmpl",
        "n_discard",
        "n_keep",
        "n_predict",
        "n_probs",
        "preserved_tokens",
        "prompt_embeds",
        "request_id",
        "slot_id",
        "structured_outputs",
        "t_max_predict_ms",
        "vllm_xargs",
    }
)
"""Fields that reach into the engine itself: its templates, its slots, its memory, other names for limits, and grammars,
of which a short one keeps an engine busy for ever and a deep one ends it."""
_PASSED_OVER = {
    "functions": "A local model takes tools in 'tools', not in 'functions'.",
    "web_search_options": "A local model does not search the web.",
}
"""Fields that an engine takes and forgets: the client would wait in vain for what they ask for."""
_SENSES = {"image_url": "image", "input_audio": "audio"}
"""Type of a message part and the modality that it needs."""
_PLAIN = frozenset({"text", "refusal"})
_NOT_FROM_THE_NETWORK = (
    "A local model takes nothing from the network but images, in parts of the type image_url with an https:// or "
    "http:// URL; send anything else as data: URLs (base64)."
)
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def check_fields(fields: Mapping[str, msgspec.Raw]) -> frozenset[str]:
    """The modalities that the messages need, `image` and `audio`. Raises BadRequest with the field's name."""
    for name in _ENGINE_ONLY.intersection(fields):
        raise BadRequest(f"'{name}' cannot be set for a local model.", param=name, code="unsupported_parameter")
    for name in ("n", "best_of"):
        if bytes(fields.get(name, b"1")) not in (b"1", b"null"):
            # The engine would answer more than once and count one answer.
            raise BadRequest(
                f"A local model answers once in a request; leave '{name}' out and ask again.",
                param=name,
                code="unsupported_parameter",
            )
    _check_passed_over(fields)
    if bytes(fields.get("temperature", b"")).startswith(b"-"):
        raise BadRequest("'temperature' must not be below zero.", param="temperature")
    if is_batch(bytes(fields.get("prompt", b""))):
        # The engine answers each of them and counts the first.
        raise BadRequest("A local model takes one prompt in a request.", param="prompt", code="unsupported_parameter")
    for name in ("prompt", "input"):
        if holds_object(bytes(fields.get(name, b""))):
            raise BadRequest(
                f"A local model takes texts and tokens in '{name}', no objects.", param=name, code="unsupported_value"
            )
    check_schemas(fields)
    return _check_messages(bytes(fields.get("messages", b"")))


def _check_passed_over(fields: Mapping[str, msgspec.Raw]) -> None:
    for name, reason in _PASSED_OVER.items():
        if bytes(fields.get(name, b"null")) not in (b"null", b"[]"):
            raise BadRequest(reason, param=name, code="unsupported_parameter")
    if b'"audio"' in bytes(fields.get("modalities", b"")):
        raise BadRequest(
            "A local model answers chats in text, not in sound.", param="modalities", code="unsupported_value"
        )


def is_batch(prompt: bytes) -> bool:
    """Whether the field holds several prompts: a list of texts or of lists, where numbers alone are one prompt."""
    if not prompt.startswith(b"["):
        return False
    parts = _read_list(prompt)
    return len(parts) > 1 and any(bytes(part)[:1] not in b"-0123456789" for part in parts)


def holds_object(texts: bytes) -> bool:
    """Whether an object stands among texts and tokens: engines take images that way."""
    if texts.startswith(b"{"):
        return True
    if not texts.startswith(b"[") or b"{" not in texts:
        return False
    parts = [bytes(part) for part in _read_list(texts)]
    return any(part.startswith(b"{") or (part.startswith(b"[") and b"{" in part) for part in parts)


def check_links(fields: Mapping[str, msgspec.Raw]) -> None:
    """Raises BadRequest for an address in a message that a server of the operator's own would fetch for a stranger."""
    messages = bytes(fields.get("messages", b""))
    # A backslash may be an escape that hides the word.
    if b"_url" not in messages and b"input_audio" not in messages and b"\\u" not in messages:
        return
    for place, part in _parts(messages):
        # No letter of base64, but one of every address.
        if _leads_elsewhere(part) or ":" in (_sound(part) or ""):
            raise BadRequest(_NOT_FROM_THE_NETWORK, param=place, code="unsupported_value")


def _check_messages(messages: bytes) -> frozenset[str]:
    # Only what has a type is looked at closely; a backslash may be an escape that hides the word.
    if b'"type"' not in messages and b"_url" not in messages and b"\\u" not in messages:
        return frozenset()
    needed: set[str] = set()
    for place, part in _parts(messages):
        fault = _fault(part)
        if fault is not None:
            raise BadRequest(fault, param=place, code="unsupported_value")
        if part["type"] in _SENSES:
            needed.add(_SENSES[part["type"]])
    return frozenset(needed)


def _parts(messages: bytes) -> Iterator[tuple[str, Any]]:
    """The parts of all messages, each with the name of its place. Raises BadRequest."""
    try:
        read = msgspec.json.decode(messages)
    except (ValueError, RecursionError):
        raise BadRequest("'messages' holds text that cannot be read.", param="messages") from None
    for number, message in enumerate(read if isinstance(read, list) else ()):
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            yield f"messages[{number}].content", part


def _leads_elsewhere(part: object) -> bool:
    return any(not link.startswith("data:") for link in _links(part))


def _fault(part: object) -> str | None:
    """What is wrong with one part of a message."""
    if _leads_elsewhere(part):
        return _NOT_FROM_THE_NETWORK
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or (kind not in _PLAIN and kind not in _SENSES):
        return "A local model takes parts of the types text, image_url and input_audio."
    if kind == "image_url" and not any(True for _ in _links(part)):
        return "'image_url' has no URL."
    if kind == "input_audio":
        sound = _sound(part)
        if not sound or ":" in sound:
            return "'input_audio' must have its sound in 'data', as base64."
    return None


def _sound(part: object) -> str | None:
    sound = part.get("input_audio") if isinstance(part, dict) else None
    data = sound.get("data") if isinstance(sound, dict) else None
    return data if isinstance(data, str) else None


def _links(part: object) -> Iterator[str]:
    """Addresses in one part of a message: `image_url` today, `video_url` and the like in other versions."""
    for name, link in part.items() if isinstance(part, dict) else ():
        if name.endswith("_url"):
            url = link.get("url") if isinstance(link, dict) else link
            if isinstance(url, str):
                yield url


def wants_tools(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the model is to be made to call a tool."""
    return bytes(fields.get("tool_choice", b"null")) not in (b"null", b'"auto"', b'"none"')


def check_abilities(fields: Mapping[str, msgspec.Raw], needed: frozenset[str], model: Model) -> None:
    """Refuses what the model cannot do, where the engine would fail or pass it over in silence. Raises BadRequest.

    `needed` is what `check_fields` found.
    """
    if wants_tools(fields) and "tools" not in model.parameters:
        raise BadRequest(
            f"The model '{model.id}' was not trained to call tools, so it cannot be made to.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    for modality in sorted(needed.difference(model.input_modalities)):
        raise BadRequest(
            f"The model '{model.id}' takes no {modality} input.", param="messages", code="unsupported_value"
        )
