"""An Ollama as upstream: its own API for clients that speak it, and OpenAI's under /v1 for the others."""

import math
from collections.abc import Callable, Mapping

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.plan import Target
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.http.pool import Pool, parse_base_url
from stellwerk.providers.openai_compatible import OpenAICompatible, ProviderSettings

_PATHS = {
    Wire.OLLAMA_CHAT: "/api/chat",
    Wire.OLLAMA_GENERATE: "/api/generate",
    Wire.OLLAMA_EMBED: "/api/embed",
}
_LOAD_OPTIONS = frozenset(
    {"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"}
)
"""With another value for one of these a loaded model is loaded anew, and everybody else waits for it."""
_DISCOVERY_SECONDS = 10.0
_SHORTEST_SECRET = 8
_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class OllamaNative(OpenAICompatible):
    """Fills the port `Provider` for one Ollama; `base_url` in its settings ends in /v1."""

    def __init__(
        self, settings: ProviderSettings, pool: Pool, clock: Clock, parked: Callable[[int], None] = lambda _index: None
    ) -> None:
        super().__init__(settings, pool, clock, parked)
        # Neither its own API nor the one under /v1 knows addresses.
        self.images_as_data = True
        root = parse_base_url(settings.base_url)[1].removesuffix("/v1")
        self._root = root
        self._heads |= {wire: self._all_heads("POST", root + path) for wire, path in _PATHS.items()}

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:
        embeds = operation is Operation.EMBEDDING
        if preferred in _PATHS and embeds is (preferred is Wire.OLLAMA_EMBED):
            return preferred
        return super().wire(operation, preferred)

    def write_body(self, call: Call, target: Target, wire: Wire, fields: Mapping[str, msgspec.Raw]) -> bytes:
        # Ollama reads names in any case and takes the last: a MODEL behind the model would be another model than the
        # one that was allowed. No field of its APIs has a capital letter.
        fields = {name: value for name, value in fields.items() if name == name.casefold()}
        if wire not in _PATHS:
            return super().write_body(call, target, wire, fields)
        fields["model"] = msgspec.Raw(_encode(target.model))
        if "options" in fields:
            fields["options"] = _keep_loaded(fields["options"])
        return _encode(fields)

    async def ask(self, method: str, target: str, body: bytes, *, seconds: float) -> tuple[bytes | None, bytes]:
        """Asks what is no call of a model: content type and whole body of a successful answer.

        `target` is path and query below the address, in printable ASCII. Raises GatewayError as `send` does.
        """
        deadline = self._clock.monotonic() + seconds
        tail = b"%d\r\n\r\n%b" % (len(body), body) if method == "POST" else b""
        heads = self._all_heads(method, self._root + target)
        if self._keys is None:
            answer = await self._ask(heads[0] + tail, deadline)
        else:
            # Limits that vendors count for each model count for each path here.
            path = target.partition("?")[0]
            answer = await self._ask_with_keys(self._keys, lambda key: heads[key] + tail, deadline, path)
        try:
            content = await answer.read()
        finally:
            answer.abort()
        for secret in self._secrets:
            if len(secret) >= _SHORTEST_SECRET:
                content = content.replace(secret.encode("latin-1"), b"***")
        return answer.header(b"content-type"), content

    @property
    def is_ours(self) -> bool:
        """Whether it runs on a machine of the operator's, whose disk it fills."""
        return self._settings.local

    async def manage(self, method: str, path: str, body: bytes) -> UpstreamAnswer:
        """Asks for a change of its models; the answer may take hours. Raises GatewayError unless it agrees."""
        heads = self._all_heads(method, self._root + path)
        tail = b"%d\r\n\r\n%b" % (len(body), body)
        if self._keys is None:
            return await self._ask(heads[0] + tail, math.inf)
        return await self._ask_with_keys(self._keys, lambda key: heads[key] + tail, math.inf, path)

    async def fetch(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """The same for discovery. Raises GatewayError for an answer that is none."""
        return 200, (await self.ask(method, path, body or b"", seconds=_DISCOVERY_SECONDS))[1]


def _keep_loaded(options: msgspec.Raw) -> msgspec.Raw:
    """The options without those that reload the model; what is no object is left to Ollama to refuse."""
    try:
        given = _decode_object(options)
    except (ValueError, RecursionError):
        return options
    kept = {name: value for name, value in given.items() if name not in _LOAD_OPTIONS}
    return options if len(kept) == len(given) else msgspec.Raw(_encode(kept))
