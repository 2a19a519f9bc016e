"""An Ollama as upstream: its own API for clients that speak it, and OpenAI's under /v1 for the others."""

from collections.abc import Mapping

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.plan import Target
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
_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class OllamaNative(OpenAICompatible):
    """Fills the port `Provider` for one Ollama; `base_url` in its settings ends in /v1."""

    def __init__(self, settings: ProviderSettings, pool: Pool, clock: Clock) -> None:
        super().__init__(settings, pool, clock)
        root = parse_base_url(settings.base_url)[1].removesuffix("/v1")
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


def _keep_loaded(options: msgspec.Raw) -> msgspec.Raw:
    """The options without those that reload the model; what is no object is left to Ollama to refuse."""
    try:
        given = _decode_object(options)
    except (ValueError, RecursionError):
        return options
    kept = {name: value for name, value in given.items() if name not in _LOAD_OPTIONS}
    return options if len(kept) == len(given) else msgspec.Raw(_encode(kept))
