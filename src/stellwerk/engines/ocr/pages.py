"""Pages of a document as pictures. For the worker only: what comes in may be made to break its decoder."""

import contextlib
import io
import warnings
from types import TracebackType
from typing import Literal, Protocol

import pypdfium2  # type: ignore[import-untyped]
from PIL import Image, ImageOps

from stellwerk.engines.ocr.documents import Kind

_FORMATS: dict[str, tuple[str, ...]] = {
    # Pillow calls a JPEG with several pictures in it MPO; its first one is a usual JPEG.
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "bmp": ("BMP",),
    "tiff": ("TIFF",),
}
_POINTS_PER_INCH = 72
_NEEDS_PASSWORD = 4


class Refusal(Exception):
    """A document that is damaged or too large. The text is for the client."""

    def __init__(self, message: str, reason: Literal["invalid", "too_large"] = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Pages(Protocol):
    """An open document. Both raise Refusal."""

    def count(self) -> int: ...

    def picture(self, page: int) -> Image.Image:
        """A page in RGB, upright as its file says."""

    def close(self) -> None: ...


def open_pages(data: bytes, kind: Kind, *, dpi: int, max_pixels: int, max_pages: int) -> Pages:
    """Raises Refusal."""
    if kind == "pdf":
        return _Pdf(data, dpi, max_pixels, max_pages)
    return _Picture(data, kind, max_pixels, max_pages)


def _check_count(count: int, most: int) -> int:
    if count > most:
        raise Refusal(f"The document has more than {most} pages (setting ocr.max_pages).", "too_large")
    if count < 1:
        raise Refusal("The document has no pages.")
    return count


class _Picture:
    def __init__(self, data: bytes, kind: Kind, max_pixels: int, max_pages: int) -> None:
        self._max_pixels = max_pixels
        self._max_pages = max_pages
        # Ours is the bound: Pillow's own has a warning before it and an error twice as far.
        Image.MAX_IMAGE_PIXELS = None
        warnings.simplefilter("ignore")
        with _Decoding():
            self._image = Image.open(io.BytesIO(data), formats=_FORMATS[kind])
        self._check_pixels()

    def count(self) -> int:
        if self._image.format != "TIFF":
            return 1
        with _Decoding():
            for page in range(self._max_pages + 1):
                try:
                    self._image.seek(page)
                except EOFError:
                    return _check_count(page, self._max_pages)
        return _check_count(self._max_pages + 1, self._max_pages)

    def picture(self, page: int) -> Image.Image:
        with _Decoding():
            if self._image.format == "TIFF":
                self._image.seek(page)
            self._check_pixels()
            self._image.load()
            return _rgb(ImageOps.exif_transpose(self._image))

    def close(self) -> None:
        self._image.close()

    def _check_pixels(self) -> None:
        width, height = self._image.size
        if width * height > self._max_pixels:
            raise Refusal(
                f"The page has {width} × {height} pixels; {self._max_pixels} are allowed (setting ocr.max_pixels).",
                "too_large",
            )
        if width < 1 or height < 1:
            raise Refusal("The page has no pixels.")


class _Pdf:
    def __init__(self, data: bytes, dpi: int, max_pixels: int, max_pages: int) -> None:
        self._dpi = dpi
        self._max_pixels = max_pixels
        try:
            self._pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if error.err_code == _NEEDS_PASSWORD:
                raise Refusal("The PDF is encrypted; remove its password first.") from None
            raise Refusal("The PDF is damaged and cannot be opened.") from None
        self._count = _check_count(len(self._pdf), max_pages)
        # What was typed into a form is drawn only when somebody asks for it before the first page is loaded.
        with contextlib.suppress(pypdfium2.PdfiumError):
            if self._pdf.get_formtype():
                self._pdf.init_forms()

    def count(self) -> int:
        return self._count

    def picture(self, page: int) -> Image.Image:
        try:
            opened = self._pdf[page]
            width, height = opened.get_size()
            scale = self._scale(width, height)
            bitmap = opened.render(scale=scale, rev_byteorder=True)
            picture: Image.Image = bitmap.to_pil().convert("RGB")
            bitmap.close()
            opened.close()
        except pypdfium2.PdfiumError:
            raise Refusal(f"Page {page + 1} of the PDF is damaged and cannot be drawn.") from None
        return picture

    def close(self) -> None:
        self._pdf.close()

    def _scale(self, width: float, height: float) -> float:
        """A plan of two square metres is drawn in fewer dots an inch rather than refused."""
        if not (0 < width < 1e6 and 0 < height < 1e6):
            raise Refusal("The page has no size that could be drawn.")
        scale = self._dpi / _POINTS_PER_INCH
        pixels = (width * scale + 1) * (height * scale + 1)
        return float(scale if pixels <= self._max_pixels else scale * (self._max_pixels / pixels) ** 0.5 * 0.99)


class _Decoding:
    """What Pillow's decoders raise over broken files, as Refusal: they are known to raise nearly anything."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MemoryError):
            raise Refusal("The page needs more memory than is allowed.", "too_large") from None
        if isinstance(error, Exception) and not isinstance(error, Refusal):
            raise Refusal("The picture is damaged or of a kind that cannot be read.") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}:
        low, high = image.getextrema()
        # Sixteen bits as scanners use them, whatever part of the range that is.
        scale = 255 / (float(high) - float(low) or 1.0)  # type: ignore[arg-type]
        image = image.convert("F").point(lambda value: value * scale - float(low) * scale).convert("L")  # type: ignore[arg-type]
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        ink = image.convert("RGBA")
        paper = Image.new("RGB", image.size, (255, 255, 255))
        paper.paste(ink, mask=ink.getchannel("A"))
        return paper
    return image.convert("RGB")
