"""What an Ollama offers: its own API knows more about the models than its OpenAI-compatible one does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from itertools import count
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from stellwerk.core.call import UNKNOWN_OPERATIONS, Operation
from stellwerk.core.errors import GatewayError, UpstreamError
from stellwerk.core.plan import Model

Fetch: TypeAlias = Callable[[str, str, bytes | None], Awaitable[tuple[int, bytes]]]
"""Method, URL and body to status and whole body; raises a GatewayError when no answer comes."""

DEFAULT_ADDRESS = "http://127.0.0.1:11434"
_DEFAULT_PORT = 11434
_ADDRESS_VARIABLES = ("OLLAMA_API_BASE", "OLLAMA_URL", "OLLAMA_HOST")
"""The first that is set counts: the other two only ever name an upstream, the last may be meant for Ollama itself."""
_MAX_MODELS = 5_000
_MAX_NAME = 64
_CONCURRENT_QUESTIONS = 4
_CHAT_PARAMETERS = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
)

_T = TypeVar("_T")


class _Details(msgspec.Struct):
    quantization_level: str | None = None
    context_length: int | None = None


class _Tag(msgspec.Struct):
    name: str
    digest: str = ""
    size: int | None = None
    modified_at: str = ""
    remote_host: str | None = None
    details: _Details | None = None
    capabilities: list[str] | None = None


class _Tags(msgspec.Struct):
    models: list[_Tag] | None = None


class _Shown(msgspec.Struct):
    capabilities: list[str] | None = None
    model_info: dict[str, Any] | None = None
    parameters: str | None = None


class _Facts(msgspec.Struct, frozen=True):
    """What is the same for every tag with the same digest."""

    capabilities: frozenset[str] | None
    context_length: int | None
    architecture: str | None
    parameter_count: int | None
    embedding_length: int | None


class Ollama:
    """Lists the models of the Ollama at `address` (scheme, host and port) as models of the provider `name`."""

    def __init__(
        self, fetch: Fetch, *, address: str = DEFAULT_ADDRESS, name: str = "ollama", local: bool = True
    ) -> None:
        """`local` says that the Ollama runs on a machine of the operator's."""
        self.name = name
        self._local = local
        self._address = address.rstrip("/")
        self._fetch = fetch
        self._facts: dict[str, _Facts] = {}

    async def models(self) -> list[Model]:
        """Everything that is installed there. Raises UpstreamError when it does not answer or not understandably."""
        status, body = await self._fetch("GET", f"{self._address}/api/tags", None)
        listed = _decode(body, _Tags) if status == 200 else None
        if listed is None:
            raise UpstreamError(f"Ollama did not list its models (HTTP status {status}).")
        tags = (listed.models or [])[:_MAX_MODELS]
        questions = asyncio.Semaphore(_CONCURRENT_QUESTIONS)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._learn(tag, questions)) for tag in tags]
        facts = [task.result() for task in tasks]
        # Rebuilt from what is installed now, so that it never outgrows the list.
        self._facts = {tag.digest: fact for tag, fact in zip(tags, facts, strict=True) if fact and tag.digest}
        shortcodes = ollama_shortcodes(tag.name for tag in tags)
        models = [_model(self.name, tag, fact, shortcodes[tag.name]) for tag, fact in zip(tags, facts, strict=True)]
        # Short names are for what is near: nobody who lists them expects what stands in a cloud.
        return (
            models if self._local else [replace(each, local=False, size_bytes=None, shortcode=None) for each in models]
        )

    async def _learn(self, tag: _Tag, questions: asyncio.Semaphore) -> _Facts | None:
        known = self._facts.get(tag.digest)
        if known is not None:
            return known
        async with questions:
            try:
                status, body = await self._fetch(
                    "POST", f"{self._address}/api/show", msgspec.json.encode({"model": tag.name})
                )
            except (GatewayError, OSError):
                # The model stays in the list with what the list itself says; the next round asks again.
                return None
        shown = _decode(body, _Shown) if status == 200 else None
        return _facts(shown) if shown is not None else None


def ollama_address(environment: Mapping[str, str]) -> str:
    """Where Ollama listens by the environment: its variables are read as Ollama itself reads `OLLAMA_HOST`.

    An address to listen on, such as 0.0.0.0, becomes the loopback address to connect to.
    """
    given = (environment.get(name, "").strip(" \t\"'") for name in _ADDRESS_VARIABLES)
    value = next(filter(None, given), "")
    if not value:
        return DEFAULT_ADDRESS
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        return DEFAULT_ADDRESS
    port = port or ({"http": 80, "https": 443}.get(scheme) if separator else None) or _DEFAULT_PORT
    host = parts.hostname or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def ollama_shortcode(tag: str) -> str:
    """The short name of one model: `gemma3:4b` is `ollama-gemma3-4b`, `qwen3:latest` is `ollama-qwen3`."""
    return "ollama-" + tag.removesuffix(":latest").replace(":", "-")


def ollama_shortcodes(tags: Iterable[str]) -> Mapping[str, str]:
    """Short names by tag, no two alike in any case, and the same for the same tags in whatever order.

    Of several that would have the same, the first in the alphabet has it and the others have longer ones.
    """
    ordered = sorted(set(tags))
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for tag in ordered:
        shortcode = ollama_shortcode(tag)
        if shortcode.casefold() not in taken:
            chosen[tag] = shortcode
            taken.add(shortcode.casefold())
    for tag in ordered:
        if tag not in chosen:
            chosen[tag] = next(form for form in _longer_shortcodes(tag) if form.casefold() not in taken)
            taken.add(chosen[tag].casefold())
    return chosen


def _longer_shortcodes(tag: str) -> Iterable[str]:
    whole = "ollama-" + tag.replace(":", "-")
    yield whole
    for number in count(2):
        yield f"{whole}-{number}"


def _facts(shown: _Shown) -> _Facts:
    info = shown.model_info or {}
    capabilities = None if shown.capabilities is None else frozenset(shown.capabilities)
    if capabilities is None and any(key.endswith(".pooling_type") for key in info):
        # Versions before the capability list: only models that embed pool their output.
        capabilities = frozenset({"embedding"})
    architecture, parameters = info.get("general.architecture"), info.get("general.parameter_count")
    return _Facts(
        capabilities=capabilities,
        context_length=_context_length(info, shown.parameters or ""),
        architecture=architecture[:_MAX_NAME] if isinstance(architecture, str) and architecture else None,
        parameter_count=_count(parameters),
        embedding_length=_count(info.get(f"{architecture}.embedding_length")),
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 63 else None


def _context_length(info: Mapping[str, Any], parameters: str) -> int | None:
    trained = info.get(f"{info.get('general.architecture')}.context_length")
    # A Modelfile may load the model with less than it was trained for.
    chosen = [
        int(words[1])
        for line in parameters.splitlines()
        if len(words := line.split()) == 2 and words[0] == "num_ctx" and words[1].isdecimal()
    ]
    lengths = [length for length in (trained, *chosen) if isinstance(length, int) and length > 0]
    return min(lengths, default=None)


def _model(provider: str, tag: _Tag, facts: _Facts | None, shortcode: str) -> Model:
    details = tag.details or _Details()
    capabilities = facts.capabilities if facts else None
    if capabilities is None and tag.capabilities is not None:
        capabilities = frozenset(tag.capabilities)
    # An empty host is how a model that runs on this machine is listed by some versions.
    local = not tag.remote_host
    return Model(
        provider=provider,
        name=tag.name,
        id=f"{provider}/{tag.name}",
        owned_by=provider,
        created=_unix_seconds(tag.modified_at),
        context_length=(facts.context_length if facts else None) or details.context_length or None,
        operations=_operations(capabilities),
        input_modalities=_inputs(capabilities or frozenset()),
        parameters=_parameters(capabilities or frozenset()),
        architecture=facts.architecture if facts else None,
        parameter_count=facts.parameter_count if facts else None,
        embedding_length=facts.embedding_length if facts else None,
        quantization=details.quantization_level or None,
        size_bytes=tag.size if local else None,
        local=local,
        shortcode=shortcode,
        certain=capabilities is not None,
    )


def _inputs(capabilities: frozenset[str]) -> tuple[str, ...]:
    more = (("vision", "image"), ("audio", "audio"))
    return ("text", *(modality for capability, modality in more if capability in capabilities))


def _operations(capabilities: frozenset[str] | None) -> frozenset[Operation]:
    if capabilities is None:
        return UNKNOWN_OPERATIONS
    operations: set[Operation] = set()
    if "completion" in capabilities:
        operations |= {Operation.CHAT, Operation.COMPLETION}
    if "embedding" in capabilities:
        operations |= {Operation.EMBEDDING, Operation.RERANK}
    return frozenset(operations)


def _parameters(capabilities: frozenset[str]) -> tuple[str, ...]:
    if "completion" not in capabilities:
        return ()
    tools = ("tools",) if "tools" in capabilities else ()
    thinking = ("reasoning_effort",) if "thinking" in capabilities else ()
    return (*_CHAT_PARAMETERS, *tools, *thinking)


def _unix_seconds(text: str) -> int:
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return 0


def _decode(body: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
