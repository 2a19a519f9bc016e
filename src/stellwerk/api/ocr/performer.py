"""Reads a document as a job: one page at once, more as jobs of their own, whose answers are put together at the end."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from stellwerk.api._errors import render_openai_error
from stellwerk.api.jobs.intake import holder_of
from stellwerk.api.jobs.performer import CALL, FindPrincipal
from stellwerk.api.ocr.endpoints import PATH, OcrAPI, usage_info
from stellwerk.api.ocr.reading import choose_pages
from stellwerk.api.ocr.requests import Asked, read_chat, write_body
from stellwerk.api.ocr.sources import Source, Sources
from stellwerk.api.ocr.stored import CHAT_PATH, read_documents
from stellwerk.api.openai.file_store import FileStore
from stellwerk.core.errors import BadRequest, UpstreamError
from stellwerk.core.principal import Principal
from stellwerk.engines.ocr.engine import check_installed
from stellwerk.jobs.job import Job, JobError, Leased, NewJob, Performed, State
from stellwerk.jobs.jobs import Jobs
from stellwerk.jobs.sink import Sink
from stellwerk.records import files
from stellwerk.records.files import StoredFile

_MOST_PAGES = 10_000
_UNIT = "pages"
_LEAST_SECONDS = 60.0
_SPARE_SECONDS = 24 * 3600.0
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Piece(msgspec.Struct, frozen=True):
    """One page of one of the documents."""

    asked: Asked
    document: int
    page: int


class OcrPerformer:
    """Of jobs of the kind `ocr`: those of /v1/ocr and of AI Gateway's /api/ocr."""

    def __init__(
        self,
        jobs: Jobs,
        read_page: Callable[[Leased, Sink], Awaitable[Performed]],
        api: OcrAPI,
        sources: Sources,
        store: FileStore,
        find_principal: FindPrincipal,
    ) -> None:
        """`read_page` performs jobs of the kind `call`: those of pages ask /v1/ocr as every client does."""
        self._jobs = jobs
        self._read_page = read_page
        self._api = api
        self._sources = sources
        self._store = store
        self._find_principal = find_principal

    async def __call__(self, leased: Leased, sink: Sink) -> Performed:
        job = leased.job
        children = await self._jobs.children(job.id, with_result=True)
        if not children:
            return await self._begin(leased, sink)
        if not all(child.state.ended for child in children):
            return Performed.wait_for_children(_UNIT)
        try:
            return self._gather(job, leased.body, children)
        finally:
            self._sources.forget(job.id)
            await self._forget_files(job, leased.body)

    async def _begin(self, leased: Leased, sink: Sink) -> Performed:
        check_installed()
        job = leased.job
        principal = self._find_principal(job.key_id, job.user_id)
        pieces: list[_Piece] = []
        for number, asked in enumerate(read_documents(job, leased.body)):
            pieces += await self._split(job, principal, number, asked)
        if len(pieces) > _MOST_PAGES:
            raise BadRequest(f"At most {_MOST_PAGES} pages can be read in one job.", code="document_too_large")
        sink.progress(0, len(pieces), _UNIT)
        if len(pieces) == 1:
            performed = await self._read_page(
                msgspec.structs.replace(
                    leased, job=msgspec.structs.replace(job, path=PATH), body=self._body_of(pieces[0])
                ),
                sink,
            )
            sink.progress(1, 1, _UNIT)
            return self._finish(job, leased.body, performed)
        await self._jobs.enqueue_all([self._child(job, principal, piece) for piece in pieces])
        return Performed.wait_for_children(_UNIT)

    async def _split(self, job: Job, principal: Principal, number: int, asked: Asked) -> list[_Piece]:
        """The pages of one document, each with a way to the document that does not repeat it."""
        source = asked.source
        if source.url is not None:
            # What an address gives may be something else the next time.
            taken = await self._sources.take(principal, source)
            source = Source(data=taken.data, content_type=taken.content_type, name=source.name)
        document = await self._sources.open(principal, source)
        pages = choose_pages(asked.pages, document.pages)
        only = len(pages) == 1
        if asked.source.url is not None and not only:
            source = Source(file_id=await self._store_file(job, number, document.data))
        elif source.data is not None and not only:
            source = Source(job_id=job.id, number=number)
        asked = msgspec.structs.replace(asked, source=source)
        return [_Piece(asked, number, page) for page in pages]

    def _body_of(self, piece: _Piece) -> bytes:
        wish = self._api.wish(piece.asked)
        one = msgspec.structs.replace(piece.asked, pages=(piece.page,))
        return write_body(one, model=wish.model, mode=wish.mode)

    def _child(self, job: Job, principal: Principal, piece: _Piece) -> NewJob:
        return NewJob(
            kind=CALL,
            queue=job.queue,
            path=PATH,
            body=self._body_of(piece),
            key_id=job.key_id,
            user_id=job.user_id,
            client_id=job.client_id,
            holder=holder_of(principal),
            priority=job.priority,
            deadline_seconds=max(job.deadline_at - self._store.clock.now(), _LEAST_SECONDS),
            parent_id=job.id,
            labels={"document": str(piece.document), "page": str(piece.page)},
        )

    # --- documents that were fetched

    async def _store_file(self, job: Job, number: int, data: bytes) -> str:
        now = self._store.clock.now()
        file = StoredFile(
            # The same in every attempt: what an earlier one has left goes.
            id=_file_id(job, number),
            key_id=job.key_id,
            user_id=job.user_id,
            purpose="ocr",
            name=f"document of job {job.id}",
            size=len(data),
            created_at=now,
            expires_at=job.deadline_at + _SPARE_SECONDS,
        )
        writer = await self._store.begin(file)
        await writer.write(data)
        await writer.flush()
        await self._store.run(partial(files.complete, file_id=file.id, size=len(data)))
        return file.id

    async def _forget_files(self, job: Job, body: bytes) -> None:
        for number, asked in enumerate(read_documents(job, body)):
            if asked.source.url is not None:
                await self._store.run(partial(files.delete_file, file_id=_file_id(job, number)))

    # --- answers

    def _finish(self, job: Job, body: bytes, performed: Performed) -> Performed:
        """The answer for a single page."""
        if not performed.good or job.path != CHAT_PATH:
            return performed
        return msgspec.structs.replace(performed, result=write_chat(job, body, _decode(performed.result)))

    def _gather(self, job: Job, body: bytes, children: Sequence[Job]) -> Performed:
        """Pages that could not be read say why; without any other there is no answer."""
        answers = [_decode(child.result) if _is_good(child) else None for child in children]  # type: ignore[arg-type]
        good = [answer for answer in answers if answer is not None]
        if not good:
            return _all_failed(children)
        pages: list[dict[str, Any]] = []
        sizes: dict[str, int] = {}
        tokens = [0, 0]
        many = len({child.labels.get("document") for child in children}) > 1
        for child, answer in zip(children, answers, strict=True):
            if answer is None:
                page = _failed_page(child)
            else:
                page, usage = answer["pages"][0], answer["usage_info"]
                sizes[child.labels.get("document", "")] = usage["doc_size_bytes"]
                tokens[0] += usage.get("prompt_tokens", 0)
                tokens[1] += usage.get("completion_tokens", 0)
            if many:
                page["document"] = int(child.labels.get("document", "0"))
            pages.append(page)
        answer = good[0] | {
            "pages": pages,
            "usage_info": usage_info(len(good), sum(sizes.values()), tokens[0], tokens[1]),
        }
        result = write_chat(job, body, answer) if job.path == CHAT_PATH else msgspec.json.encode(answer)
        return Performed(status=200, result=result)


def write_chat(job: Job, body: bytes, answer: dict[str, Any]) -> bytes:
    """What was read as the answer of a chat, for clients that speak of pages as of messages."""
    chat = read_chat(body, None)[1]
    pages, usage = answer["pages"], answer["usage_info"]
    match chat.output:
        case "json":
            content = msgspec.json.encode([_boxes_of(page) for page in pages]).decode()
        case "text":
            content = "\n\n".join(page["text"] for page in pages)
        case _:
            content = "\n\n".join(page["markdown"] for page in pages)
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return msgspec.json.encode(
        {
            "id": f"ocr-{job.id}",
            "object": "chat.completion",
            "created": int(job.created_at),
            "model": chat.model or answer["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
            "resolution": job.labels.get("resolution"),
            "degraded": any(page["degraded"] for page in pages),
            "pages": pages,
            "usage_info": usage,
        }
    )


def _boxes_of(page: dict[str, Any]) -> dict[str, Any]:
    return {name: page.get(name) for name in ("index", "dimensions", "boxes")}


def _is_good(child: Job) -> bool:
    return child.state is State.DONE and child.result is not None


def _failed_page(child: Job) -> dict[str, Any]:
    error = child.error or JobError(code="no_result", message="What was read is not kept any more.")
    return {
        "index": int(child.labels.get("page", "0")),
        "markdown": "",
        "images": [],
        "dimensions": {"dpi": 0, "height": 0, "width": 0},
        "text": "",
        "degraded": True,
        "error": {"code": error.code, "message": error.message},
    }


def _all_failed(children: Sequence[Job]) -> Performed:
    child = children[0]
    error = child.error or JobError(code="no_result", message="No page could be read.")
    shown = UpstreamError(error.message, code=error.code)
    shown.status = child.status if child.status is not None and child.status >= 400 else shown.status
    return Performed(status=shown.status, result=render_openai_error(shown), error=error)


def _file_id(job: Job, number: int) -> str:
    return f"file-{job.id.replace('-', '')[:28]}{number:03}"
