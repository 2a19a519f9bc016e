"""Token requests in every form that clients send: a JSON object, a form, or query parameters."""

from urllib.parse import parse_qsl

import msgspec

from stellwerk.api._bodies import decode_body
from stellwerk.core.errors import BadRequest, TooLarge, UnsupportedMedia
from stellwerk.http.exchange import Exchange

_MOST_BYTES = 16 * 1024
_MOST_FIELDS = 32


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of `/auth/token` as they were sent; clients of OAuth send others too, which say nothing here."""

    grant_type: str | None = None
    username: str | None = None
    password: str | None = None
    refresh_token: str | None = None


_grants = msgspec.json.Decoder(Grant)


def read_grant(exchange: Exchange) -> Grant:
    """The fields of a token request: from a JSON object, else from a form, else from the query.

    Raises BadRequest, TooLarge, and UnsupportedMedia for a body that is announced as something else.
    """
    body = exchange.body
    if len(body) > _MOST_BYTES or len(exchange.query) > _MOST_BYTES:
        raise TooLarge(f"A token request may have {_MOST_BYTES} bytes at most.")
    if not body.strip():
        return _read_form(exchange.query, "query")
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    # What the body is counts, not what it is called: `curl -d` announces JSON as a form.
    if body.lstrip()[:1] == b"{" or kind.endswith(b"json"):
        return decode_body(body, None, _grants)
    if kind not in (b"", b"application/x-www-form-urlencoded", b"text/plain"):
        raise UnsupportedMedia("Send a JSON object, or a form as 'application/x-www-form-urlencoded'.")
    return _read_form(body, "form")


def _read_form(text: bytes, where: str) -> Grant:
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise BadRequest(f"The {where} cannot be read.", code=f"invalid_{where}") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in Grant.__struct_fields__:
            if name in fields:
                raise BadRequest(f"The parameter '{name}' is given twice.", param=name, code=f"invalid_{where}")
            fields[name] = value
    return msgspec.convert(fields, Grant)


def needed(value: str | None, name: str) -> str:
    """The value of a field. Raises BadRequest when it was left out or is blank."""
    if not value or not value.strip():
        raise BadRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return value
