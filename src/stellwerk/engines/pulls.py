"""Models fetched by the names that Ollama's clients have for them, for as long as somebody waits for them."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress

from stellwerk.core.errors import BadRequest, GatewayError
from stellwerk.engines.downloads import Download, Downloads
from stellwerk.engines.hub import Hub
from stellwerk.engines.ollama_registry import is_library_name, parse_library_name

_MOVING = frozenset({"queued", "running", "verifying"})


class Pulls:
    """A download that was begun here pauses when the last one who follows it leaves, and goes on when it is asked for
    again. Downloads that somebody else began are left alone."""

    def __init__(self, downloads: Downloads, hub: Hub) -> None:
        self._downloads = downloads
        self._hub = hub
        self._ours: set[str] = set()
        self._followers: Counter[str] = Counter()
        self._pausing: set[asyncio.Task[None]] = set()

    def candidates(self, name: str) -> Iterator[str]:
        """Ids under which what was fetched as `name` may be in the models folder, the likeliest first."""
        with suppress(BadRequest):
            if is_library_name(name):
                yield parse_library_name(name).model_id
                return
            wanted = self._hub.reference(name)
            for download in self._downloads.list():
                if download.state == "done" and download.repo.casefold() == wanted.repo.casefold():
                    tag = wanted.quantization
                    if tag is None or re.search(rf"[-._]{re.escape(tag)}$", download.model_id, re.IGNORECASE):
                        yield download.model_id
            base = re.sub("-gguf$", "", wanted.repo.rpartition("/")[2], flags=re.IGNORECASE)
            yield base if wanted.quantization is None else f"{base}-{wanted.quantization}"

    async def begin(self, name: str) -> Download:
        """Begins or goes on. Raises what `Downloads.add` raises."""
        while self._pausing:
            await asyncio.wait(self._pausing)
        moving = {download.id for download in self._downloads.list() if download.state in _MOVING}
        download = await self._downloads.add(name)
        if download.id not in moving:
            self._ours.add(download.id)
        return download

    async def follow(self, download_id: str) -> AsyncGenerator[Download, None]:
        """See `Downloads.follow`; to be closed by whoever reads it."""
        self._followers[download_id] += 1
        try:
            async with aclosing(self._downloads.follow(download_id)) as changes:
                async for download in changes:
                    yield download
        finally:
            self._leave(download_id)

    def _leave(self, download_id: str) -> None:
        self._followers[download_id] -= 1
        if self._followers[download_id] > 0:
            return
        del self._followers[download_id]
        if download_id in self._ours:
            self._ours.discard(download_id)
            # Whoever leaves may be on the way out himself and cannot wait.
            task = asyncio.create_task(self._pause(download_id), name=f"pause of download {download_id}")
            self._pausing.add(task)
            task.add_done_callback(self._pausing.discard)

    async def _pause(self, download_id: str) -> None:
        with suppress(GatewayError):  # it may be over, or gone
            if self._downloads.get(download_id).state in _MOVING:
                await self._downloads.pause(download_id)
