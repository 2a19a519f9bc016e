"""The client for programs with an event loop; the twin of `client`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from stellwerk.client import calls
from stellwerk.client.async_caller import AsyncCaller
from stellwerk.client.async_files import AsyncBatches, AsyncFiles
from stellwerk.client.async_job_access import AsyncJobHandle, AsyncJobs
from stellwerk.client.calls import Messages
from stellwerk.client.client import MOST_BYTES, Priority
from stellwerk.client.errors import BrokenOff
from stellwerk.client.job_access import Watch
from stellwerk.client.ocr import PATH, Document, Mode, Reading, describe, ocr_body
from stellwerk.client.retries import Retries
from stellwerk.client.setting import HERE, Key, make_setting
from stellwerk.client.shapes import Chat, ChatPiece, Embeddings, Model, Ranking, read_chat_piece


class AsyncClient:
    """A gateway and a key for it. Tasks may share it; there is nothing to close.

    `timeout` is how many seconds it may be silent, `retries` how often a request that is refused with 429 or 503 is
    sent again, `ca` a file with the certificates to trust in place of the machine's. Without `api_key`,
    STELLWERK_API_KEY is used; a function is asked before each request. Every method raises StellwerkError.
    """

    def __init__(
        self,
        base_url: str = HERE,
        api_key: Key = None,
        *,
        timeout: float = 600.0,
        retries: Retries | int = 2,
        ca: str | Path | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        setting = make_setting(base_url, api_key, timeout=timeout, retries=retries, ca=ca, most_bytes=most_bytes)
        self._caller = AsyncCaller(setting)
        self.jobs = AsyncJobs(self._caller)
        self.files = AsyncFiles(self._caller)
        self.batches = AsyncBatches(self._caller)

    @overload
    def chat(
        self, messages: Messages, model: str, *, stream: Literal[False] = False, **fields: Any
    ) -> Coroutine[Any, Any, Chat]: ...

    @overload
    def chat(
        self, messages: Messages, model: str, *, stream: Literal[True], **fields: Any
    ) -> AsyncIterator[ChatPiece]: ...

    def chat(
        self, messages: Messages, model: str, *, stream: bool = False, **fields: Any
    ) -> Coroutine[Any, Any, Chat] | AsyncIterator[ChatPiece]:
        """To be awaited; with `stream` an iterator of the answer's pieces as they come. Closing it tells the gateway
        to stop.

        A text is one message of a user. `fields` are further ones of the request, such as `max_tokens`. A stream raises
        BrokenOff when it ends before the answer does.
        """
        if stream:
            return self._stream(messages, model, fields)
        return self._caller.do(calls.chat(messages, model, fields))

    async def embed(self, texts: str | Sequence[str], model: str, **fields: Any) -> Embeddings:
        return await self._caller.do(calls.embed(texts, model, fields))

    async def rerank(self, query: str, documents: Sequence[str], model: str, **fields: Any) -> Ranking:
        """How well each document answers the query, the best first."""
        return await self._caller.do(calls.rerank(query, documents, model, fields))

    async def models(self) -> list[Model]:
        """What the key may use."""
        return await self._caller.do(calls.models())

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """Any other call: JSON in and JSON out, None for an empty answer."""
        return await self._caller.do(calls.anything(method, path, body))

    async def submit(
        self,
        path: str,
        body: Any,
        *,
        priority: Priority | None = None,
        idempotency_key: str | None = None,
        client_id: str | None = None,
    ) -> AsyncJobHandle:
        """Has a call such as `/v1/chat/completions` made later, as a job.

        An idempotency key that was used before gives the job that it was used for. Raises Unavailable, code
        `queue_full`.
        """
        call = calls.submit(path, body, idempotency_key=idempotency_key, priority=priority, client_id=client_id)
        return AsyncJobHandle(self.jobs, await self._caller.do(call))

    async def submit_chat(
        self, messages: Messages, model: str, *, priority: Priority | None = None, **fields: Any
    ) -> AsyncJobHandle:
        """A chat as a job; `await handle.result(Chat)` waits for its answer."""
        body = calls.chat_body(messages, model, fields, stream=False)
        return await self.submit("/v1/chat/completions", body, priority=priority)

    async def submit_ocr(
        self,
        document: Document,
        *,
        mode: Mode | None = None,
        model: str | None = None,
        pages: Sequence[int] | None = None,
        boxes: bool = False,
        priority: Priority | None = None,
    ) -> AsyncJobHandle:
        """Has a document read as a job; `await handle.result(Reading)` waits for its pages. As `ocr` otherwise."""
        body = ocr_body(await asyncio.to_thread(describe, document), model, mode, pages, boxes=boxes)
        return await self.submit(PATH, body, priority=priority)

    async def ocr(
        self,
        document: Document,
        *,
        mode: Mode | None = None,
        model: str | None = None,
        pages: Sequence[int] | None = None,
        boxes: bool = False,
        priority: Priority | None = None,
        seconds: float | None = None,
        watch: Watch | None = None,
    ) -> Reading:
        """Reads a document: a file's path, an https URL or bytes. `pages` count from 0, None are all.

        `watch` is told of the job about once a second; its `progress` counts pages. Raises StillRunning after
        `seconds`, with the job, which goes on, and JobFailed.
        """
        handle = await self.submit_ocr(document, mode=mode, model=model, pages=pages, boxes=boxes, priority=priority)
        (await handle.wait(seconds, watch)).check()
        return (await self.jobs.result(handle.id)).read(Reading)

    async def _stream(self, messages: Messages, model: str, fields: dict[str, Any]) -> AsyncIterator[ChatPiece]:
        async with contextlib.aclosing(self._caller.events(calls.chat_stream(messages, model, fields))) as events:
            async for event in events:
                piece = read_chat_piece(event.data)
                if piece is None:
                    return
                yield piece
        raise BrokenOff("The answer broke off before its end.")
