"""What clients send who want a document read: in Mistral's form, as a form with a file, as the file itself."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta

from stellwerk.api._bodies import decode_body
from stellwerk.api._multipart import Part, read_form
from stellwerk.api.ocr.sources import Source, read_address
from stellwerk.core.errors import BadRequest
from stellwerk.engines.ocr.modes import MODES, Mode
from stellwerk.http.exchange import Exchange

MOST_PAGES = 10_000
_LONGEST_PROMPT = 4_000
_ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
_Pages = Annotated[list[Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(min_length=1, max_length=MOST_PAGES)]
_MaxTokens = Annotated[int, Meta(ge=1, le=1_000_000)]


class ImageUrl(msgspec.Struct):
    url: str


class AskedDocument(msgspec.Struct):
    """`document` in Mistral's API, with files of this gateway, and documents of jobs, which only jobs ask for."""

    type: Literal["document_url", "image_url", "file", "base64", "job"] | None = None
    document_url: str | ImageUrl | None = None
    image_url: str | ImageUrl | None = None
    document_name: Annotated[str, Meta(max_length=1000)] | None = None
    file_id: Annotated[str, Meta(max_length=100)] | None = None
    base64: str | None = None
    job_id: Annotated[str, Meta(max_length=64)] | None = None
    number: Annotated[int, Meta(ge=0, le=1000)] = 0


class OcrBody(msgspec.Struct, kw_only=True):
    """POST /v1/ocr. What else Mistral's API has is not looked at."""

    document: AskedDocument
    model: _ModelName | None = None
    pages: _Pages | None = None
    include_image_base64: bool | None = None
    mode: Mode | None = None
    boxes: bool | None = None
    prompt: Annotated[str, Meta(min_length=1, max_length=_LONGEST_PROMPT)] | None = None
    max_tokens: _MaxTokens | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One document to be read. None is what the configuration says."""

    source: Source
    model: str | None = None
    pages: tuple[int, ...] | None = None
    mode: Mode | None = None
    boxes: bool = False
    prompt: str | None = None
    max_tokens: int | None = None


_decoder = msgspec.json.Decoder(OcrBody)
_JSON_KINDS = frozenset({"", "application/json", "text/plain", "application/x-www-form-urlencoded"})


def read_asked(exchange: Exchange) -> Asked:
    """A request to /v1/ocr in any of its forms. Raises BadRequest and UnsupportedMedia."""
    given = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if given == "multipart/form-data":
        return _read_form(exchange)
    if given.startswith("image/") or given in ("application/pdf", "application/octet-stream"):
        return read_raw(exchange)
    body = decode_body(exchange.body, exchange.headers.get(b"content-type"), _decoder)
    host = exchange.headers.get(b"host", b"").decode("latin-1")
    return Asked(
        source=_read_document(body.document, host),
        model=body.model,
        pages=None if body.pages is None else tuple(body.pages),
        mode=body.mode,
        boxes=bool(body.boxes),
        prompt=body.prompt,
        max_tokens=body.max_tokens,
    )


def read_raw(exchange: Exchange) -> Asked:
    """The body is the document; what else is wanted stands in the query. Raises BadRequest."""
    try:
        query = dict(parse_qsl(exchange.query.decode("ascii"), max_num_fields=32, errors="strict"))
    except ValueError:
        raise BadRequest("The query cannot be read.", code="invalid_query") from None
    if not exchange.body:
        raise BadRequest("The request has no body; a document is expected.", code="invalid_document")
    name = unquote(exchange.headers.get(b"x-filename", b"").decode("latin-1"), errors="replace")
    kind = exchange.headers.get(b"content-type", b"").decode("latin-1")[:255]
    return _read_options(query, Source(data=exchange.body, content_type=kind or None, name=_printable(name)))


def _read_form(exchange: Exchange) -> Asked:
    form = read_form(exchange.body, exchange.headers.get(b"content-type"))
    file = next((form[name] for name in ("file", "document", "image") if name in form), None)
    if file is None:
        raise BadRequest("The form has no file in 'file'.", param="file", code="missing_required_parameter")
    options = {name: part.text for name, part in form.items() if _is_option(part)}
    source = Source(data=file.content, content_type=file.content_type, name=_printable(file.filename or ""))
    return _read_options(options, source)


def _is_option(part: Part) -> bool:
    return part.filename is None and part.name in ("model", "pages", "mode", "boxes", "prompt", "max_tokens")


def _read_options(given: Mapping[str, str], source: Source) -> Asked:
    options: dict[str, Any] = {name: value for name, value in given.items() if name in OcrBody.__struct_fields__}
    if "pages" in options:
        options["pages"] = options["pages"].strip("[] ").split(",")
    try:
        body = msgspec.convert({**options, "document": {}}, OcrBody, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The options cannot be read: {str(error)[:200]}.", code="invalid_value") from None
    return Asked(
        source=source,
        model=body.model,
        pages=None if body.pages is None else tuple(body.pages),
        mode=body.mode,
        boxes=bool(body.boxes),
        prompt=body.prompt,
        max_tokens=body.max_tokens,
    )


def _read_document(document: AskedDocument, host: str) -> Source:
    name = _printable(document.document_name or "")
    found = (
        ("document_url", document.document_url),
        ("image_url", document.image_url),
        ("base64", document.base64),
    )
    for field, value in found:
        if value is not None and document.type in (field, None):
            text = value.url if isinstance(value, ImageUrl) else value
            source = read_address(text, f"document.{field}", host)
            return msgspec.structs.replace(source, name=name)
    if document.file_id is not None and document.type in ("file", None):
        return Source(file_id=document.file_id, name=name)
    if document.job_id is not None and document.type == "job":
        return Source(job_id=document.job_id, number=document.number, name=name)
    wanted = {"file": "file_id", "job": "job_id"}.get(document.type or "", document.type or "document_url")
    raise BadRequest(
        f"Missing required parameter: 'document.{wanted}'.",
        param=f"document.{wanted}",
        code="missing_required_parameter",
    )


def write_body(asked: Asked, *, model: str, mode: Mode) -> bytes:
    """The same request in Mistral's form, as jobs keep it."""
    body: dict[str, Any] = {"model": model, "mode": mode, "document": write_document(asked.source)}
    if asked.pages is not None:
        body["pages"] = list(asked.pages)
    for name in ("prompt", "max_tokens"):
        if getattr(asked, name) is not None:
            body[name] = getattr(asked, name)
    if asked.boxes:
        body["boxes"] = True
    return msgspec.json.encode(body)


def write_document(source: Source) -> dict[str, Any]:
    name = {"document_name": source.name} if source.name else {}
    if source.url is not None:
        return {"type": "document_url", "document_url": source.url, **name}
    if source.file_id is not None:
        return {"type": "file", "file_id": source.file_id, **name}
    if source.job_id is not None:
        return {"type": "job", "job_id": source.job_id, "number": source.number, **name}
    kind = (source.content_type or "application/octet-stream").partition(";")[0].strip()
    if "," in kind or len(kind) > 100:
        kind = "application/octet-stream"
    data = base64.b64encode(source.data or b"").decode("ascii")
    return {"type": "document_url", "document_url": f"data:{kind};base64,{data}", **name}


def read_mode(text: str | None) -> Mode | None:
    """None for what is no mode."""
    return next((mode for mode in MODES if mode == text), None)


def _printable(name: str) -> str:
    return "".join(letter for letter in name[:255] if letter.isprintable())


# --- AI Gateway's form


class FilePart(msgspec.Struct):
    file_data: str | None = None
    file_id: Annotated[str, Meta(max_length=100)] | None = None
    filename: str | None = None


class MessagePart(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: str | ImageUrl | None = None
    document_url: str | ImageUrl | None = None
    file: FilePart | None = None


class Message(msgspec.Struct):
    role: str = "user"
    content: str | list[MessagePart] | None = None


class ChatOcrBody(msgspec.Struct, kw_only=True):
    """POST /api/ocr: a chat about pictures, with one model and what is wanted of the answer."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=100)]
    model: _ModelName | None = None
    max_tokens: _MaxTokens | None = None
    pages: _Pages | None = None
    boxes: bool | None = None
    output: Literal["text", "markdown", "json"] | None = None
    """What the message of the answer is; Markdown unless it is said."""


_chat_decoder = msgspec.json.Decoder(ChatOcrBody)
_MOST_DOCUMENTS = 100


def read_chat(body: bytes, mode: Mode | None) -> tuple[list[Asked], ChatOcrBody]:
    """The documents of a chat, all with what it says. Raises BadRequest."""
    chat = decode_body(body, None, _chat_decoder)
    sources: list[Source] = []
    words: list[str] = []
    for message in chat.messages:
        if message.role not in ("user", "system", "developer"):
            continue
        if isinstance(message.content, str):
            words.append(message.content)
        for part in message.content if isinstance(message.content, list) else ():
            source = _source_of_part(part)
            if source is not None:
                sources.append(source)
            elif part.text:
                words.append(part.text)
    if not sources:
        raise BadRequest("The messages hold no picture or document.", param="messages", code="invalid_document")
    if len(sources) > _MOST_DOCUMENTS:
        raise BadRequest(f"The messages hold more than {_MOST_DOCUMENTS} documents.", param="messages")
    prompt = "\n".join(words)[:_LONGEST_PROMPT] or None
    pages = None if chat.pages is None else tuple(chat.pages)
    boxes = bool(chat.boxes) or chat.output == "json"
    asked = [
        Asked(
            source=source,
            model=chat.model,
            pages=pages,
            mode=mode,
            boxes=boxes,
            prompt=prompt,
            max_tokens=chat.max_tokens,
        )
        for source in sources
    ]
    return asked, chat


def _source_of_part(part: MessagePart) -> Source | None:
    for field in ("image_url", "document_url"):
        value = getattr(part, field)
        if value is not None:
            return read_address(value.url if isinstance(value, ImageUrl) else value, f"messages.{field}")
    if part.file is not None and part.file.file_data is not None:
        return read_address(part.file.file_data, "messages.file")
    if part.file is not None and part.file.file_id is not None:
        return Source(file_id=part.file.file_id)
    return None
