"""Forms with files in them (RFC 7578): the whole body is here already, so it is only cut up."""

import re

import msgspec

from stellwerk.core.errors import BadRequest, UnsupportedMedia

_MOST_PARTS = 32
_MOST_HEAD_BYTES = 8192
_LONGEST_NAME = 255
_BOUNDARY = re.compile(rb"""boundary=(?:"([^"\r\n]{1,70})"|([!#$%&'*+.^_`|~0-9A-Za-z-]{1,70}))""", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PARAMETER = re.compile(rb';\s*([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))', re.IGNORECASE)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    filename: str | None
    """None for a field that is no file."""
    content_type: str
    content: bytes

    @property
    def text(self) -> str:
        """Raises BadRequest."""
        try:
            return self.content.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"The field '{self.name}' is not valid UTF-8.", param=self.name) from None


def read_form(body: bytes, content_type: bytes | None) -> dict[str, Part]:
    """The parts by name; of two with the same name the first. Raises UnsupportedMedia and BadRequest."""
    kind, _, parameters = (content_type or b"").partition(b";")
    if kind.strip().lower() != b"multipart/form-data":
        raise UnsupportedMedia("Send a form, with 'Content-Type: multipart/form-data'.")
    boundary = _BOUNDARY.search(parameters)
    if boundary is None:
        raise _unreadable("its boundary is missing")
    parts: dict[str, Part] = {}
    for content in _cut(body, b"--" + (boundary[1] or boundary[2])):
        part = _read_part(content)
        parts.setdefault(part.name, part)
    return parts


def _cut(body: bytes, mark: bytes) -> list[bytes]:
    """What stands between the marks, each with its head."""
    start = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if start == 1:
        raise _unreadable("its boundary does not occur")
    found: list[bytes] = []
    while True:
        start += len(mark)
        if body[start : start + 2] == b"--":
            return found
        # Blanks may follow a boundary; nothing else may.
        line_end = body.find(b"\r\n", start)
        if line_end < 0 or body[start:line_end].strip(b" \t"):
            raise _unreadable("a boundary is damaged")
        end = body.find(b"\r\n" + mark, line_end)
        if end < 0:
            raise _unreadable("its end is missing")
        if len(found) >= _MOST_PARTS:
            raise BadRequest(f"A form may have {_MOST_PARTS} parts at most.", code="invalid_form")
        found.append(body[line_end + 2 : end] if end >= line_end + 2 else b"")
        start = end + 2


def _read_part(part: bytes) -> Part:
    end = 0 if part.startswith(b"\r\n") else part.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES) + 2
    if end == 1:
        raise _unreadable("a part has no head")
    headers = dict(_read_header(line) for line in part[:end].split(b"\r\n") if line)
    disposition = headers.get(b"content-disposition", b"")
    if not disposition.lower().startswith(b"form-data"):
        raise _unreadable("a part has no name")
    parameters = {found[1].lower(): found for found in _PARAMETER.finditer(disposition)}
    name = _value(parameters.get(b"name"))
    if name is None:
        raise _unreadable("a part has no name")
    return Part(
        name=name,
        filename=_value(parameters.get(b"filename")),
        content_type=headers.get(b"content-type", b"text/plain").decode("latin-1")[:_LONGEST_NAME],
        content=part[end + 2 :],
    )


def _read_header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise _unreadable("a part's head is damaged")
    return name.strip().lower(), value.strip()


def _value(found: "re.Match[bytes] | None") -> str | None:
    if found is None:
        return None
    raw = found[3] if found[2] is None else re.sub(rb"\\(.)", rb"\1", found[2])
    text = raw.decode("utf-8", "replace")[:_LONGEST_NAME]
    if _CONTROL.search(text):
        raise _unreadable("a name in it has control characters")
    return text


def _unreadable(why: str) -> BadRequest:
    return BadRequest(f"The form cannot be read: {why}.", code="invalid_form")
