import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stellwerk.engines.ocr.pages import Refusal, open_pages
from tests.scanned_pages import letter_pdf, make_pdf, save


def opened(data, kind, **bounds):
    return open_pages(data, kind, **{"dpi": 72, "max_pixels": 1_000_000, "max_pages": 5} | bounds)


def outcome(data, kind):
    """What becomes of the last page: "read", or the Refusal."""
    try:
        pages = opened(data, kind)
        pages.picture(pages.count() - 1)
    except Refusal as refusal:
        return refusal
    return "read"


def grey(width=40, height=30, shade=90):
    return Image.new("L", (width, height), shade)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_pictures_have_one_page_in_colour(kind):
    pages = opened(save(grey(), kind), kind.lower())
    assert pages.count() == 1
    picture = pages.picture(0)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    pages.close()


def test_every_page_of_a_tiff_is_there():
    data = save(grey(shade=0), "TIFF", save_all=True, append_images=[grey(10, 10, 100), grey(20, 20, 200)])
    pages = opened(data, "tiff")
    assert pages.count() == 3
    assert pages.picture(2).getpixel((5, 5)) == (200, 200, 200)
    assert pages.picture(1).size == (10, 10)
    assert pages.picture(0).getpixel((5, 5)) == (0, 0, 0)


def test_pages_of_a_pdf_are_drawn_at_the_resolution_that_was_asked_for():
    pages = opened(letter_pdf(3), "pdf", dpi=36)
    assert pages.count() == 3
    assert pages.picture(2).size == (298, 421)


def test_a_pdf_made_by_pillow_is_read():
    pages = opened(save(grey(200, 100), "PDF", save_all=True, append_images=[grey(), grey()]), "pdf")
    assert pages.count() == 3
    assert pages.picture(2).getextrema()[0][0] < 100


def test_a_huge_page_of_a_pdf_is_drawn_in_fewer_pixels():
    picture = opened(make_pdf([b""], (14_000, 7000)), "pdf").picture(0)
    assert 900_000 < picture.width * picture.height <= 1_000_000


def test_what_is_transparent_is_paper():
    assert opened(save(Image.new("RGBA", (9, 9)), "PNG"), "png").picture(0).getpixel((1, 1)) == (255, 255, 255)


def test_sixteen_bits_keep_their_greys():
    wide = Image.fromarray(np.linspace(0, 65_535, 100, dtype=np.uint16).reshape(10, 10))
    picture = opened(save(wide, "PNG"), "png").picture(0)
    assert picture.getextrema()[0] == (0, 255)
    assert 100 < picture.getpixel((5, 4))[0] < 140


def test_a_photo_is_turned_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(save(grey(), "JPEG", exif=exif), "jpeg").picture(0).size == (30, 40)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    with pytest.raises(Refusal, match="2000 × 1000 pixels") as refused:
        opened(save(Image.new("1", (2000, 1000)), "PNG"), "png")
    assert refused.value.reason == "too_large"


def test_a_bomb_is_refused_before_it_is_decoded():
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(bytes(60_000 * 1000), 9)
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(Refusal, match="60000 × 60000"):
        opened(data, "png")


def test_a_later_page_of_a_tiff_has_the_same_bound():
    data = save(grey(), "TIFF", save_all=True, append_images=[Image.new("1", (4000, 4000))])
    with pytest.raises(Refusal, match="4000 × 4000"):
        opened(data, "tiff").picture(1)


def test_too_many_pages_are_refused():
    with pytest.raises(Refusal, match="more than 5 pages"):
        opened(letter_pdf(6, paragraphs=1), "pdf")
    with pytest.raises(Refusal, match="more than 5 pages"):
        opened(save(grey(), "TIFF", save_all=True, append_images=[grey()] * 5), "tiff").count()


def test_a_tiff_whose_pages_go_in_a_circle_ends():
    directory = struct.pack("<H", 0) + struct.pack("<I", 8)
    with pytest.raises(Refusal):
        opened(b"II*\x00" + struct.pack("<I", 8) + directory, "tiff").count()


def test_an_encrypted_pdf_says_so():
    data = letter_pdf(1).replace(
        b"/Root 1 0 R",
        b"/Root 1 0 R /ID [<31> <31>] /Encrypt << /Filter /Standard /V 1 /R 2 /P -1 /O <%s> /U <%s> >>"
        % (b"00" * 32, b"00" * 32),
    )
    with pytest.raises(Refusal, match="encrypted"):
        opened(data, "pdf")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff", "pdf"])
def test_cut_and_broken_files_are_refused_or_read(kind):
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 255, (80, 90, 3), np.uint8))
    whole = letter_pdf(1, paragraphs=1) if kind == "pdf" else save(noise, kind.upper())
    chance = random.Random(5)
    outcomes = set()
    for number in range(60):
        data = bytearray(whole)
        if number % 2:
            del data[chance.randrange(12, len(data)) :]
        else:
            for _ in range(20):
                data[chance.randrange(12, len(data))] = chance.randrange(256)
        outcomes.add(outcome(bytes(data), kind))
    assert "read" in outcomes or kind != "pdf"
    assert any(isinstance(told, Refusal) and "/" not in told.message for told in outcomes)


def test_random_bytes_behind_a_known_beginning_are_refused():
    chance = random.Random(9)
    for beginning, kind in [(b"\xff\xd8\xff", "jpeg"), (b"II*\x00", "tiff"), (b"BM", "bmp"), (b"%PDF-1.7\n", "pdf")]:
        for _ in range(30):
            assert isinstance(outcome(beginning + chance.randbytes(500), kind), Refusal)


def test_a_page_is_drawn_into_memory_and_not_kept_open():
    pages = opened(letter_pdf(2, paragraphs=1), "pdf")
    first = pages.picture(0)
    pages.close()
    out = io.BytesIO()
    first.save(out, "PNG")
    assert out.tell() > 1000
