import asyncio

import pytest

from stellwerk.core.call import Operation, Wire
from stellwerk.core.errors import BadRequest, UpstreamBroken, UpstreamTimeout
from stellwerk.core.plan import Target
from stellwerk.engines.ocr.documents import Document
from stellwerk.engines.ocr.page import OcrPage
from stellwerk.pipeline.dispatch import is_failure
from stellwerk.providers.ocr import MODEL, Ocr, known_models, read_pages
from tests.port_fakes import make_call

LETTER = Document(id="a letter", data=b"...", kind="pdf", pages=2)
TARGET = Target(provider="ocr", model=MODEL)


class Engine:
    """Reads nothing; fails as often and as a test wants."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0
        self.door = asyncio.Event()
        self.door.set()

    async def read(self, document, page, *, mode, boxes):
        self.asked += 1
        await self.door.wait()
        if self.failures:
            raise self.failures.pop(0)
        return OcrPage(page=page, text=f"{page}", markdown="", width=1, height=1, mode=mode, seconds=0.0)


def provider(engine: Engine) -> Ocr:
    return Ocr(engine, lambda: 100.0)


async def read(engine: Engine, *, deadline: float = 1e12, **fields):
    call = make_call(Operation.OCR, model=MODEL, deadline=deadline, **fields)
    ocr = provider(engine)
    with ocr.hold(LETTER):
        answer = await ocr.send(call, TARGET, Wire.OCR, call.fields)
    return read_pages(await answer.read())


def crash() -> UpstreamBroken:
    return UpstreamBroken("The page could not be read.", code="ocr_crashed")


async def test_all_pages_come_in_the_order_in_which_they_were_wanted():
    assert [page.text for page in await read(Engine(), pages=[1, 0])] == ["1", "0"]


async def test_a_page_over_which_its_reader_ended_gets_another():
    engine = Engine(crash())
    assert [page.text for page in await read(engine, pages=[1])] == ["1"]
    assert engine.asked == 2


async def test_a_page_that_goes_on_crashing_is_given_up_and_named():
    engine = Engine(crash(), crash(), crash())
    with pytest.raises(UpstreamBroken, match="Page 2: ") as raised:
        await read(engine, pages=[1])
    assert engine.asked == 2
    assert not is_failure(raised.value), "one bad page must not shut others out"


async def test_a_bad_page_is_not_tried_again():
    engine = Engine(BadRequest("It is damaged."))
    with pytest.raises(BadRequest, match="Page 1: It is damaged"):
        await read(engine, pages=[0])
    assert engine.asked == 1


async def test_the_deadline_of_a_call_ends_it():
    engine = Engine()
    engine.door.clear()
    with pytest.raises(UpstreamTimeout, match="respond-async"):
        await read(engine, deadline=100.0)


async def test_a_document_is_held_as_long_as_somebody_wants_it():
    ocr = provider(Engine())
    call = make_call(Operation.OCR, model=MODEL)
    with ocr.hold(LETTER):
        with ocr.hold(LETTER):
            pass
        await ocr.send(call, TARGET, Wire.OCR, call.fields)
    with pytest.raises(KeyError):
        await ocr.send(call, TARGET, Wire.OCR, call.fields)


def test_it_reads_pages_and_does_nothing_else():
    ocr = provider(Engine())
    assert {each: ocr.wire(each, Wire.OPENAI_CHAT) for each in Operation if ocr.wire(each, Wire.OPENAI_CHAT)} == {
        Operation.OCR: Wire.OCR
    }
    assert [model.id for model in known_models()] == ["rapidocr"]
