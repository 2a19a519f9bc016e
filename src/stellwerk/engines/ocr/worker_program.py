"""The child process that opens documents and reads their pages, one question at a time.

Started as a module with nothing on its command line; frames (see protocol.py) come on standard input and go to what
was standard output. Anything that libraries print goes to standard error.
"""

import ctypes
import io
import os
import resource
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from stellwerk.engines.ocr.pages import Pages, Refusal, open_pages
from stellwerk.engines.ocr.protocol import (
    PREFIX,
    Answer,
    Draw,
    Drawn,
    Failed,
    Open,
    Opened,
    Orders,
    Question,
    Read,
    Ready,
    Refused,
    Warm,
    WasRead,
    decode_orders,
    decode_question,
    frame_head,
    lengths,
)
from stellwerk.engines.parent_death import die_with_parent

if TYPE_CHECKING:
    from stellwerk.engines.ocr.reader import Reader

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_PR_SET_DUMPABLE = 4
_POLL_SECONDS = 1.0
_PHOTO_QUALITY = 92
_SMALL_PICTURE = 4_000_000
"""Pixels up to which a page is sent without loss."""


class Desk:
    """The document that lies open, and the reader once it was needed."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._reader: Reader | None = None
        self._data = b""
        self._pages: Pages | None = None

    def answer(self, question: Question, body: bytes) -> tuple[Answer, bytes]:
        """Raises Refusal."""
        if isinstance(question, Warm):
            self._warm()
            return Ready(), b""
        if body:
            self._put_away()
            self._data = body
        pages = self._open(question)
        match question:
            case Open():
                return Opened(pages=pages.count()), b""
            case Read(page=page, mode=mode, boxes=boxes):
                return WasRead(page=self._read(pages, page, mode, boxes=boxes)), b""
            case Draw(page=page, longest=longest):
                return _drawn(pages.picture(page), longest)

    def _open(self, question: Open | Read | Draw) -> Pages:
        if self._pages is None:
            self._pages = open_pages(
                self._data,
                question.kind,
                dpi=self._orders.dpi,
                max_pixels=self._orders.max_pixels,
                max_pages=self._orders.max_pages,
            )
        return self._pages

    def _put_away(self) -> None:
        pages, self._pages, self._data = self._pages, None, b""
        if pages is not None:
            pages.close()

    def _warm(self) -> "Reader":
        if self._reader is None:
            from stellwerk.engines.ocr.reader import Reader  # noqa: PLC0415 — a second, and not needed to draw a page

            self._reader = Reader(self._orders.threads)
        return self._reader

    def _read(self, pages: Pages, page: int, mode: Any, *, boxes: bool) -> Any:
        import numpy as np  # noqa: PLC0415

        return self._warm().read(np.asarray(pages.picture(page)), page, mode, boxes=boxes)


def _drawn(picture: Any, longest: int | None) -> tuple[Drawn, bytes]:
    if longest is not None and max(picture.size) > longest:
        picture.thumbnail((longest, longest))
    out = io.BytesIO()
    small = picture.width * picture.height <= _SMALL_PICTURE
    if small:
        picture.save(out, "PNG", compress_level=3)
    else:
        picture.save(out, "JPEG", quality=_PHOTO_QUALITY)
    content_type = "image/png" if small else "image/jpeg"
    return Drawn(content_type=content_type, width=picture.width, height=picture.height), out.getvalue()


def _answer(desk: Desk, question: Question, body: bytes) -> tuple[Answer, bytes]:
    try:
        return desk.answer(question, body)
    except Refusal as error:
        return Refused(reason=error.reason, message=error.message), b""
    except MemoryError:
        return Refused(reason="too_large", message="The page needs more memory than is allowed."), b""
    except ImportError as error:
        return Failed(reason=f"the module {error.name} cannot be loaded"), b""
    except Exception as error:  # noqa: BLE001 — libraries raise anything over foreign input; the worker goes on
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return Failed(reason=type(error).__name__), b""


def _limit(orders: Orders) -> None:
    # Nothing has to be written: what breaks a decoder cannot fill the disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if orders.memory_mib and sys.platform == "linux":
        most = orders.memory_mib << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _leave_network() -> None:
    """Into a network namespace with nothing in it, where the kernel lets us: nothing here needs one, and what a
    document makes of its decoder reaches nobody. Has to come before the first thread."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if libc.unshare(_NEW_USER | _NEW_NET) == 0:
            # The change of rights has made us unreadable for the gateway, which looks for its children by their mark.
            libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _watch(parent: int) -> None:
    """For systems whose kernel does not end us with the gateway, while native code computes."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(0)


def _receive(source: BinaryIO) -> tuple[bytes, bytes] | None:
    """Head and body of the next frame; None at the end."""
    prefix = source.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    head, body = lengths(prefix)
    received = source.read(head), source.read(body)
    return received if len(received[0]) == head and len(received[1]) == body else None


def _send(sink: BinaryIO, answer: Answer, body: bytes) -> None:
    sink.write(frame_head(answer, len(body)))
    sink.write(body)
    sink.flush()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before the kernel is told to end us with the gateway: a change of rights would make it forget.
    _leave_network()
    source = sys.stdin.buffer
    first = _receive(source)
    if first is None:
        return
    orders = decode_orders(first[0])
    die_with_parent(orders.parent)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(orders.parent,), daemon=True).start()
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(orders)
    desk = Desk(orders)
    while (received := _receive(source)) is not None:
        answer, body = _answer(desk, decode_question(received[0]), received[1])
        del received
        _send(sink, answer, body)
    # Not through the interpreter's own end: the libraries' destructors may wait for their threads.
    os._exit(0)


if __name__ == "__main__":
    main()
