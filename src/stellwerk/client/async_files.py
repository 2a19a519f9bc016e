"""Files and batches of a gateway, on the event loop; the twin of `files`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from stellwerk.client import calls
from stellwerk.client.async_caller import AsyncCaller
from stellwerk.client.files import name_of
from stellwerk.client.ocr import read_file
from stellwerk.client.shapes import Batch, File


class AsyncFiles:
    """`client.files`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def upload(self, file: str | Path | bytes, purpose: str = "batch", *, name: str | None = None) -> File:
        """`file` is a path or the content itself. Raises BadAddress for one that cannot be read."""
        data = file if isinstance(file, bytes) else await asyncio.to_thread(read_file, Path(file))
        return await self._caller.do(calls.upload(data, name or name_of(file), purpose))

    async def get(self, file: str) -> File:
        return await self._caller.do(calls.show_file(file))

    async def list(self, *, after: str | None = None, limit: int = 1000) -> "list[File]":
        """Newest first; `after` is the id of the last one of the page before."""
        return await self._caller.do(calls.list_files(after, limit))

    async def content(self, file: str) -> bytes:
        return await self._caller.do(calls.file_content(file))

    async def delete(self, file: str) -> None:
        await self._caller.do(calls.delete_file(file))


class AsyncBatches:
    """`client.batches`: many requests in one file, made as jobs."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def create(
        self,
        file: str,
        endpoint: str = "/v1/chat/completions",
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> Batch:
        """`file` is the id of an upload with the purpose `batch`."""
        return await self._caller.do(calls.create_batch(file, endpoint, metadata))

    async def get(self, batch: str) -> Batch:
        return await self._caller.do(calls.show_batch(batch))

    async def list(self, *, after: str | None = None, limit: int = 20) -> "list[Batch]":
        """Newest first; `after` is the id of the last one of the page before."""
        return await self._caller.do(calls.list_batches(after, limit))

    async def cancel(self, batch: str) -> Batch:
        return await self._caller.do(calls.cancel_batch(batch))
