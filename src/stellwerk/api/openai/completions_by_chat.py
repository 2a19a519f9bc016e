"""Text completions for vendors that only chat: the prompt becomes a message, the answer becomes text."""

import time
from collections.abc import Mapping

import msgspec

from stellwerk.core.call import Call
from stellwerk.core.errors import BadRequest
from stellwerk.core.events import Event, Finished, Text, Used
from stellwerk.core.outcome import Usage
from stellwerk.providers.openai_usage import render_usage

_UNSAYABLE = ("best_of", "echo", "logprobs", "suffix")
_encode = msgspec.json.Encoder().encode


def chat_fields(fields: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
    """The request as a chat request. Raises BadRequest for what a chat cannot express."""
    for name in _UNSAYABLE:
        value = bytes(fields.get(name, b"null"))
        if value not in (b"null", b"false", b"0", b"1" if name == "best_of" else b"null"):
            raise BadRequest(
                f"'{name}' is not possible with this model, whose provider only offers chat completions.",
                param=name,
                code="unsupported_parameter",
            )
    prompt = msgspec.json.decode(fields["prompt"])
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise BadRequest(
            "This model's provider only offers chat completions: send one prompt as a string.",
            param="prompt",
            code="unsupported_value",
        )
    kept = {name: value for name, value in fields.items() if name != "prompt" and name not in _UNSAYABLE}
    kept["messages"] = msgspec.Raw(_encode([{"role": "user", "content": prompt}]))
    return kept


class CompletionRenderer:
    """Collects events into a text completion, and says what a streaming client gets for each of them."""

    def __init__(self, call: Call, answer_id: str, shown: str | None = None) -> None:
        """`shown` is the model's name for the client where it is not that of the call."""
        self._call = call
        model = call.model if shown is None else shown
        self._head = {"id": answer_id, "object": "text_completion", "created": int(time.time()), "model": model}
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}
        self._usage: Usage | None = None

    def take(self, event: Event) -> bytes | None:
        """One `data:` event for the client; None when there is nothing to send."""
        if isinstance(event, Text):
            self._texts.setdefault(event.index, []).append(event.text)
            return self._chunk(event.index, event.text, None)
        if isinstance(event, Finished):
            self._texts.setdefault(event.index, [])
            self._reasons[event.index] = event.reason
            return self._chunk(event.index, "", event.reason)
        if isinstance(event, Used):
            self._usage = event.usage
        return None

    def _chunk(self, index: int, text: str, reason: str | None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
        body = {**self._head, "choices": [choice]}
        if self._call.wants_usage:
            body["usage"] = None
        return b"data: " + _encode(body) + b"\n\n"

    def last(self) -> bytes:
        """The usage event, for a client that asked for it."""
        if not self._call.wants_usage or self._usage is None:
            return b""
        return b"data: " + _encode({**self._head, "choices": [], "usage": render_usage(self._usage)}) + b"\n\n"

    def whole(self) -> bytes:
        choices = [
            {
                "index": index,
                "text": "".join(parts),
                "logprobs": None,
                "finish_reason": self._reasons.get(index, "stop"),
            }
            for index, parts in sorted(self._texts.items())
        ]
        body = {**self._head, "choices": choices}
        if self._usage is not None:
            body["usage"] = render_usage(self._usage)
        return _encode(body)
