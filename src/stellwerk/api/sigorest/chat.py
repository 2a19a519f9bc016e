"""POST /v1/chat/completions as sigoREST's clients ask it: any case, a model's own defaults, the memory block first."""

from collections.abc import Callable, Mapping

import msgspec

from stellwerk.api._guard import Request
from stellwerk.api.openai.conversations import Conversations
from stellwerk.api.openai.endpoints import asked_fallbacks, make_call
from stellwerk.api.openai.requests import ChatBody, read_body
from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, NotFound
from stellwerk.core.plan import Model

_USUAL_SECONDS = 180.0
_WIDEST_RANGE = (0.0, 2.0)
_FIELDS = frozenset({"model", "messages", "temperature", "max_tokens", "session_id", "timeout", "retries"})
"""Documented names, which are read in any case."""


class _Body(ChatBody, kw_only=True):
    temperature: float | None = None
    """Any number: it is brought into the model's range."""


_decoder = msgspec.json.Decoder(_Body)
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_number = msgspec.json.Decoder(float | None).decode
_encode = msgspec.json.encode


class Chat:
    """Answers chats with the defaults of the model; `find` knows by every name the models that this listener offers."""

    def __init__(
        self, conversations: Conversations, find: Callable[[str], Model | None], total_seconds: Callable[[], float]
    ) -> None:
        self._conversations = conversations
        self._find = find
        self._total_seconds = total_seconds

    async def answer(self, request: Request) -> None:
        exchange = request.exchange
        body, fields = read_body(fold_names(exchange.body), exchange.headers.get(b"content-type"), _decoder)
        if not body.timeout or body.timeout < 0:
            body.timeout = _USUAL_SECONDS
        model = self._find(body.model)
        if model is None:
            raise NotFound(
                f"The model '{body.model[:100]}' is not offered here. GET /v1/models lists those that are.",
                code="model_not_found",
                param="model",
            )
        for name in asked_fallbacks(body):
            if self._find(name) is None:
                raise BadRequest(
                    f"The model '{name[:100]}' is not offered here.", code="model_not_found", param="fallbacks"
                )
        fields = with_defaults(fields, model)
        call = make_call(request, Operation.CHAT, Wire.OPENAI_CHAT, body, fields, self._total_seconds())
        await self._conversations.run(call, exchange, body.session_id or None)


def fold_names(body: bytes) -> bytes:
    """The body with the documented names in lower case; as it is when it already has them, or is not an object."""
    try:
        fields = _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    folded = {name.lower() if name.lower() in _FIELDS else name: value for name, value in fields.items()}
    return body if folded.keys() == fields.keys() else _encode(folded)


def with_defaults(fields: Mapping[str, msgspec.Raw], model: Model) -> dict[str, msgspec.Raw]:
    """The fields with the temperature within the model's range, its middle when there was none, and with the most
    tokens that the model writes when there was no limit, under the name that the model wants."""
    changed = dict(fields)
    given = _number(fields.get("temperature"))
    own = model.temperature is not None and model.temperature[0] < model.temperature[1]
    least, most = model.temperature if own and model.temperature is not None else _WIDEST_RANGE
    if own or given is not None:
        changed["temperature"] = _raw((least + most) / 2 if given is None else min(max(given, least), most))
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    if limit is None or not _number(limit):
        limit = None if model.max_output_tokens is None else _raw(model.max_output_tokens)
    for name in ("max_tokens", "max_completion_tokens"):
        changed.pop(name, None)
    if limit is not None:
        changed["max_completion_tokens" if model.completion_tokens else "max_tokens"] = limit
    return changed


def _number(raw: msgspec.Raw | None) -> float | None:
    return None if raw is None else _decode_number(raw)


def _raw(value: float) -> msgspec.Raw:
    return msgspec.Raw(_encode(int(value) if value == int(value) else value))
