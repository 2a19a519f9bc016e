"""OpenAI's /v1/files: files for batches and for reading, kept for a while."""

import asyncio
import re
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta

from stellwerk.api._guard import Request, Routes
from stellwerk.api._multipart import Part, read_form
from stellwerk.api.jobs.ownership import Ownership
from stellwerk.api.openai.file_store import KEPT_SECONDS, FileStore
from stellwerk.core.errors import BadRequest, GatewayError
from stellwerk.core.principal import CALLERS, READERS
from stellwerk.http.exchange import Headers, header_text
from stellwerk.records import files
from stellwerk.records.files import StoredFile, Whose

PURPOSES = ("batch", "ocr", "user_data", "vision", "assistants")
_OF_MISTRAL = {"sample_type": "ocr_input", "source": "upload", "deleted": False}
_JSON: Headers = ((b"content-type", b"application/json"),)
_SECONDS = re.compile(r"[0-9]{1,9}")
_SHORTEST, _LONGEST = 3600, int(KEPT_SECONDS)


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    purpose: Annotated[str, Meta(max_length=20)] | None = None
    after: Annotated[str, Meta(max_length=40)] | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    order: Literal["asc", "desc"] = "desc"


class FilesAPI:
    def __init__(self, store: FileStore, ownership: Ownership) -> None:
        self._store = store
        self._ownership = ownership

    def register(self, routes: Routes) -> None:
        routes.add("POST", "/v1/files", CALLERS, self._upload)
        routes.add("GET", "/v1/files", READERS, self._list)
        routes.add("GET", "/v1/files/{file_id}", READERS, self._show)
        routes.add("DELETE", "/v1/files/{file_id}", CALLERS, self._delete)
        routes.add("GET", "/v1/files/{file_id}/content", READERS, self._show_content)

    async def find(self, request: Request, file_id: str) -> StoredFile:
        """Raises NotFound, in the same words for what is not there and for what is not his."""
        file = await self._store.find(file_id)
        if not self._ownership.may_see(request.caller, file):
            raise files.file_not_found()
        return file

    def whose(self, request: Request) -> Whose:
        return msgspec.convert(self._ownership.filter_of(request.caller), Whose)

    async def _upload(self, request: Request) -> None:
        exchange = request.exchange
        form = read_form(exchange.body, exchange.headers.get(b"content-type"))
        part = form.get("file")
        if part is None or part.filename is None:
            raise BadRequest("The form has no file in 'file'.", param="file", code="missing_required_parameter")
        purpose = form["purpose"].text if "purpose" in form else ""
        if purpose not in PURPOSES:
            raise BadRequest(f"'purpose' is one of {', '.join(PURPOSES)}.", param="purpose")
        if not part.content:
            raise BadRequest("The file is empty.", param="file")
        file = await self._store.add(
            request.caller,
            self.whose(request),
            purpose=purpose,
            name=part.filename or "file",
            content=part.content,
            seconds=_read_seconds(form),
        )
        respond(request, show_file(file))

    async def _list(self, request: Request) -> None:
        query = read_query(request, ListQuery)
        found = await self._store.fetch(
            partial(
                files.list_files,
                whose=self.whose(request),
                purpose=query.purpose,
                after=query.after,
                ascending=query.order == "asc",
                limit=query.limit + 1,
            )
        )
        respond(request, show_list([show_file(file) for file in found[: query.limit]], len(found) > query.limit))

    async def _show(self, request: Request) -> None:
        respond(request, show_file(await self.find(request, read_id(request, 3))))

    async def _delete(self, request: Request) -> None:
        file = await self.find(request, read_id(request, 3))
        await self._store.run(partial(files.delete_file, file_id=file.id))
        respond(request, {"id": file.id, "object": "file", "deleted": True})

    async def _show_content(self, request: Request) -> None:
        exchange = request.exchange
        file = await self.find(request, read_id(request, 3))
        name = header_text(file.name).replace(b'"', b"%22").replace(b"\\", b"%5C")
        # What somebody has uploaded must never become a page of this origin.
        exchange.start(
            200,
            (
                (b"x-request-id", request.id.encode()),
                (b"content-type", b"application/octet-stream"),
                (b"content-disposition", b'attachment; filename="%b"' % name),
                (b"x-content-type-options", b"nosniff"),
            ),
        )
        valve = _Valve()
        exchange.feed_from(valve)
        try:
            if exchange.method != "HEAD":
                async for part in self._store.parts(file.id):
                    exchange.write(part)
                    await valve.wait()
        except GatewayError:
            exchange.break_off()
            raise
        finally:
            exchange.feed_from(None)
        exchange.finish()


class _Valve:
    """Holds back whoever writes while the client does not keep up: an output may have thousands of answers."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def pause_reading(self) -> None:
        self._open.clear()

    def resume_reading(self) -> None:
        self._open.set()

    async def wait(self) -> None:
        await self._open.wait()


def show_file(file: StoredFile) -> dict[str, Any]:
    shown = {
        "id": file.id,
        "object": "file",
        "bytes": file.size,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
    # Mistral's clients, who alone upload documents to be read, take no file for one without these.
    return {**shown, **_OF_MISTRAL} if file.purpose == "ocr" else shown


def show_list(rows: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": has_more}


def respond(request: Request, body: object, status: int = 200) -> None:
    headers = ((b"x-request-id", request.id.encode()), *_JSON)
    request.exchange.respond(status, headers, msgspec.json.encode(body))


def read_id(request: Request, place: int) -> str:
    """The segment of the path at `place`, of which the first is 1."""
    return unquote(request.exchange.path.split("/")[place])[:100]


_Query = Any


def read_query(request: Request, kind: type[_Query]) -> _Query:
    """Raises BadRequest that names the parameter."""
    given = dict(parse_qsl(request.exchange.query.decode("ascii", "replace"), keep_blank_values=True))
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The query is wrong: {str(error)[:200]}.", code="invalid_query") from None


def _read_seconds(form: dict[str, Part]) -> float:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return KEPT_SECONDS
    text = "" if seconds is None else seconds.text
    known = anchor is None or anchor.text == "created_at"
    if not known or not _SECONDS.fullmatch(text) or not _SHORTEST <= int(text) <= _LONGEST:
        raise BadRequest(
            f"'expires_after' counts from created_at and has {_SHORTEST} to {_LONGEST} seconds.", param="expires_after"
        )
    return float(text)
