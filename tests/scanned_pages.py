"""Pages as a scanner gives them, from text: drawn by pdfium in the fonts that every PDF reader has, then turned a
little, darkened, made noisy and pressed into a JPEG. The same page every time."""

import io
from collections.abc import Sequence

import numpy as np
import pypdfium2
from PIL import Image, ImageFilter

A4 = (595, 842)

GERMAN = (
    "Sehr geehrte Frau Müller-Größe, vielen Dank für Ihre Anfrage vom 3. März. Wie am Telefon besprochen,",
    "übersenden wir Ihnen das Angebot für die Überholung der Weichenheizung im Bahnhof Süd. Die Arbeiten",
    "dauern voraussichtlich fünf Werktage; während dieser Zeit fährt der Zug nach Köln von Gleis 7. Bitte",
    "prüfen Sie, ob die Öffnungszeiten der Zufahrtsstraße ausreichen. Der Preis beträgt 12.480,50 € zuzüglich",
    "19 % Umsatzsteuer. Außerdem benötigen wir bis zum 15. Juni eine schriftliche Bestätigung, daß der Strom",
    "zwischen 22:00 und 05:30 Uhr abgeschaltet werden darf. Mit freundlichen Grüßen, Jörg Weiß (Bauleiter)",
)
ENGLISH = (
    "The signal box was built in 1912 and still controls every train between the harbour and the main line.",
    "Its levers move forty switches through more than nine kilometres of wire; a bell tells the signalman of",
    "the next box what is coming. When the line was electrified, engineers kept the old frame and put relays",
    "beneath it. Visitors may see it on the first Sunday of each month, from 10 am until 4 pm. Tickets cost",
    "$6.50 for adults and $3.00 for children under 14; groups of ten or more should call 555-0187 in advance.",
)


def page_lines(paragraphs: int = 4) -> list[str]:
    """Lines of a page; an empty one between paragraphs. German and English take turns."""
    lines: list[str] = []
    for number in range(paragraphs):
        lines += [f"{number + 1}. {'Angebot' if number % 2 == 0 else 'History'}", ""]
        lines += [*(GERMAN, ENGLISH)[number % 2], ""]
    return lines


def make_pdf(pages: Sequence[bytes], size: tuple[int, int] = A4) -> bytes:
    """A PDF whose pages have these content streams."""
    fonts = "/Font << /F1 6 0 R /F2 7 0 R >>"
    objects: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [%s] /Count %d >>"
        % (b" ".join(b"%d 0 R" % (10 + 2 * number) for number in range(len(pages))), len(pages)),
        6: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        7: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
    }
    for number, content in enumerate(pages):
        objects[10 + 2 * number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] "
            f"/Resources << {fonts} >> /Contents {11 + 2 * number} 0 R >>"
        ).encode()
        objects[11 + 2 * number] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
    out = b"%PDF-1.4\n"
    places = {}
    for number, body in sorted(objects.items()):
        places[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n"
    for number, place in places.items():
        out += b"%d 1\n%010d 00000 n \n" % (number, place)
    last = max(objects) + 1
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (last, start)


def text_block(lines: Sequence[str], *, left: float, top: float, points: float, height: int = A4[1]) -> bytes:
    """A content stream that writes lines from the upper left, `points` high; headings (`1. …`) larger and bold."""
    parts = [b"BT"]
    y = height - top
    for line in lines:
        heading = line[:2] in {"1.", "2.", "3.", "4."}
        size = points * (1.6 if heading else 1)
        y -= size * 1.35 if line else points * 0.7
        text = line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
        parts.append(b"/F%d %.2f Tf 1 0 0 1 %.2f %.2f Tm (%s) Tj" % (2 if heading else 1, size, left, y, text))
    return b"\n".join([*parts, b"ET"])


def letter_pdf(pages: int = 1, *, points: float = 10.0, paragraphs: int = 4) -> bytes:
    """Each page says its number, then the lines of `page_lines`."""
    return make_pdf(
        [
            text_block([f"Seite {number + 1} von {pages}", "", *page_lines(paragraphs)], left=45, top=50, points=points)
            for number in range(pages)
        ]
    )


def draw_pdf(pdf: bytes, *, dpi: int, page: int = 0) -> Image.Image:
    document = pypdfium2.PdfDocument(pdf)
    try:
        return document[page].render(scale=dpi / 72).to_pil().convert("L")
    finally:
        document.close()


def scan(page: Image.Image, *, degrees: float = 0.4, noise: float = 9.0, blur: float = 0.6) -> Image.Image:
    """A page with grey paper, a shadow to one side, a slight turn, soft edges and noise."""
    turned = page.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=255).filter(ImageFilter.GaussianBlur(blur))
    ink = np.asarray(turned, dtype=np.float32)
    height, width = ink.shape
    shadow = np.linspace(0.90, 0.98, width, dtype=np.float32)[None, :]
    grain = np.random.default_rng(7).normal(0, noise, (height, width)).astype(np.float32)
    return Image.fromarray(np.clip(20 + ink * shadow * 0.92 + grain, 0, 255).astype(np.uint8))


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def scanned_letter(*, points: float = 10.0, dpi: int = 200, paragraphs: int = 4) -> tuple[bytes, str]:
    """A JPEG of a scanned A4 page and the text that stands on it."""
    pdf = make_pdf([text_block(page_lines(paragraphs), left=45, top=50, points=points)])
    image = scan(draw_pdf(pdf, dpi=dpi))
    return save(image, "JPEG", quality=60), "\n".join(line for line in page_lines(paragraphs) if line)


def character_errors(expected: str, read: str) -> float:
    """Edits that turn one text into the other, by the length of what was expected. Spaces count as one each."""
    want, have = " ".join(expected.split()), " ".join(read.split())
    before = np.arange(len(have) + 1)
    letters = np.array(list(have))
    for number, letter in enumerate(want, 1):
        row = np.minimum(before[1:] + 1, before[:-1] + (letters != letter)) if have else before[1:]
        row = np.concatenate(([number], row))
        # What is left is insertion: each place may be one more than any place before it.
        steps = np.arange(len(row))
        before = np.minimum.accumulate(row - steps) + steps
    return float(before[-1]) / max(1, len(want))
