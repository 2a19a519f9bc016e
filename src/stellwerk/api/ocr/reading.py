"""Reads documents: by the reader of this machine or by a model that sees, both over the line that every call takes."""

import asyncio
import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stellwerk.api.ocr.grounding import read_grounding
from stellwerk.api.ocr.loops import find_loop
from stellwerk.api.ocr.pages import Reading, ReadPage, of_engine
from stellwerk.api.ocr.prompts import Manner, Server, make_manner, other_mode
from stellwerk.api.ocr.replies import PagesReply, TranscriptReply
from stellwerk.core.call import Call, Operation, Place, Wire
from stellwerk.core.clock import Clock
from stellwerk.core.errors import BadRequest, GatewayError
from stellwerk.core.plan import Model, Plan, Target
from stellwerk.core.principal import Principal, Priority
from stellwerk.engines.ocr.documents import Document
from stellwerk.engines.ocr.engine import OcrEngine
from stellwerk.engines.ocr.modes import Mode
from stellwerk.engines.ocr.page import PageImage
from stellwerk.pipeline.gateway import Gateway
from stellwerk.providers.ocr import Ocr

_PAGES_AT_ONCE = 4
"""Of one request, where a model reads them."""
_SHOWN_ID = 110
_PLAIN = re.compile(
    r"!\[[^\]\n]{0,200}+\]\([^)\n]{0,300}+\)|^#{1,6} +|^[ \t]*+```\w*+$|\*\*|</?(?:table|tbody|thead)>|</tr>",
    re.MULTILINE,
)
_CELL = re.compile(r"</t[dh]>\s*+(?:<t[dh][^>]{0,500}+>)?|<t[dhr][^>]{0,500}+>")
_FENCED = re.compile(r"\A\s*```(?:markdown|md|text)?\n(.*?)\n?```\s*\Z", re.DOTALL)
_encode = msgspec.json.Encoder().encode


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and until when."""

    id: str
    principal: Principal
    received: float
    """Monotonic seconds, as the next one."""
    deadline: float
    priority: Priority = Priority.NORMAL
    peer: str = ""
    background: bool = False


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be read, and how."""

    model: str
    pages: tuple[int, ...] | None = None
    """Counted from 0; None is all."""
    mode: Mode = "large"
    boxes: bool = False
    prompt: str | None = None
    """For models that see, in place of our own."""
    max_tokens: int | None = None


class Catalogue(Protocol):
    """The part of the catalogue that is needed here."""

    def plan(self, name: str) -> Plan | None: ...

    def model_of(self, target: Target) -> Model | None: ...


class ReadingService:
    def __init__(
        self,
        gateway: Gateway,
        catalogue: Catalogue,
        engine: OcrEngine,
        provider: Ocr,
        clock: Clock,
        *,
        server_of: Callable[[Target], Server],
    ) -> None:
        """`server_of` says who runs a model."""
        self._gateway = gateway
        self._catalogue = catalogue
        self._engine = engine
        self._provider = provider
        self._clock = clock
        self._server_of = server_of

    async def open(self, data: bytes, content_type: str | None = None) -> Document:
        """Raises what the engine raises for what is no document."""
        return await self._engine.open(data, content_type)

    def check(self, order: Order, wish: Wish) -> Plan:
        """Where the calls for it would go. Raises what they would be refused with."""
        if self._is_engine(wish.model):
            return self._gateway.plan(_engine_call(order, wish, Document(id="", data=b"", kind="png", pages=1), (0,)))
        picture = PageImage(data=b"", content_type="image/png", width=1, height=1)
        manner = make_manner(wish.model, "other", wish.mode)
        return self._gateway.plan(_model_call(order, wish, manner, picture, order.id))

    async def read(self, order: Order, document: Document, wish: Wish) -> Reading:
        """All pages that are wanted. Raises GatewayError when one of them cannot be read."""
        pages = choose_pages(wish.pages, document.pages)
        if self._is_engine(wish.model):
            return await self._read_here(order, document, wish, pages)
        return await self._read_by_model(order, document, wish, pages)

    def _is_engine(self, name: str) -> bool:
        plan = self._catalogue.plan(name)
        return plan is not None and plan.targets[0].provider == Ocr.name

    async def _read_here(self, order: Order, document: Document, wish: Wish, pages: Sequence[int]) -> Reading:
        call = _engine_call(order, wish, document, pages)
        reply = PagesReply(call)
        with self._provider.hold(document):
            await self._gateway.run(call, reply)
        return Reading(pages=tuple(of_engine(page, boxes=wish.boxes) for page in reply.pages), headers=reply.headers)

    # --- models that see

    async def _read_by_model(self, order: Order, document: Document, wish: Wish, pages: Sequence[int]) -> Reading:
        # What nobody may ask for is refused before a page is drawn.
        plan = self.check(order, wish)
        target = plan.targets[0]
        model = self._catalogue.model_of(target)
        reader = _ModelReader(
            self._gateway,
            self._engine,
            self._clock,
            order,
            wish,
            target.model,
            # Remedies of one server are unknown parameters to another.
            servers.pop() if len(servers := {self._server_of(each) for each in plan.targets}) == 1 else "other",
            model,
        )
        turns = asyncio.Semaphore(_PAGES_AT_ONCE)

        async def read(page: int) -> ReadPage:
            async with turns:
                return await reader.read(document, page)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(read(page)) for page in pages]
        except ExceptionGroup as failures:
            raise _first(failures) from None
        return Reading(pages=tuple(task.result() for task in tasks), headers=reader.headers)


class _Attempt(msgspec.Struct, frozen=True):
    picture: PageImage
    mode: Mode
    manner: Manner
    text: str
    looped: bool
    broke_off: bool
    input_tokens: int
    output_tokens: int


class _ModelReader:
    """Reads the pages of one request."""

    def __init__(
        self,
        gateway: Gateway,
        engine: OcrEngine,
        clock: Clock,
        order: Order,
        wish: Wish,
        name: str,
        server: Server,
        model: Model | None,
    ) -> None:
        self._gateway = gateway
        self._engine = engine
        self._clock = clock
        self._order = order
        self._wish = wish
        self._name = name
        self._server = server
        self._model = model
        self._calls = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()

    async def read(self, document: Document, page: int) -> ReadPage:
        """A page that makes the model repeat itself, or of which it says nothing, is tried a second time."""
        began = self._clock.monotonic()
        first = await self._try(document, page, again=False)
        attempts = [first]
        if first.looped or not first.text.strip():
            try:
                attempts.append(await self._try(document, page, again=True))
            except GatewayError:
                # What is there is better than nothing; what is not there is an error.
                if not first.text.strip():
                    raise
        best = max(attempts, key=lambda each: (bool(each.text.strip()) and not each.looped, len(_useful(each.text))))
        seconds = self._clock.monotonic() - began
        return _make_page(page, best, attempts, seconds, boxes=self._wish.boxes)

    async def _try(self, document: Document, page: int, *, again: bool) -> _Attempt:
        wish, model = self._wish, self._model
        manner = make_manner(
            self._name,
            self._server,
            wish.mode,
            prompt=wish.prompt,
            max_tokens=wish.max_tokens,
            context=None if model is None else model.context_length,
            again=again,
        )
        picture = await self._engine.draw(document, page, longest=manner.longest)
        self._calls += 1
        number = self._calls
        # Each attempt is a call of its own in the ledger.
        call_id = self._order.id if number == 1 else f"{self._order.id[:_SHOWN_ID]}-{number}"
        call = _model_call(self._order, wish, manner, picture, call_id, model)
        reply = TranscriptReply(call)
        await self._gateway.run(call, reply)
        self.headers = self.headers or reply.headers
        usage = reply.usage
        return _Attempt(
            picture=picture,
            mode=other_mode(wish.mode) if again else wish.mode,
            manner=manner,
            text=reply.text,
            looped=reply.looped,
            broke_off=reply.reason == "length",
            input_tokens=0 if usage is None else usage.input_tokens,
            output_tokens=0 if usage is None else usage.output_tokens,
        )


def choose_pages(wanted: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """Raises BadRequest for a page that is not there."""
    if wanted is None:
        return tuple(range(count))
    for page in wanted:
        if not 0 <= page < count:
            raise BadRequest(
                f"The document has {count} page{'s' if count > 1 else ''}, counted from 0: there is no page {page}.",
                param="pages",
            )
    return tuple(dict.fromkeys(wanted))


def plain_text(markdown: str) -> str:
    """The text without markup that a page has as a rule: headings, emphasis, pictures and tables of HTML."""
    text = _CELL.sub("\t", _PLAIN.sub(lambda found: "\n" if found[0] == "</tr>" else "", markdown))
    lines = (line.strip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _make_page(page: int, best: _Attempt, attempts: Sequence[_Attempt], seconds: float, *, boxes: bool) -> ReadPage:
    text = _useful(best.text)
    fenced = _FENCED.match(text)
    grounded = read_grounding(fenced[1] if fenced else text, best.picture.width, best.picture.height)
    return ReadPage(
        index=page,
        text=plain_text(grounded.text),
        markdown=grounded.text,
        width=best.picture.width,
        height=best.picture.height,
        mode=best.mode,
        seconds=seconds,
        boxes=grounded.boxes if boxes else None,
        figures=grounded.figures,
        degraded=best.looped or best.broke_off,
        input_tokens=sum(each.input_tokens for each in attempts),
        output_tokens=sum(each.output_tokens for each in attempts),
    )


def _useful(text: str) -> str:
    """Without what is only said again and again."""
    place = find_loop(text)
    return text if place is None else text[:place]


def _engine_call(order: Order, wish: Wish, document: Document, pages: Sequence[int]) -> Call:
    fields = {"document": document.id, "pages": list(pages), "mode": wish.mode, "boxes": wish.boxes}
    return _call(order, order.id, Operation.OCR, Wire.OCR, wish.model, fields)


def _model_call(
    order: Order, wish: Wish, manner: Manner, picture: PageImage, call_id: str, model: Model | None = None
) -> Call:
    url = f"data:{picture.content_type};base64,{base64.b64encode(picture.data).decode('ascii')}"
    # OCR models want the picture before the words.
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": manner.prompt}]
    fields: dict[str, Any] = {
        "model": wish.model,
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_fitting(manner.settings, model),
    }
    return _call(order, call_id, Operation.CHAT, Wire.OPENAI_CHAT, wish.model, fields, stream=True)


def _fitting(settings: Mapping[str, Any], model: Model | None) -> dict[str, Any]:
    """The settings as far as the model is known to take them."""
    fitting = dict(settings)
    if model is None:
        return fitting
    if model.temperature is not None and "temperature" in fitting:
        least, most = model.temperature
        fitting["temperature"] = min(max(fitting["temperature"], least), most)
    if model.max_output_tokens:
        fitting["max_tokens"] = min(fitting["max_tokens"], model.max_output_tokens)
    if model.completion_tokens:
        fitting["max_completion_tokens"] = fitting.pop("max_tokens")
    return fitting


def _call(
    order: Order,
    call_id: str,
    operation: Operation,
    wire: Wire,
    model: str,
    fields: dict[str, Any],
    *,
    stream: bool = False,
) -> Call:
    return Call(
        id=call_id,
        operation=operation,
        wire=wire,
        model=model,
        fields={name: msgspec.Raw(_encode(value)) for name, value in fields.items()},
        principal=order.principal,
        received=order.received,
        deadline=order.deadline,
        stream=stream,
        wants_usage=stream,
        peer=order.peer,
        priority=order.priority,
        place=Place(),
        background=order.background,
    )


def _first(failures: ExceptionGroup) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
