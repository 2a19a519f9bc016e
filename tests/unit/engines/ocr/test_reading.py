"""Real pages through the real engine."""

import asyncio
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from stellwerk.core.errors import BadRequest, TooLarge, UnsupportedMedia
from tests.scanned_pages import (
    character_errors,
    draw_pdf,
    letter_pdf,
    make_pdf,
    save,
    scan,
    scanned_letter,
    text_block,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEFT = (
    "The first column has",
    "several lines that all",
    "fill it to its edge so",
    "that nobody can doubt",
    "where it ends.",
)
RIGHT = (
    "The second column is",
    "beside it and is read",
    "only after the first",
    "has come to its end",
    "at the bottom.",
)


@pytest.fixture(scope="module")
def letter():
    return scanned_letter(paragraphs=2)


@pytest.mark.parametrize(
    ("mode", "most"), [("tiny", 0.10), ("small", 0.02), ("base", 0.005), ("large", 0.005), ("gundam", 0.005)]
)
async def test_a_scanned_letter_is_read_as_well_as_its_mode_promises(engine, letter, mode, most):
    scanned, text = letter
    page = await engine.read(await engine.open(scanned, "image/jpeg"), 0, mode=mode)
    assert character_errors(text, page.text) <= most
    assert (page.mode, page.engine, page.degraded, page.boxes) == (mode, "rapidocr", False, ())
    assert page.seconds > 0


async def test_tiny_print_needs_a_finer_mode(engine):
    scanned, text = scanned_letter(points=4.5, paragraphs=1)
    document = await engine.open(scanned)
    errors = {
        mode: character_errors(text, (await engine.read(document, 0, mode=mode)).text)
        for mode in ("tiny", "base", "gundam")
    }
    assert errors["tiny"] > 0.9
    assert errors["base"] > 0.5
    assert errors["gundam"] < 0.03


async def test_german_letters_headings_and_paragraphs_survive(engine, letter):
    page = await engine.read(await engine.open(letter[0]), 0)
    for word in ("Müller-Größe", "fährt der Zug nach Köln", "Überholung", "12.480,50 €", "Jörg Weiß"):
        assert word in page.text
    assert re.search(r"^#+ 1\. Angebot$", page.markdown, re.MULTILINE)
    assert re.search(r"^#+ 2\. History$", page.markdown, re.MULTILINE)
    assert page.score > 0.9


async def test_boxes_lie_where_the_text_stands(engine):
    pdf = make_pdf([text_block(["Hello signal box"], left=100, top=200, points=20)])
    page = await engine.read(await engine.open(pdf, "application/pdf"), 0, boxes=True)
    assert (page.width, page.height) == (1240, 1755)
    (box,) = page.boxes
    assert box.text == "Hello signal box"
    (left, top), (right, _), (_, bottom), _ = box.points
    dots = 150 / 72
    assert left == pytest.approx(100 * dots, abs=16)
    assert top < 227 * dots < bottom + 20
    assert 140 * dots < right - left < 200 * dots
    assert msgspec.json.decode(msgspec.json.encode(page))["boxes"][0]["text"] == "Hello signal box"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
async def test_every_kind_of_picture_is_read(engine, kind):
    pdf = make_pdf([text_block([f"This is a {kind} file"], left=10, top=10, points=14, height=60)], (200, 60))
    document = await engine.open(save(draw_pdf(pdf, dpi=150), kind))
    assert (document.kind, document.pages) == (kind.lower(), 1)
    assert (await engine.read(document, 0)).text == f"This is a {kind} file"


async def test_pages_of_a_pdf_are_read_side_by_side_and_each_is_its_own(engine):
    document = await engine.open(letter_pdf(3, points=12, paragraphs=0))
    assert document.pages == 3
    pages = await asyncio.gather(*(engine.read(document, number, mode="base") for number in range(3)))
    assert [page.text for page in pages] == [f"Seite {number} von 3" for number in (1, 2, 3)]
    assert [page.page for page in pages] == [0, 1, 2]


async def test_pages_of_a_tiff_are_read(engine):
    pages = [draw_pdf(letter_pdf(3, paragraphs=0), dpi=100, page=number) for number in range(3)]
    document = await engine.open(save(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert document.pages == 3
    assert (await engine.read(document, 2)).text == "Seite 3 von 3"


async def test_two_columns_are_read_one_after_the_other(engine):
    columns = [text_block(lines, left=left, top=100, points=16) for lines, left in ((LEFT, 60), (RIGHT, 330))]
    page = await engine.read(await engine.open(make_pdf([b"\n".join(columns)])), 0)
    assert character_errors(" ".join((*LEFT, *RIGHT)), page.text) < 0.01


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_a_page_that_lies_wrong_is_read_and_its_boxes_stay_where_they_are(engine, degrees):
    lines = ["The first line of the page", "and the second one of it", "before the third ends it"]
    pdf = make_pdf([text_block(lines, left=40, top=30, points=16, height=300)], (400, 300))
    turned = scan(draw_pdf(pdf, dpi=150), degrees=0.2).rotate(degrees, expand=True)
    page = await engine.read(await engine.open(save(turned, "JPEG")), 0, boxes=True)
    assert page.text.split("\n") == lines
    assert (page.width, page.height) == turned.size
    x, y = page.boxes[0].points[0]
    before = {
        90: (turned.height - y, x),
        180: (turned.width - x, turned.height - y),
        270: (y, turned.width - x),
    }
    assert before[degrees] == pytest.approx((40 * 150 / 72, 35 * 150 / 72), abs=25)


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (700, 700)])
async def test_pages_without_text_are_empty(engine, size):
    document = await engine.open(save(Image.new("L", size, 250), "PNG"))
    for mode in ("tiny", "gundam"):
        page = await engine.read(document, 0, mode=mode, boxes=True)
        assert (page.text, page.markdown, page.boxes, page.score) == ("", "", (), None)


async def test_a_page_can_be_had_as_a_picture(engine):
    document = await engine.open(letter_pdf(2))
    drawn = await engine.draw(document, 1, longest=640)
    picture = Image.open(io.BytesIO(drawn.data))
    assert (drawn.content_type, picture.format) == ("image/png", "PNG")
    assert picture.size == (drawn.width, drawn.height) == (452, 640)
    whole = await engine.draw(document, 0)
    assert (whole.width, whole.height) == (1240, 1755)


async def test_large_pictures_are_sent_as_jpeg(engine):
    document = await engine.open(save(Image.new("RGB", (3000, 2000), "white"), "PNG"))
    drawn = await engine.draw(document, 0)
    assert drawn.content_type == "image/jpeg"
    assert drawn.data.startswith(b"\xff\xd8\xff")


async def test_bad_documents_are_refused_with_the_reason_and_the_worker_lives_on(engine):
    before = engine.status()
    with pytest.raises(BadRequest, match="damaged") as refused:
        await engine.open(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert refused.value.code == "invalid_document"
    with pytest.raises(TooLarge, match="12000 × 12000 pixels"):
        await engine.open(save(Image.new("1", (12_000, 12_000)), "PNG"))
    with pytest.raises(UnsupportedMedia):
        await engine.open(b"GIF89a", "image/gif")
    document = await engine.open(letter_pdf(1))
    with pytest.raises(BadRequest, match="no page 2"):
        await engine.read(document, 1)
    with pytest.raises(BadRequest, match="mode must be one of tiny, small"):
        await engine.read(document, 0, mode="huge")
    after = engine.status()
    assert (after.crashes, after.workers[0].pid) == (before.crashes, before.workers[0].pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
async def test_a_worker_holds_no_socket_and_has_no_network(engine):
    await engine.read(await engine.open(letter_pdf(1, paragraphs=0)), 0, mode="tiny")
    process = Path("/proc") / str(engine.status().workers[0].pid)
    # Its own standard input may be a pair of sockets.
    files = {file.name: str(file.readlink()) for file in (process / "fd").iterdir()}
    given = {files.pop(name) for name in ("0", "1", "2")}
    assert [file for file in files.values() if file.startswith("socket:") and file not in given] == []
    if _may_leave():
        devices = (process / "net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def _may_leave() -> bool:
    program = shutil.which("unshare")
    return program is not None and subprocess.run([program, "-rn", "true"], check=False).returncode == 0
