"""Reads what a server sent as a client would, and knows how many answers it was."""

from dataclasses import dataclass


@dataclass
class SeenAnswer:
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool
    """False when the connection ended inside the body."""


def split_answers(data: bytes, *, head: bool = False) -> list[SeenAnswer]:
    """The final answers in `data`; with `head`, answers have no body. Raises ValueError for other bytes."""
    answers = []
    while data:
        top, blank, data = data.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if version != "HTTP/1.1" or not blank:
            raise ValueError(f"no answer: {top[:80]!r}")
        status = int(rest[:3])
        if status < 200:
            continue
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body, whole = b"", True
        if not head:
            body, whole, data = take_body(headers, data)
        answers.append(SeenAnswer(status, headers, body, whole))
    return answers


def take_body(headers: dict[str, str], data: bytes) -> tuple[bytes, bool, bytes]:
    if "content-length" in headers:
        length = int(headers["content-length"])
        return data[:length], len(data) >= length, data[length:]
    if headers.get("transfer-encoding") != "chunked":
        return data, True, b""
    body = b""
    while True:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return body, False, b""
        size = int(line, 16)
        if len(rest) < size + 2:
            return body + rest[:size], False, b""
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk does not end where it should")
        body, data = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, True, data
