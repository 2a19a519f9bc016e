import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stellwerk.api.ocr.sources import _BASE64, Source, Sources, Taken, read_address
from stellwerk.core.errors import BadRequest, NotFound, TooLarge, UpstreamError
from stellwerk.core.principal import Principal, Role
from stellwerk.engines.ocr.documents import Document
from stellwerk.http.egress import EgressAnswer

CALLER = Principal(key_id="a", name="a", role=Role.USER, user_id=1)
DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


class Internet:
    def __init__(self, status: int = 200) -> None:
        self.status = status

    def parse(self, url: str):
        if "127.0.0.1" in url:
            raise BadRequest("refused", code="url_refused")

    async def send(self, method, url, headers, body=b"", *, seconds, most_bytes, redirects):
        assert (method, redirects) == ("GET", 3)
        return EgressAnswer(status=self.status, headers={"content-type": "image/png"}, body=DATA)


class House:
    """Files, jobs and a reader that counts what it is given to open."""

    def __init__(self) -> None:
        self.opened = 0

    async def file(self, caller, file_id):
        if file_id != "file-1":
            raise NotFound("There is no such file.")
        return Taken(data=DATA, content_type=None)

    async def job(self, caller, job_id, number):
        return Taken(data=DATA + str(number).encode(), content_type=None)

    async def open(self, data, content_type):
        self.opened += 1
        return Document(id=str(hash(data)), data=data, kind="png", pages=1)


def sources(house: House, most: int = 1000, status: int = 200) -> Sources:
    return Sources(Internet(status), house.file, house.job, house.open, most)


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64," + base64.b64encode(DATA).decode(),
        "data:image/png;charset=x;base64," + base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        base64.b64encode(DATA).decode(),
        base64.encodebytes(DATA).decode(),
    ],
)
def test_a_document_may_be_written_into_the_request(text):
    assert read_address(text, "document").data == DATA


def test_an_address_stays_one_and_files_of_ours_are_known_by_theirs():
    assert read_address("https://example.org/a.pdf", "x") == Source(url="https://example.org/a.pdf")
    own = "https://gate.example:8443/v1/files/file-0a1b/content"
    assert read_address(own, "x", "gate.example:8443") == Source(file_id="file-0a1b")
    assert read_address(own, "x", "other.example") == Source(url=own)
    assert read_address("file-0a1b", "x") == Source(file_id="file-0a1b")


@pytest.mark.parametrize("text", ["", "data:image/png;base64,a", "ftp://a/b", "/etc/passwd", "file:///etc/passwd"])
def test_nothing_else_is_a_document(text):
    with pytest.raises(BadRequest):
        read_address(text, "document")


@given(st.text(max_size=200))
def test_every_text_is_read_or_refused(text):
    try:
        read_address(text, "document")
    except BadRequest:
        return


async def test_pages_of_a_job_open_its_document_once():
    house = House()
    found = sources(house)
    for _ in range(3):
        for number in (0, 1):
            document = await found.open(CALLER, Source(job_id="j", number=number))
            assert document.data.endswith(str(number).encode())
    assert house.opened == 2
    found.forget("j")
    await found.open(CALLER, Source(job_id="j"))
    assert house.opened == 3


async def test_too_much_is_refused_wherever_it_comes_from():
    found = sources(House(), most=100)
    for source in (Source(data=DATA), Source(url="https://example.org/"), Source(file_id="file-1"), Source(job_id="j")):
        with pytest.raises(TooLarge):
            await found.open(CALLER, source)


async def test_an_address_without_a_document_says_nothing_of_why():
    with pytest.raises(UpstreamError, match="did not give a document") as raised:
        await sources(House(), status=403).open(CALLER, Source(url="https://example.org/"))
    assert "403" not in raised.value.message


async def test_what_is_wrong_is_found_before_it_is_queued():
    found = sources(House())
    with pytest.raises(NotFound):
        await found.check(CALLER, Source(file_id="file-2"))
    with pytest.raises(BadRequest):
        await found.check(CALLER, Source(url="https://127.0.0.1/"))
    await found.check(CALLER, Source(url="https://example.org/"))


@pytest.mark.parametrize("text", ["A" * 32 + " " * 2_000_000 + "!", "A" * 2_000_000 + "=" * 3])
def test_text_that_is_nearly_base64_is_looked_at_once(text):
    began = time.process_time()
    assert _BASE64.fullmatch(text) is None
    assert time.process_time() - began < 10
