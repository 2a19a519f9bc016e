"""Bodies of requests: JSON against a type, and what a client is told when it does not fit."""

import re
from typing import TypeVar

import msgspec

from stellwerk.core.errors import BadRequest, UnsupportedMedia

_Body = TypeVar("_Body")
_LONGEST_REASON = 200
_AT = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]+)`")


def decode_body(body: bytes, content_type: bytes | None, decoder: "msgspec.json.Decoder[_Body]") -> _Body:
    """The checked body. Raises BadRequest that names the field, and UnsupportedMedia."""
    check_content_type(content_type)
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except UnicodeDecodeError:
        raise BadRequest("The request body is not valid UTF-8.", code="json_invalid") from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply.", code="json_invalid") from None
    except msgspec.DecodeError as error:
        if not body.strip():
            raise BadRequest("The request has no body; a JSON object is expected.", code="json_invalid") from None
        raise BadRequest(f"The request body is not valid JSON: {error}.", code="json_invalid") from None


def check_content_type(content_type: bytes | None) -> None:
    """Raises UnsupportedMedia for types that are surely something else.

    `curl -d` announces a form and means JSON, so a form's type is read as JSON too.
    """
    if content_type is None:
        return
    kind = content_type.partition(b";")[0].strip().lower()
    if kind in (b"application/json", b"", b"text/plain", b"application/x-www-form-urlencoded") or kind.endswith(
        b"+json"
    ):
        return
    raise UnsupportedMedia("Send the request as JSON, with 'Content-Type: application/json'.")


def explain(text: str) -> BadRequest:
    """What msgspec says of a value that does not fit, in the words of this API."""
    at = _AT.search(text)
    # A name that the client chose may look like the end of this text.
    path = at["path"].lstrip(".")[:_LONGEST_REASON] if at is not None else ""
    what = text[: at.start()] if at is not None else text
    missing = _MISSING.match(what)
    if missing is not None:
        param = f"{path}.{missing['name']}" if path else missing["name"]
        return BadRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    unknown = _UNKNOWN.match(what)
    if unknown is not None:
        param = f"{path}.{unknown['name']}" if path else unknown["name"]
        return BadRequest(
            f"Unknown parameter: '{_shown(param)}'.", param=param[:_LONGEST_REASON], code="unknown_parameter"
        )
    if not path:
        return BadRequest(f"The request body must be a JSON object: {_shown(what)}.", code="invalid_type")
    code = "invalid_type" if what.startswith("Expected `") and ", got `" in what else "invalid_value"
    return BadRequest(f"Invalid value for '{path}': {_shown(what)}.", param=path, code=code)


def _shown(text: str) -> str:
    """What is wrong as the rest of a sentence; it may repeat a value of the client, which may be megabytes."""
    cut = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
    return cut[:1].lower() + cut[1:]
