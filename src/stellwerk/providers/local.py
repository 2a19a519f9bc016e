"""Models that we run ourselves: an engine slot is an upstream on loopback, loaded when it is needed."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, GatewayError
from stellwerk.core.events import Event
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import EngineAddress, EngineLease, Engines, UpstreamAnswer
from stellwerk.core.secrets import Secret
from stellwerk.http.pool import Origin, Pool
from stellwerk.http.upstream import Answer, ConnectionDied
from stellwerk.providers._openai_events import read_events
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings

_ENGINE_ONLY = frozenset(
    {
        "chat_template",
        "chat_template_file",
        "id_slot",
        "lora",
        "n_cmpl",
        "n_discard",
        "n_keep",
        "slot_id",
        "t_max_predict_ms",
    }
)
"""Fields that reach into the engine itself: its templates, its slots, its memory."""
_MEDIA = {"image": b'"image_url"', "audio": b'"input_audio"'}
"""Modality and the type of the message part that needs it."""
_ATTEMPTS = 2
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Local:
    """Fills the port `Provider` for the engines of this process."""

    name = "local"

    def __init__(self, engines: Engines, open_pool: Callable[[Origin], Pool], clock: Clock) -> None:
        self._engines = engines
        self._open_pool = open_pool
        self._clock = clock
        self._speakers: dict[int, tuple[EngineAddress, OpenAICompatible]] = {}

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:  # noqa: ARG002  # the port has it
        return {
            Operation.CHAT: Wire.OPENAI_CHAT,
            Operation.COMPLETION: Wire.OPENAI_COMPLETION,
            Operation.EMBEDDING: Wire.OPENAI_EMBEDDING,
        }.get(operation)

    async def send(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> UpstreamAnswer:
        """A process that died since the last call is noticed here: then its successor gets the request."""
        check_fields(fields)
        if needs_abilities(fields):
            model = next((known for known in self._engines.models() if known.name == target.model), None)
            if model is not None:
                check_abilities(fields, model)
        attempt = 1
        while True:
            lease = await self._engines.acquire(target.model, deadline=call.deadline)
            try:
                answer = await self._speaker(lease.address).send(call, target, wire, fields)
            except GatewayError as error:
                died = isinstance(error, ConnectionDied) or error.code == "upstream_unreachable"
                if died:
                    lease.doubt()
                lease.release()
                # One that answers, however badly, has had its chance: its work is not done twice.
                if attempt == _ATTEMPTS or not died:
                    raise
                attempt += 1
            except BaseException:
                lease.release()
                raise
            else:
                return _hold(answer, lease)

    def _speaker(self, address: EngineAddress) -> OpenAICompatible:
        known = self._speakers.get(address.port)
        if known is not None and known[0] == address:
            return known[1]
        origin = Origin(scheme="http", host=address.host, port=address.port)
        settings = ProviderSettings(
            name=self.name, base_url=f"http://{origin.authority}/v1", keys=(Secret(address.key),), local=True
        )
        speaker = OpenAICompatible(settings, self._open_pool(origin), self._clock)
        self._speakers[address.port] = (address, speaker)
        return speaker

    def events(self, answer: UpstreamAnswer, wire: Wire, *, stream: bool) -> AsyncIterator[Event]:
        return read_events(answer, wire, stream=stream)

    async def models(self) -> Sequence[Model]:
        return self._engines.models()


def _hold(answer: UpstreamAnswer, lease: EngineLease) -> UpstreamAnswer:
    """Keeps the model loaded until its answer is complete or given up."""
    if not isinstance(answer, Answer):
        raise TypeError("an engine is reached through the connection pool")
    answer.when_closed(lease.release)
    return answer


def check_fields(fields: Mapping[str, msgspec.Raw]) -> None:
    """Refuses what an engine must not be asked by a client. Raises BadRequest with the field's name.

    An engine fetches image addresses by itself and would reach whatever this machine reaches.
    """
    if is_batch(bytes(fields.get("prompt", b""))):
        # The engine answers each of them and counts the first.
        raise BadRequest("A local model takes one prompt in a request.", param="prompt", code="unsupported_parameter")
    for name in ("n", "best_of"):
        if bytes(fields.get(name, b"1")) not in (b"1", b"null"):
            # The engine would answer more than once and count one answer.
            raise BadRequest(
                f"A local model answers once in a request; leave '{name}' out and ask again.",
                param=name,
                code="unsupported_parameter",
            )
    for name in _ENGINE_ONLY.intersection(fields):
        raise BadRequest(f"'{name}' cannot be set for a local model.", param=name, code="unsupported_parameter")
    if "dimensions" in fields and bytes(fields["dimensions"]) != b"null":
        raise BadRequest(
            "Local embedding models have a fixed number of dimensions; leave 'dimensions' out.",
            param="dimensions",
            code="unsupported_parameter",
        )
    messages = fields.get("messages")
    # A backslash may be an escape that hides the word.
    if messages is not None and (b"_url" in bytes(messages) or b"\\u" in bytes(messages)):
        try:
            _check_links(msgspec.json.decode(messages))
        except (ValueError, RecursionError):
            raise BadRequest("'messages' holds text that cannot be read.", param="messages") from None


def is_batch(prompt: bytes) -> bool:
    """Whether the field holds several prompts: a list of texts or of lists, where numbers alone are one prompt."""
    if not prompt.startswith(b"["):
        return False
    parts = _read_list(prompt)
    return len(parts) > 1 and any(bytes(part)[:1] not in b"-0123456789" for part in parts)


def needs_abilities(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether the request asks for something that not every model can do; a cheap look."""
    messages = bytes(fields.get("messages", b""))
    return "tool_choice" in fields or any(part in messages for part in _MEDIA.values())


def check_abilities(fields: Mapping[str, msgspec.Raw], model: Model) -> None:
    """Refuses what the model cannot do, where the engine would fail or pass it over in silence. Raises BadRequest."""
    choice = bytes(fields.get("tool_choice", b"null"))
    if choice not in (b"null", b'"auto"', b'"none"') and "tools" not in model.parameters:
        raise BadRequest(
            f"The model '{model.id}' was not trained to call tools, so it cannot be made to.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    messages = bytes(fields.get("messages", b""))
    for modality, part in _MEDIA.items():
        if part in messages and modality not in model.input_modalities:
            raise BadRequest(
                f"The model '{model.id}' takes no {modality} input.", param="messages", code="unsupported_value"
            )


def _check_links(messages: object) -> None:
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if any(not link.startswith("data:") for link in _links(part)):
                raise BadRequest(
                    "A local model takes images only as data: URLs (base64), not from the network.",
                    param=f"messages[{number}].content",
                    code="unsupported_value",
                )


def _links(part: object) -> Iterator[str]:
    """Addresses in one part of a message: `image_url` today, `video_url` and the like in other versions."""
    for name, link in part.items() if isinstance(part, dict) else ():
        if name.endswith("_url"):
            url = link.get("url") if isinstance(link, dict) else link
            if isinstance(url, str):
                yield url
