"""A registry of Ollama's on two real sockets, the second of them holding the bytes."""

import hashlib
import json

from tests.scripted_upstream import ScriptedUpstream, Talk
from tests.small_hub import SmallHub

MODEL = "application/vnd.ollama.image.model"
PROJECTOR = "application/vnd.ollama.image.projector"


class SmallRegistry:
    """Bytes come as those of a `SmallHub` do, with its faults."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.bytes = SmallHub()
        self.server = ScriptedUpstream(script=self._serve)
        self.status = 200

    async def start(self) -> None:
        await self.server.start()
        await self.bytes.start()

    async def stop(self) -> None:
        await self.server.stop()
        await self.bytes.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def add(self, name: str, *layers: tuple[str, bytes]) -> list[str]:
        """A model called `namespace/name/tag` with layers of (media type, content); returns their checksums."""
        digests = [hashlib.sha256(content).hexdigest() for _, content in layers]
        rows = [
            {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
            for digest, (kind, content) in zip(digests, layers, strict=True)
        ]
        self.blobs |= {digest: content for digest, (_, content) in zip(digests, layers, strict=True)}
        self.manifests[name] = json.dumps({"schemaVersion": 2, "config": {}, "layers": rows}).encode()
        return digests

    async def _serve(self, talk: Talk) -> None:
        namespace, name, kind, which = talk.request.path.removeprefix("/v2/").split("/")
        if self.status != 200:
            await talk.answer({"errors": [{"code": "X"}]}, self.status)
        elif kind == "manifests" and f"{namespace}/{name}/{which}" in self.manifests:
            await talk.answer(self.manifests[f"{namespace}/{name}/{which}"])
        elif kind == "blobs" and which.removeprefix("sha256:") in self.blobs:
            digest = which.removeprefix("sha256:")
            self.bytes.add("blobs/all", self.blobs)
            path = f"/blobs/all/resolve/1/{digest}"
            await talk.answer(b"", 307, [("location", f"http://127.0.0.1:{self.bytes.store.port}{path}")])
        else:
            await talk.answer({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, 404)
