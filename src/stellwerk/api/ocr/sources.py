"""Where documents come from: written into the request, at an address, in a file that was uploaded, in a job."""

import asyncio
import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from stellwerk.core.errors import BadRequest, NotFound, TooLarge, UpstreamError
from stellwerk.core.principal import Principal
from stellwerk.engines.ocr.documents import Document
from stellwerk.http.egress import EgressAnswer
from stellwerk.http.egress_url import Url

_FETCH_SECONDS = 60.0
_REDIRECTS = 3
_DATA_URL = re.compile(r"data:(?P<kind>[^;,]{0,100})(?P<parameters>(?:;[^;,]{0,100}){0,8}),", re.IGNORECASE)
# Possessive, and without a class that two parts share: whatever is sent, each character is looked at once.
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]++={0,2}+\s*+")
_SHORTEST_BASE64 = 32
_FILE_URL = re.compile(r"https?://(?P<host>[^/]{1,260})/v1/files/(?P<id>file-[A-Za-z0-9]{1,64})/content")
_MOST_OPENED, _MOST_OPENED_BYTES = 8, 128 << 20
_HEADERS = (("accept", "application/pdf, image/*;q=0.9, */*;q=0.1"),)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One document, in one of the ways to name it."""

    data: bytes | None = None
    url: str | None = None
    file_id: str | None = None
    job_id: str | None = None
    """A job of several pages, of which this is one: the document lies in its body."""
    number: int = 0
    """Its place among the documents of that job."""
    content_type: str | None = None
    name: str = ""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    data: bytes
    content_type: str | None
    name: str = ""


class Addresses(Protocol):
    """The part of `Egress` that is needed here."""

    def parse(self, url: str) -> Url: ...

    async def send(
        self, method: str, url: str, headers: Any, body: bytes = b"", *, seconds: float, most_bytes: int, redirects: int
    ) -> EgressAnswer: ...


ReadFile = Callable[[Principal, str], Awaitable[Taken]]
"""The content of a file that the caller may see. Raises NotFound."""
ReadJob = Callable[[Principal, str, int], Awaitable[Taken]]
"""A document out of a job that the caller may see. Raises NotFound."""
Open = Callable[[bytes, str | None], Awaitable[Document]]


class Sources:
    """Fetches documents and opens them. The latest are kept: the pages of one are asked for one after the other."""

    def __init__(
        self, egress: Addresses, read_file: ReadFile, read_job: ReadJob, open_document: Open, most_bytes: int
    ) -> None:
        self._egress = egress
        self._read_file = read_file
        self._read_job = read_job
        self._open = open_document
        self._most_bytes = most_bytes
        self._opened: OrderedDict[tuple[str, int], Document] = OrderedDict()
        self._opening: dict[tuple[str, int], asyncio.Lock] = {}

    async def check(self, caller: Principal, source: Source) -> None:
        """Raises what can be known to be wrong without fetching anything that lies elsewhere."""
        if source.url is not None:
            self._egress.parse(source.url)
        elif source.file_id is not None:
            self._check_length((await self._read_file(caller, source.file_id)).data)
        elif source.data is not None:
            self._check_length(source.data)

    async def take(self, caller: Principal, source: Source) -> Taken:
        """The bytes. Raises NotFound, BadRequest (UrlRefused among them), TooLarge and UpstreamError."""
        if source.url is not None:
            taken = await self._fetch(source.url)
        elif source.file_id is not None:
            taken = await self._read_file(caller, source.file_id)
        elif source.job_id is not None:
            taken = await self._read_job(caller, source.job_id, source.number)
        else:
            taken = Taken(data=source.data or b"", content_type=source.content_type, name=source.name)
        self._check_length(taken.data)
        return taken

    async def open(self, caller: Principal, source: Source) -> Document:
        """Raises also what is no document that can be read."""
        if source.job_id is None:
            taken = await self.take(caller, source)
            return await self._open(taken.data, taken.content_type)
        # Whoever may see the job is asked each time; what it holds never changes.
        key = (f"{caller.user_id} {caller.key_id} {source.job_id}", source.number)
        lock = self._opening.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                found = self._opened.get(key)
                if found is None:
                    taken = await self.take(caller, source)
                    found = self._keep(key, await self._open(taken.data, taken.content_type))
                return found
        finally:
            if not lock.locked():
                self._opening.pop(key, None)

    def _keep(self, key: tuple[str, int], document: Document) -> Document:
        self._opened[key] = document
        while len(self._opened) > 1 and self._holds_too_much():
            self._opened.popitem(last=False)
        return document

    def _holds_too_much(self) -> bool:
        size = sum(len(each.data) for each in self._opened.values())
        return len(self._opened) > _MOST_OPENED or size > _MOST_OPENED_BYTES

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        for key in [key for key in self._opened if key[0].endswith(f" {job_id}")]:
            del self._opened[key]

    async def _fetch(self, url: str) -> Taken:
        answer = await self._egress.send(
            "GET", url, _HEADERS, seconds=_FETCH_SECONDS, most_bytes=self._most_bytes, redirects=_REDIRECTS
        )
        if not 200 <= answer.status < 300:
            # Which status it was would tell what the address is good for.
            raise UpstreamError("The document's address did not give a document.", code="document_unavailable")
        return Taken(data=answer.body, content_type=answer.headers.get("content-type"))

    def _check_length(self, data: bytes) -> None:
        if len(data) > self._most_bytes:
            raise TooLarge(
                f"The document has {len(data)} bytes; {self._most_bytes} are allowed (setting ocr.max_bytes).",
                code="document_too_large",
            )


def read_address(text: str, param: str, host: str | None = None) -> Source:
    """A data URL, an address, or Base64. Raises BadRequest. `host` is the name by which the client knows this gateway:
    addresses of its own files are their ids."""
    head = text[:16].lower()
    if head.startswith("data:"):
        return _read_data_url(text, param)
    if head.startswith(("https://", "http://")):
        own = _FILE_URL.fullmatch(text)
        if own is not None and host and own["host"].lower() == host.lower():
            return Source(file_id=own["id"])
        return Source(url=text)
    if head.startswith("file-") and len(text) < 100:
        return Source(file_id=text)
    if len(text) >= _SHORTEST_BASE64 and _BASE64.fullmatch(text):
        return Source(data=_decode(text, param))
    raise BadRequest(f"'{param}' must be an https URL, a data URL, Base64, or the id of a file.", param=param)


def _read_data_url(text: str, param: str) -> Source:
    found = _DATA_URL.match(text)
    if found is None:
        raise BadRequest(f"The data URL in '{param}' cannot be read.", param=param, code="invalid_document")
    payload = text[found.end() :]
    encoded = found["parameters"].lower().endswith(";base64")
    data = _decode(payload, param) if encoded else unquote_to_bytes(payload)
    return Source(data=data, content_type=found["kind"] or None)


def _decode(text: str, param: str) -> bytes:
    try:
        plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"The Base64 in '{param}' is damaged.", param=param, code="invalid_document") from None


def no_document(param: str = "document") -> NotFound:
    return NotFound("There is no such document.", code="document_not_found", param=param)
