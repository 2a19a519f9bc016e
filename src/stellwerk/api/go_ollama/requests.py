"""Reads what Go Ollama API's clients send: a key in the body or the query, documented names in any case."""

from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from stellwerk.api.ollama.requests import GenerateBody, read_call
from stellwerk.core.errors import BadRequest, Unauthenticated
from stellwerk.http.exchange import Exchange

_DOCUMENTED = frozenset({"apikey", "model", "prompt", "stream", "images", "raw"})
_MOST_PARAMETERS = 32
_FALSE = msgspec.Raw(b"false")
_NULL, _EMPTY = b"null", b"[]"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class _Body(GenerateBody, kw_only=True):
    model: Annotated[str, Meta(max_length=256)] = ""
    prompt: str = ""


_BODY = msgspec.json.Decoder(_Body)


def find_key(exchange: Exchange) -> str:
    """The key of a request, which these clients never put into a header. Raises Unauthenticated, code
    `missing_api_key`, and BadRequest for a body that cannot be read."""
    key = _key_of_query(exchange.query) if exchange.method in ("GET", "HEAD") else _key_of_body(exchange.body)
    if not key:
        raise Unauthenticated("API key is required", code="missing_api_key")
    return key


def _key_of_query(query: bytes) -> str:
    try:
        pairs = parse_qsl(query.decode("latin-1"), max_num_fields=_MOST_PARAMETERS, errors="strict")
    except ValueError:
        return ""
    return next((value for name, value in pairs if name == "apikey"), "")


def _key_of_body(body: bytes) -> str:
    raw = _documented_fields(body).get("apikey")
    if raw is None:
        return ""
    try:
        return _decode_text(raw)
    except _UNREADABLE:
        raise _unreadable() from None


def read_generate(body: bytes) -> tuple[GenerateBody, dict[str, msgspec.Raw]]:
    """The checked body of POST /generate as one of Ollama's POST /api/generate, and what of it an Ollama upstream gets:
    the documented fields alone, and never the key. Raises BadRequest.
    """
    fields = _documented_fields(body)
    fields.pop("apikey", None)
    if bytes(fields.get("images", b"")) == _EMPTY:
        del fields["images"]
    # Who says nothing gets no stream, unlike at Ollama itself.
    fields.setdefault("stream", _FALSE)
    try:
        return read_call(msgspec.json.encode(fields), None, _BODY)
    except BadRequest as error:
        # What is wrong with the values has never been said in more words than these.
        if error.code == "missing_required_parameter":
            raise
        raise _unreadable() from None


def _documented_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """By their documented names. A name that stands there in several cases counts as it stands last."""
    try:
        given = _decode_fields(body)
    except _UNREADABLE:
        raise _unreadable() from None
    folded = {name.lower(): value for name, value in given.items() if bytes(value) != _NULL}
    return {name: value for name, value in folded.items() if name in _DOCUMENTED}


def _unreadable() -> BadRequest:
    return BadRequest("Invalid request body", code="json_invalid")
