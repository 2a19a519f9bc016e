"""The reader of pages that runs on this machine, as a provider with one model."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

import msgspec

from stellwerk.core.call import Call, Operation, Wire
from stellwerk.core.errors import GatewayError, UpstreamBroken, UpstreamError, UpstreamTimeout
from stellwerk.core.events import Event
from stellwerk.core.plan import Model, Target
from stellwerk.core.ports import UpstreamAnswer
from stellwerk.engines.ocr.documents import Document
from stellwerk.engines.ocr.engine import OcrEngine
from stellwerk.engines.ocr.modes import Mode
from stellwerk.engines.ocr.page import OcrPage

PROVIDER, MODEL = "ocr", "rapidocr"
_PAGES_AT_ONCE = 16
"""Of one call; a page that waits for a reader costs next to nothing, thousands of them do."""
_TRIES = 2
"""A page over which its reader ended gets a fresh one."""


class Wanted(msgspec.Struct, frozen=True):
    """The fields of a call in this wire."""

    document: str
    """The id of a document that is being held."""
    pages: tuple[int, ...]
    """Counted from 0."""
    mode: Mode = "large"
    boxes: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Wanted).decode
_decode_pages = msgspec.json.Decoder(tuple[OcrPage, ...]).decode


def read_pages(body: bytes) -> tuple[OcrPage, ...]:
    """The body of an answer in this wire."""
    return _decode_pages(body)


class Ocr:
    """Fills the port `Provider`. Documents do not fit into a call: whoever makes one holds its document here."""

    name = PROVIDER
    images_as_data = False

    def __init__(self, engine: OcrEngine, clock_now: Callable[[], float]) -> None:
        """`clock_now` is monotonic, as the deadlines of calls are."""
        self._engine = engine
        self._now = clock_now
        self._held: dict[str, list[Document]] = {}

    @contextlib.contextmanager
    def hold(self, document: Document) -> Iterator[None]:
        """Calls may name the document meanwhile."""
        held = self._held.setdefault(document.id, [])
        held.append(document)
        try:
            yield
        finally:
            held.pop()
            if not held:
                del self._held[document.id]

    def wire(self, operation: Operation, preferred: Wire) -> Wire | None:  # noqa: ARG002  # the port has it
        return Wire.OCR if operation is Operation.OCR else None

    async def send(
        self,
        call: Call,
        target: Target,  # noqa: ARG002  # there is only one
        wire: Wire,  # noqa: ARG002  # the same
        fields: Mapping[str, msgspec.Raw],
    ) -> UpstreamAnswer:
        """Reads all pages. Raises what the engine raises for the first that cannot be read, with its number."""
        wanted = _decode(_encode(fields))
        document = self._held[wanted.document][0]
        turns = asyncio.Semaphore(_PAGES_AT_ONCE)

        async def read(page: int) -> OcrPage:
            async with turns:
                return await self._read(document, page, wanted)

        try:
            async with asyncio.timeout(max(0.0, call.deadline - self._now())), asyncio.TaskGroup() as group:
                tasks = [group.create_task(read(page)) for page in wanted.pages]
        except TimeoutError:
            raise UpstreamTimeout(
                "Reading the document took longer than one call may. Ask with 'Prefer: respond-async' for long ones.",
                code="ocr_timeout",
            ) from None
        except ExceptionGroup as failures:
            raise _first(failures) from None
        return PagesAnswer(_encode([task.result() for task in tasks]))

    async def _read(self, document: Document, page: int, wanted: Wanted) -> OcrPage:
        tries = _TRIES
        while True:
            tries -= 1
            try:
                return await self._engine.read(document, page, mode=wanted.mode, boxes=wanted.boxes)
            except UpstreamBroken as error:
                if not tries or error.code != "ocr_crashed":
                    raise _with_page(error, page, document) from None
            except GatewayError as error:
                raise _with_page(error, page, document) from None

    def events(
        self,
        answer: UpstreamAnswer,  # noqa: ARG002  # the port has it, as the next two
        wire: Wire,  # noqa: ARG002
        *,
        stream: bool,  # noqa: ARG002
    ) -> AsyncIterator[Event]:
        """Pages are no events. Raises UpstreamError."""
        raise UpstreamError("What was read from a page cannot be translated.")

    async def models(self) -> Sequence[Model]:
        return known_models()


def known_models() -> tuple[Model, ...]:
    model = Model(
        provider=PROVIDER,
        name=MODEL,
        id=MODEL,
        operations=frozenset({Operation.OCR}),
        input_modalities=("image",),
        description="Reads the text of scanned pages and pictures on this machine.",
        certain=True,
    )
    return (model,)


class PagesAnswer:
    """An answer that is complete; fills the port `UpstreamAnswer`."""

    status = 200
    event_bytes = 0
    secrets: tuple[str, ...] = ()
    key: int | None = None

    def __init__(self, body: bytes) -> None:
        self._rest = body

    def header(self, name: bytes) -> bytes | None:  # noqa: ARG002  # the port has it
        return None

    async def read(self) -> bytes:
        return await self.next()

    async def next(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest

    async def pour(self, sink: Callable[[bytes], None]) -> None:
        if self._rest:
            sink(await self.next())

    def fail(self, error: UpstreamError) -> None:
        """Nothing is on the way any more."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...


def _first(failures: ExceptionGroup) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


def _with_page(error: GatewayError, page: int, document: Document) -> GatewayError:
    """The same error with a message that says which page of several it was."""
    if document.pages > 1:
        error.message = f"Page {page + 1}: {error.message}"
        error.args = (error.message,)
    return error
