"""POST /v1/ocr as Mistral has it, and PUT /process as Open WebUI asks a loader of documents."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api._routing import read_priority
from stellwerk.api.jobs.intake import headers_of_call, new_job
from stellwerk.api.ocr.pages import Reading, show_page
from stellwerk.api.ocr.reading import Order, ReadingService, Wish
from stellwerk.api.ocr.requests import Asked, read_asked, read_raw, write_body
from stellwerk.api.ocr.sources import Sources
from stellwerk.core.errors import BadRequest
from stellwerk.core.plan import Plan
from stellwerk.core.principal import CALLERS, READERS
from stellwerk.engines.ocr.documents import Document
from stellwerk.engines.ocr.engine import check_installed
from stellwerk.engines.ocr.modes import Mode
from stellwerk.http.exchange import Headers
from stellwerk.jobs.job import NewJob

PATH, LOADER_PATH = "/v1/ocr", "/process"
OCR = "ocr"
"""The kind of jobs that read documents."""
_MISTRAL = "mistral-ocr"
"""Clients of Mistral's API have the name of its model built in; here it means whoever reads pages by default."""
_PICTURE_DPI = 72
_JSON: Headers = ((b"content-type", b"application/json"),)


class OcrSettings(msgspec.Struct, frozen=True, kw_only=True):
    engine: str = "rapidocr"
    """Who reads for those who name nobody."""
    mode: Mode = "large"
    dpi: int = 150
    total_seconds: float = 600.0
    """For one request."""


class OcrAPI:
    def __init__(
        self,
        service: ReadingService,
        sources: Sources,
        find: Callable[[str], Plan | None],
        check_file: Callable[[Request, str], Any],
        settings: OcrSettings,
    ) -> None:
        """`find` asks the catalogue; `check_file` raises NotFound for a file that the sender may not see."""
        self.settings = settings
        """May be replaced."""
        self._service = service
        self._sources = sources
        self._find = find
        self._check_file = check_file

    def register(self, routes: Routes) -> None:
        routes.add("POST", PATH, CALLERS, self._read)
        routes.add("PUT", LOADER_PATH, CALLERS, self._load)
        routes.add("GET", "/v1/files/{file_id}/url", READERS, self._show_address)

    async def accept(self, request: Request) -> NewJob:
        """The job of a request to read a document, checked as far as that needs nothing from elsewhere."""
        check_installed()
        asked = read_asked(request.exchange)
        wish = self.wish(asked)
        plan = self._service.check(self._order(request), wish)
        await self._sources.check(request.caller, asked.source)
        return new_job(
            request,
            queue=plan.stands_for or plan.name,
            path=PATH,
            body=write_body(asked, model=wish.model, mode=wish.mode),
            kind=OCR,
            headers=headers_of_call(request.exchange.headers),
            labels={"resolution": wish.mode},
        )

    def wish(self, asked: Asked) -> Wish:
        return Wish(
            model=self._choose(asked.model),
            pages=asked.pages,
            mode=asked.mode or self.settings.mode,
            boxes=asked.boxes,
            prompt=asked.prompt,
            max_tokens=asked.max_tokens,
        )

    def _choose(self, name: str | None) -> str:
        if name is None:
            return self.settings.engine
        if not name.rpartition("/")[2].startswith(_MISTRAL):
            return name
        plan = self._find(name)
        # A model of that name at Mistral does not chat; an operator's alias may mean any other.
        named = plan is not None and not plan.targets[0].model.startswith(_MISTRAL)
        return name if named else self.settings.engine

    async def _read(self, request: Request) -> None:
        asked = read_asked(request.exchange)
        if asked.source.job_id is not None and not request.background:
            raise BadRequest("A document is an address, a file, or part of the request.", param="document.type")
        document, wish, reading = await self._serve(request, asked)
        body = show_reading(reading, document, asked.model or wish.model, self.settings.dpi)
        self._respond(request, reading, body)

    async def _load(self, request: Request) -> None:
        asked = read_raw(request.exchange)
        document, wish, reading = await self._serve(request, asked)
        loaded = [
            {
                "page_content": page.markdown,
                "metadata": {
                    "source": asked.source.name,
                    "page": page.index,
                    "total_pages": document.pages,
                    "model": wish.model,
                    "mode": page.mode,
                    "degraded": page.degraded,
                },
            }
            for page in reading.pages
        ]
        self._respond(request, reading, loaded)

    async def _serve(self, request: Request, asked: Asked) -> tuple[Document, Wish, Reading]:
        check_installed()
        order, wish = self._order(request), self.wish(asked)
        # Nothing is fetched or opened for who may not ask.
        self._service.check(order, wish)
        document = await self._sources.open(request.caller, asked.source)
        return document, wish, await self._service.read(order, document, wish)

    def _order(self, request: Request) -> Order:
        exchange = request.exchange
        return Order(
            id=request.id,
            principal=request.caller,
            received=exchange.received,
            deadline=exchange.received + self.settings.total_seconds,
            priority=read_priority(exchange.headers, request.caller),
            peer=exchange.peer,
            background=request.background,
        )

    async def _show_address(self, request: Request) -> None:
        """Clients of Mistral's API ask for the address of a file that they have uploaded, to have it read."""
        exchange = request.exchange
        file_id = unquote(exchange.path.split("/")[3])[:100]
        await self._check_file(request, file_id)
        host = exchange.headers.get(b"host", b"").decode("latin-1")
        self._respond(request, None, {"url": f"https://{host}/v1/files/{file_id}/content"})

    def _respond(self, request: Request, reading: Reading | None, body: Any) -> None:
        headers: Headers = ((b"x-request-id", request.id.encode()), *_JSON)
        if reading is not None:
            headers += reading.headers
        request.exchange.respond(200, headers, msgspec.json.encode(body))


def show_reading(reading: Reading, document: Document, model: str, dpi: int) -> dict[str, Any]:
    shown_dpi = dpi if document.kind == "pdf" else _PICTURE_DPI
    return {
        "pages": [show_page(page, shown_dpi) for page in reading.pages],
        "model": model,
        "document_annotation": None,
        "usage_info": usage_info(
            len(reading.pages),
            len(document.data),
            sum(page.input_tokens for page in reading.pages),
            sum(page.output_tokens for page in reading.pages),
        ),
    }


def usage_info(pages: int, size: int, input_tokens: int, output_tokens: int) -> Mapping[str, int]:
    """Tokens only where a model has read."""
    usage = {"pages_processed": pages, "doc_size_bytes": size}
    if input_tokens or output_tokens:
        usage |= {"prompt_tokens": input_tokens, "completion_tokens": output_tokens}
    return usage
