"""Reading documents at a running gateway: as Mistral's clients, Open WebUI and AI Gateway's clients ask for it."""

import asyncio
import base64
import json
import re
import ssl
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.http.authority import issue, make_authority
from tests.customers import Customer, House, ask
from tests.gateway_process import GatewayProcess, running_gateway, wait_until
from tests.raw_http import Answer, begin, post
from tests.scanned_pages import character_errors, letter_pdf, scanned_letter
from tests.scripted_upstream import ScriptedUpstream, Talk, chunk, usage_chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")
OCR, LOADER = "/v1/ocr", "/process"
MODES = ("tiny", "small", "base", "large", "gundam")
MOST_ERRORS = {"tiny": 0.25, "small": 0.05, "base": 0.01, "large": 0.01, "gundam": 0.01}
GROUNDED = (
    "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 100]]<|/det|>\n# Angebot\n\n"
    "<|ref|>text<|/ref|><|det|>[[0, 200, 999, 400]]<|/det|>\nSehr geehrte Frau Müller\n"
    "<|ref|>image<|/ref|><|det|>[[10, 500, 500, 999]]<|/det|>\n"
)


class Reader:
    """An upstream that sees: says what a test has laid ready, one answer after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[str] = ["# Page"]
        self.asked: list[dict[str, Any]] = []
        self.reason = "stop"

    async def __call__(self, talk: Talk) -> None:
        self.asked.append(talk.request.json)
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await talk.start_stream()
        for start in range(0, len(text), 120):
            await talk.event(chunk(text[start : start + 120]))
        await talk.event(chunk(finish=self.reason))
        await talk.event(usage_chunk(prompt=900, output=50))
        await talk.finish_stream()

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height of what was seen last."""
        url = self.asked[-1]["messages"][0]["content"][0]["image_url"]["url"]
        data = base64.b64decode(url.partition(",")[2])
        if data.startswith(b"\x89PNG"):
            return struct.unpack(">II", data[16:24])
        frame = re.search(rb"\xff[\xc0-\xc2]..\x08(....)", data, re.DOTALL)
        height, width = struct.unpack(">HH", frame[1])
        return width, height


class Web:
    """A server with TLS that has a few addresses."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, str, bytes]] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            status, kind, content = self.pages.get(path, (404, "text/plain", b"nothing"))
            extra = f"location: {kind}\r\n" if status == 302 else f"content-type: {kind}\r\n"
            writer.write(f"HTTP/1.1 {status} X\r\n{extra}content-length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
        finally:
            writer.close()


@pytest.fixture(scope="module")
def letter() -> tuple[bytes, str]:
    return scanned_letter(paragraphs=1)


@pytest.fixture(scope="module")
def three_pages() -> bytes:
    return letter_pdf(3, paragraphs=0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    server = ScriptedUpstream()
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(gateway) -> House:
    return House(gateway)


@pytest.fixture
def sees(upstream) -> Reader:
    upstream.script = Reader()
    return upstream.script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def web(tmp_path_factory) -> AsyncIterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    now, names, addresses = datetime.now(UTC), ["localhost"], [ip_address("127.0.0.1")]
    authority = make_authority(names, addresses, now)
    pair = issue(authority, names, addresses, now)
    (folder / "authority.pem").write_bytes(authority.certificate)
    (folder / "server.pem").write_bytes(pair.certificate)
    (folder / "server.key").write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    web = Web()
    async with await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=context) as server:
        web.port = server.sockets[0].getsockname()[1]
        web.authority = str(folder / "authority.pem")
        yield web


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory, upstream, web) -> AsyncIterator[GatewayProcess]:
    models = ["deepseek-ai/DeepSeek-OCR", "seer", "qwen2.5-vl-7b"]
    config = {
        "ocr": {"enabled": True, "max_bytes": 600_000, "max_pages": 30},
        "egress": {"allowed_origins": [web.url]},
        "compat": ["ai-gateway"],
        "ai_gateway": {"port": 0, "requests_per_minute": 0},
        "providers": {
            "gpu": {"vendor": "vllm", "base_url": upstream.url, "models": models, "api_key": "x"},
            "cpp": {"vendor": "llama-server", "base_url": upstream.url, "models": models, "api_key": "x"},
            "cloud": {"base_url": upstream.url, "models": models, "api_key": "x"},
        },
        "models": {"scanner": {"targets": ["cloud/seer"]}},
    }
    folder = tmp_path_factory.mktemp("ocr")
    async with running_gateway(folder, config, environment={"SSL_CERT_FILE": web.authority}) as gateway:
        yield gateway


def written(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(data: bytes, **more: Any) -> dict[str, Any]:
    return {"document": {"type": "image_url", "image_url": written(data)}, **more}


def pdf(data: bytes, **more: Any) -> dict[str, Any]:
    return {"document": {"type": "document_url", "document_url": written(data, "application/pdf")}, **more}


async def read(gateway: GatewayProcess, body: Any, **headers: str) -> Answer:
    return await post(gateway.port, gateway.key, body, OCR, **headers)


async def refusal(gateway: GatewayProcess, body: Any, **headers: str) -> tuple[int, str]:
    answer = await read(gateway, body, **headers)
    assert answer.status >= 400, answer.body
    return answer.status, answer.json["error"]["code"]


async def wait_for(gateway: GatewayProcess, job_id: str, key: str | None = None) -> dict[str, Any]:
    async def ended() -> dict[str, Any] | None:
        answer = await ask(gateway.port, "GET", f"/api/requests/{job_id}?wait=8", key=key or gateway.key)
        return answer.json if answer.json["finished_at"] else None

    return await wait_until(ended, 60)


# --- Mistral's form


@pytest.mark.parametrize("mode", MODES)
async def test_a_scanned_page_is_read_in_every_mode(gateway, letter, mode):
    image, text = letter
    answer = await read(gateway, picture(image, model="mistral-ocr-latest", mode=mode, include_image_base64=True))
    assert answer.status == 200, answer.body
    (page,) = answer.json["pages"]
    assert character_errors(text, page["text"]) <= MOST_ERRORS[mode]
    assert (page["index"], page["mode"], page["images"], page["degraded"]) == (0, mode, [], False)
    assert page["dimensions"]["height"] > page["dimensions"]["width"] > 1000
    assert answer.json["model"] == "mistral-ocr-latest"
    assert answer.json["usage_info"] == {"pages_processed": 1, "doc_size_bytes": len(image)}
    assert answer.headers["x-stellwerk-model"] == "ocr/rapidocr"
    row = await gateway.call(answer.headers["x-request-id"])
    assert (row["operation"], row["provider"], row["target"], row["pages"]) == ("ocr", "ocr", "rapidocr", 1)


async def test_the_reader_is_listed_among_the_models(gateway):
    listed = (await ask(gateway.port, "GET", "/v1/models/rapidocr", key=gateway.key)).json
    assert (listed["id"], listed["x_stellwerk"]["operations"]) == ("rapidocr", ["ocr"])
    details = (await ask(gateway.port, "GET", "/health/details", key=gateway.key)).json["ocr"]
    assert (details["engine"], details["installed"], details["offered"]) == ("rapidocr", True, True)


async def test_only_the_wanted_pages_are_read_with_boxes(gateway, three_pages):
    answer = await read(gateway, pdf(three_pages, model="rapidocr", pages=[2, 0], boxes=True, mode="base"))
    pages = answer.json["pages"]
    assert [page["index"] for page in pages] == [2, 0]
    assert [page["text"].strip() for page in pages] == ["Seite 3 von 3", "Seite 1 von 3"]
    (box,) = pages[0]["boxes"]
    assert box["text"] == "Seite 3 von 3"
    assert len(box["points"]) == 4
    assert 0.5 < box["score"] <= 1
    assert pages[0]["dimensions"]["dpi"] == 150
    assert (await gateway.call(answer.headers["x-request-id"]))["pages"] == 2


async def test_a_document_may_come_as_itself_or_in_a_form(gateway, three_pages):
    raw = await ask(
        gateway.port,
        "POST",
        f"{OCR}?pages=1&mode=base",
        three_pages,
        key=gateway.key,
        headers={"Content-Type": "application/pdf"},
    )
    form = (
        b'--x\r\ncontent-disposition: form-data; name="pages"\r\n\r\n1\r\n'
        b'--x\r\ncontent-disposition: form-data; name="mode"\r\n\r\nbase\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + three_pages + b"\r\n--x--\r\n"
    )
    sent = await read(gateway, form, **{"Content-Type": "multipart/form-data; boundary=x"})
    bare = {"document": {"base64": base64.b64encode(three_pages).decode()}, "pages": [1], "mode": "base"}
    for answer in (raw, sent, await read(gateway, bare)):
        assert answer.status == 200, answer.body
        assert [page["markdown"] for page in answer.json["pages"]] == ["Seite 2 von 3"]


async def test_an_uploaded_file_is_read_by_its_id_and_by_the_address_that_mistral_gives(gateway, house, three_pages):
    head = b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nocr\r\n'
    file = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + three_pages
    content_type = {"Content-Type": "multipart/form-data; boundary=x"}
    form = head + file + b"\r\n--x--\r\n"
    stored = await ask(gateway.port, "POST", "/v1/files", form, key=gateway.key, headers=content_type)
    file_id = stored.json["id"]
    shown = await ask(gateway.port, "GET", f"/v1/files/{file_id}", key=gateway.key)
    for told in (stored.json, shown.json):
        # Mistral's own client takes no file for one that lacks these.
        assert (told["sample_type"], told["source"], told["deleted"]) == ("ocr_input", "upload", False)
    signed = await ask(gateway.port, "GET", f"/v1/files/{file_id}/url?expiry=1", key=gateway.key)
    for document in (
        {"type": "file", "file_id": file_id},
        {"type": "document_url", "document_url": signed.json["url"]},
    ):
        answer = await read(gateway, {"document": document, "pages": [0], "mode": "base"})
        assert answer.json["pages"][0]["text"] == "Seite 1 von 3", answer.body
    stranger = await house.make_customer()
    asked = {"document": {"type": "file", "file_id": file_id}}
    assert (await post(gateway.port, stranger.key, asked, OCR)).status == 404
    assert (await ask(gateway.port, "GET", f"/v1/files/{file_id}/url", key=stranger.key)).status == 404


# --- Open WebUI


async def test_open_webui_loads_a_pdf_page_by_page(gateway, three_pages):
    headers = {"Content-Type": "application/pdf", "X-Filename": "Gr%C3%B6%C3%9Fe.pdf"}
    answer = await ask(gateway.port, "PUT", f"{LOADER}?mode=base", three_pages, key=gateway.key, headers=headers)
    assert answer.status == 200, answer.body
    assert [page["page_content"] for page in answer.json] == [f"Seite {number} von 3" for number in (1, 2, 3)]
    first = answer.json[0]["metadata"]
    assert (first["source"], first["page"], first["total_pages"]) == ("Größe.pdf", 0, 3)
    assert (await ask(gateway.port, "PUT", LOADER, three_pages, headers=headers)).status == 401


# --- money


async def test_pages_cost_what_an_administrator_says(gateway, house, three_pages):
    await house.do("POST", "/admin/api/prices", {"model": "ocr/rapidocr", "per_page": 0.5})
    try:
        rich, poor = await house.make_customer(balance=10), await house.make_customer(balance=0.9)
        asked = pdf(three_pages, pages=[0, 1], mode="base")
        answer = await post(gateway.port, rich.key, asked, OCR)
        assert answer.status == 200, answer.body
        assert (await gateway.call(answer.headers["x-request-id"]))["cost"] == 1_000_000
        assert await balance_of(house, rich) == 9.0
        refused = await post(gateway.port, poor.key, asked, OCR)
        assert (refused.status, refused.json["error"]["code"]) == (402, "insufficient_credits")
        assert await balance_of(house, poor) == 0.9
    finally:
        await house.do("POST", "/admin/api/prices", {"model": "ocr/rapidocr", "per_page": 0})


async def balance_of(house: House, customer: Customer) -> float:
    return (await house.do("GET", f"/admin/api/users/{customer.id}"))["balance"]


# --- jobs


async def test_twenty_pages_are_read_as_a_job_with_progress(gateway):
    document = letter_pdf(20, points=30, paragraphs=0)
    answer = await read(gateway, pdf(document, mode="tiny"), prefer="respond-async")
    assert (answer.status, answer.json["kind"], answer.json["model"]) == (202, "ocr", "rapidocr")
    job_id = answer.json["id"]
    said = await follow(gateway, job_id)
    progress = [data for name, data in said if name == "progress"]
    assert [each["done"] for each in progress] == sorted(each["done"] for each in progress)
    assert progress[-1] | {"done": 0} == {"done": 0, "total": 20, "unit": "pages"}
    # Who is slow to read is told of several pages at once.
    assert len({each["done"] for each in progress}) > 2
    assert said[-1][0] == "end"
    job = await wait_for(gateway, job_id)
    assert (job["status"], job["progress"]["done"]) == ("completed", 20)
    pages = job["result"]["pages"]
    assert [page["index"] for page in pages] == list(range(20))
    assert [page["text"] for page in pages] == [f"Seite {number} von 20" for number in range(1, 21)]
    assert job["result"]["usage_info"] == {"pages_processed": 20, "doc_size_bytes": len(document)}


async def follow(gateway: GatewayProcess, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Everything that is said of a job until its end."""
    target = f"/api/requests/{job_id}/events"
    head = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {gateway.key}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(head.encode())
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        async with asyncio.timeout(60):
            name = ""
            while not found or found[-1][0] != "end":
                line = (await reader.readline()).decode().strip()
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    found.append((name, json.loads(line[6:])))
    finally:
        writer.close()
    return found


async def test_the_answer_of_a_job_is_that_of_the_live_request(gateway, letter):
    image, _ = letter
    live = (await read(gateway, picture(image, mode="small"))).json
    later = await read(gateway, picture(image, mode="small"), prefer="respond-async, wait=40")
    assert later.status == 200
    (now,), (then,) = live.pop("pages"), (answer := later.json).pop("pages")
    assert answer == live
    assert now.keys() == then.keys()
    assert {name: then[name] for name in ("index", "text", "markdown")} == {
        name: now[name] for name in ("index", "text", "markdown")
    }


async def test_nonsense_is_refused_before_it_is_queued(gateway, letter):
    image, _ = letter
    later = {"prefer": "respond-async"}
    assert await refusal(gateway, picture(image, model="nobody"), **later) == (404, "model_not_found")
    inside = {"document": {"type": "document_url", "document_url": "https://127.0.0.1/a.pdf"}}
    assert await refusal(gateway, inside, **later) == (400, "url_refused")
    assert await refusal(gateway, {"document": {"type": "file", "file_id": "file-0"}}, **later) == (
        404,
        "file_not_found",
    )


async def test_a_page_that_cannot_be_read_says_so_and_the_others_are_there(gateway, upstream):
    async def fail_once(talk: Talk) -> None:
        reader.asked.append(talk.request.json)
        if len(reader.asked) == 1:
            await talk.answer({"error": {"message": "too many pixels"}}, status=400)
        else:
            await reader(talk)

    reader = Reader()
    upstream.script = fail_once
    answer = await read(gateway, pdf(letter_pdf(2, paragraphs=0), model="cloud/seer"), prefer="respond-async")
    job = await wait_for(gateway, answer.json["id"])
    assert job["status"] == "completed"
    failed = [page for page in job["result"]["pages"] if "error" in page]
    assert len(failed) == 1
    assert (failed[0]["degraded"], failed[0]["markdown"]) == (True, "")
    assert sorted(page["markdown"] for page in job["result"]["pages"]) == ["", "# Page"]


async def test_pages_of_an_address_are_fetched_once(gateway, web):
    web.pages["/long.pdf"] = (200, "application/pdf", letter_pdf(2, paragraphs=0))
    asked = {"document": {"type": "document_url", "document_url": f"{web.url}/long.pdf"}, "mode": "base"}
    answer = await read(gateway, asked, prefer="respond-async")
    job = await wait_for(gateway, answer.json["id"])
    assert [page["text"] for page in job["result"]["pages"]] == ["Seite 1 von 2", "Seite 2 von 2"], job
    kept = (await ask(gateway.port, "GET", "/v1/files", key=gateway.key)).json["data"]
    assert not [file for file in kept if answer.json["id"] in file["filename"]]


async def test_a_job_is_nobody_elses_document(gateway, house, letter):
    answer = await read(gateway, picture(letter[0]), prefer="respond-async")
    theirs = {"document": {"type": "job", "job_id": answer.json["id"]}}
    assert (await read(gateway, theirs)).status == 400
    stranger = await house.make_customer()
    deferred = await post(gateway.port, stranger.key, theirs, OCR, prefer="respond-async")
    job = await wait_for(gateway, deferred.json["id"], stranger.key) if deferred.status == 202 else None
    assert deferred.status == 400 or job["status"] == "failed", deferred.body
    await wait_for(gateway, answer.json["id"])


# --- AI Gateway's clients


async def test_the_documented_request_is_answered_like_a_chat(gateway, letter, sees):
    details = (await ask(gateway.port, "GET", "/health/details", key=gateway.key)).json
    listener = next(each for each in details["listeners"] if each["name"].startswith("ai-gateway"))
    port = int(listener["addresses"][0].rpartition(":")[2])
    content = [
        {"type": "image_url", "image_url": {"url": written(letter[0])}},
        {"type": "text", "text": "Free OCR."},
    ]
    for model, more in (("rapidocr", {"output": "text"}), ("gpu/deepseek-ai/DeepSeek-OCR", {"max_tokens": 2048})):
        body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
        headers = {"X-Resolution": "small", "X-Client-ID": "app", "Content-Type": "application/json"}
        queued = await ask(port, "POST", "/api/ocr", body, key=gateway.key, headers=headers)
        assert (queued.status, queued.json["resolution"]) == (200, "small"), queued.body
        job = await wait_for(gateway, queued.json["request_id"])
        answer = job["result"]
        assert (answer["object"], answer["choices"][0]["finish_reason"]) == ("chat.completion", "stop"), job
        text = answer["choices"][0]["message"]["content"]
        assert text == (answer["pages"][0]["text"] if model == "rapidocr" else "# Page")
        assert answer["resolution"] == "small"
    assert sees.asked[0]["messages"][0]["content"][1] == {"type": "text", "text": "Free OCR."}
    assert sees.asked[0]["max_tokens"] == 2048
    assert max(sees.picture) == 640


# --- addresses


async def test_a_document_is_fetched_from_an_allowed_address(gateway, web, letter):
    web.pages["/a.jpg"] = (200, "image/jpeg", letter[0])
    web.pages["/moved"] = (302, "/a.jpg", b"")
    for path in ("/a.jpg", "/moved"):
        asked = {"document": {"type": "image_url", "image_url": {"url": web.url + path}}, "mode": "small"}
        answer = await read(gateway, asked)
        assert answer.status == 200, answer.body
        assert "Angebot" in answer.json["pages"][0]["text"]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.pdf",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]:8443/a.png",
        "https://10.0.0.7/",
    ],
)
async def test_no_document_is_fetched_from_inside(gateway, url):
    document = {"type": "document_url", "document_url": url}
    assert await refusal(gateway, {"document": document}) == (400, "url_refused")


async def test_what_an_address_gives_is_no_more_trusted_than_an_upload(gateway, web):
    web.pages["/page"] = (200, "application/pdf", b"<html>not a document</html>")
    web.pages["/large"] = (200, "image/png", b"\x89PNG\r\n\x1a\n" + b"0" * 700_000)
    web.pages["/out"] = (302, "https://127.0.0.1/secret", b"")

    async def fetch(path: str) -> tuple[int, str]:
        return await refusal(gateway, {"document": {"type": "document_url", "document_url": web.url + path}})

    assert await fetch("/page") == (415, "unsupported_document")
    assert (await fetch("/large"))[0] in (413, 502)
    assert await fetch("/out") == (400, "url_refused")
    assert await fetch("/nowhere") == (502, "document_unavailable")


# --- bad documents


def png_bomb(side: int = 40_000) -> bytes:
    """Claims far more pixels than it is long."""

    def piece(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", data) + piece(b"IEND", b"")


async def test_bad_documents_are_refused_and_the_reader_goes_on(gateway, letter):
    image, _ = letter
    assert await refusal(gateway, picture(png_bomb())) == (413, "document_too_large")
    assert await refusal(gateway, picture(image[:300])) == (400, "invalid_document")
    assert await refusal(gateway, pdf(b"%PDF-1.4 and no more")) == (400, "invalid_document")
    assert await refusal(gateway, pdf(letter_pdf(31, paragraphs=0))) == (413, "document_too_large")
    assert await refusal(gateway, picture(b"GIF89a and more")) == (415, "unsupported_document")
    assert await refusal(gateway, picture(image + b"0" * 300_000)) == (413, "document_too_large")
    assert await refusal(gateway, {"document": {"type": "image_url", "image_url": "data:image/png;base64,%"}}) == (
        400,
        "invalid_document",
    )
    assert (await refusal(gateway, {"document": {"type": "image_url"}}))[1] == "missing_required_parameter"
    assert (await refusal(gateway, pdf(letter_pdf(2, paragraphs=0), pages=[2])))[0] == 400
    assert (await refusal(gateway, picture(image, mode="huge")))[0] == 400
    assert (await read(gateway, picture(image, mode="tiny"))).status == 200


async def test_a_key_without_the_model_may_not_read_with_it(gateway, house, letter):
    customer = await house.make_customer(models=["cloud/seer"])
    answer = await post(gateway.port, customer.key, picture(letter[0], model="rapidocr"), OCR)
    assert (answer.status, answer.json["error"]["code"]) == (403, "model_access_denied")


# --- models that see


async def test_deepseek_on_vllm_is_asked_in_its_own_words_and_its_places_become_boxes(gateway, letter, sees):
    sees.answers = [GROUNDED]
    answer = await read(gateway, picture(letter[0], model="gpu/deepseek-ai/DeepSeek-OCR", mode="base", boxes=True))
    assert answer.status == 200, answer.body
    asked = sees.asked[0]
    image, words = asked["messages"][0]["content"]
    assert (image["type"], words["text"]) == ("image_url", "<|grounding|>Convert the document to markdown. ")
    assert (asked["temperature"], asked["skip_special_tokens"]) == (0, False)
    assert asked["vllm_xargs"] == {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]}
    assert max(sees.picture) == 640
    (page,) = answer.json["pages"]
    width, height = page["dimensions"]["width"], page["dimensions"]["height"]
    assert (width, height) == sees.picture
    assert page["markdown"] == "# Angebot\n\nSehr geehrte Frau Müller\n![img-0.jpeg](img-0.jpeg)"
    assert page["text"] == "Angebot\n\nSehr geehrte Frau Müller"
    assert [box["label"] for box in page["boxes"]] == ["title", "text", "image"]
    assert page["boxes"][1]["points"][2] == [width, round(400 * height / 999)]
    assert page["images"][0]["id"] == "img-0.jpeg"
    assert page["images"][0]["bottom_right_y"] == height
    assert answer.json["usage_info"]["completion_tokens"] == 50
    row = await gateway.call(answer.headers["x-request-id"])
    assert (row["operation"], row["provider"], row["output_tokens"]) == ("chat", "gpu", 50)


async def test_llama_cpp_gets_the_remedy_that_it_knows(gateway, letter, sees):
    await read(gateway, picture(letter[0], model="cpp/deepseek-ai/DeepSeek-OCR", mode="gundam"))
    asked = sees.asked[0]
    assert (asked["dry_multiplier"], asked["dry_base"], asked["dry_penalty_last_n"]) == (2.0, 1.75, -1)
    assert "vllm_xargs" not in asked
    assert asked["messages"][0]["content"][1]["text"] == "<|grounding|>OCR"
    assert max(sees.picture) > 2000


async def test_a_cloud_is_asked_nothing_that_it_may_not_know(gateway, letter, sees):
    answer = await read(gateway, picture(letter[0], model="scanner", mode="tiny", prompt="What does it cost?"))
    assert answer.json["model"] == "scanner"
    asked = sees.asked[0]
    assert set(asked) == {"model", "messages", "stream", "stream_options", "max_tokens"}
    assert asked["messages"][0]["content"][1]["text"] == "What does it cost?"
    assert max(sees.picture) == 512


async def test_a_loop_is_broken_off_and_tried_again_with_stronger_remedies(gateway, letter, sees):
    sees.answers = ["Angebot\n" + "und so weiter, " * 4000, "# Angebot\n\nalles"]
    answer = await read(gateway, picture(letter[0], model="gpu/deepseek-ai/DeepSeek-OCR", mode="small"))
    (page,) = answer.json["pages"]
    assert (page["markdown"], page["degraded"], page["mode"]) == ("# Angebot\n\nalles", False, "base")
    first, second = sees.asked
    assert second["vllm_xargs"]["ngram_size"] < first["vllm_xargs"]["ngram_size"]
    assert second["repetition_penalty"] > 1
    own = answer.headers["x-request-id"]
    rows = await wait_until(
        lambda: [row for row in gateway.calls() if row["id"].startswith(own)][1:] and gateway.calls()
    )
    tried = [row for row in rows if row["id"].startswith(own)]
    assert [(row["status"], row["estimated"]) for row in tried] == [(200, 1), (200, 0)]
    assert 0 < tried[0]["output_tokens"] < 500, "the first was broken off long before its end"


async def test_a_model_that_goes_on_repeating_itself_gives_a_degraded_page(gateway, letter, sees):
    sees.answers = ["Angebot für Sie\n" + "noch einmal. " * 600]
    answer = await read(gateway, picture(letter[0], model="cloud/seer"))
    (page,) = answer.json["pages"]
    assert (page["degraded"], page["text"]) == (True, "Angebot für Sie\nnoch einmal.")
    assert len(sees.asked) == 2
    assert sees.asked[1]["frequency_penalty"] > 0


async def test_an_empty_page_is_looked_at_twice_and_is_no_error(gateway, letter, sees):
    sees.answers = [""]
    answer = await read(gateway, picture(letter[0], model="cloud/seer"))
    (page,) = answer.json["pages"]
    assert (answer.status, page["markdown"], page["degraded"], len(sees.asked)) == (200, "", False, 2)


async def test_a_text_that_is_cut_off_is_degraded(gateway, letter, sees):
    sees.reason = "length"
    answer = await read(gateway, picture(letter[0], model="cloud/seer"))
    assert (answer.json["pages"][0]["degraded"], len(sees.asked)) == (True, 1)


async def test_a_client_that_leaves_frees_the_upstream(gateway, upstream, letter):
    left = asyncio.Event()

    async def slow(talk: Talk) -> None:
        await talk.start_stream()
        await talk.event(chunk("Ang"))
        begun.set()
        await talk.left.wait()
        left.set()

    begun = asyncio.Event()
    upstream.script = slow
    exchange = await begin(gateway.port, gateway.key, picture(letter[0], model="cloud/seer"), OCR)
    async with asyncio.timeout(30):
        await begun.wait()
        exchange.close()
        await left.wait()
