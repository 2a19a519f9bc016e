"""A client of a running gateway, for commands: the standard library only, so that it starts at once."""

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from stellwerk.core.secrets import Secret

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 600.0
"""A model may have to be loaded before the first word comes."""
_LAST_BYTE_SECONDS = 1.0
_MOST_BYTES = 32 << 20
_LONGEST_EVENT = 4 << 20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class GatewayTrouble(Exception):
    """The gateway could not be asked or did not answer as it should; `key` is a text of `cli.language`."""

    def __init__(self, key: str, **values: Any) -> None:
        super().__init__(key, values)
        self.key = key
        self.values = values
        self.code = ""
        """The gateway's word for a refusal, where it has one."""


class OfferedModel(msgspec.Struct, frozen=True):
    id: str
    local: bool
    chats: bool


class EventReader:
    """Cuts a server-sent event stream into the data of its events, however the bytes were cut on their way."""

    def __init__(self) -> None:
        self._line = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of every event that is complete now. Raises GatewayTrouble when one grows without end."""
        *lines, self._line = (self._line + piece).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")  # noqa: PLW2901
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" ").decode(errors="replace"))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        if len(self._line) + sum(map(len, self._data)) > _LONGEST_EVENT:
            raise GatewayTrouble("chat.not_understood")
        return events


class GatewayClient:
    """Asks the gateway at `url`, with or without `/v1` at its end. Raises GatewayTrouble for a URL that is none."""

    def __init__(self, url: str, key: Secret | None = None, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            self._port = parts.port
        except ValueError:
            raise GatewayTrouble("chat.bad_url", url=url) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise GatewayTrouble("chat.bad_url", url=url)
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self.silence_seconds = silence_seconds
        self.key = key

    @property
    def is_on_this_machine(self) -> bool:
        return self._host in _LOOPBACK

    def get(self, path: str) -> Any:
        """The JSON that `path` answers with."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of the answer, whether the work is done or goes on."""
        with self._asked(method, path, body) as response:
            try:
                return json.loads(response.read(_MOST_BYTES))
            except TimeoutError:
                raise GatewayTrouble("chat.silent", seconds=round(self.silence_seconds)) from None
            except (OSError, HTTPException):
                raise GatewayTrouble("chat.broken") from None
            except (ValueError, RecursionError):
                raise GatewayTrouble("chat.not_understood") from None

    def events(self, path: str) -> Generator[Any, None, None]:
        """The JSON of each server-sent event until the stream ends."""
        reader = EventReader()
        with self._asked("GET", path, None) as response:
            while piece := self._next(response):
                for event in reader.feed(piece):
                    try:
                        yield json.loads(event)
                    except (ValueError, RecursionError):
                        raise GatewayTrouble("chat.not_understood") from None

    def models(self) -> list[OfferedModel]:
        """What the key may use, in the order of the gateway."""
        listed = self.get("/v1/models")
        try:
            return [_offered(entry) for entry in listed["data"]]
        except (LookupError, TypeError, AttributeError):
            raise GatewayTrouble("chat.not_understood") from None

    def answer(
        self, model: str, messages: Sequence[dict[str, str]], more: Mapping[str, Any] = MappingProxyType({})
    ) -> Generator[str, None, None]:
        """The pieces of the answer as they come; closing the generator tells the gateway to stop.

        `more` are further fields of the request. Raises GatewayTrouble also in the middle, when the answer ends before
        it is complete.
        """
        request = {"model": model, "messages": list(messages), "stream": True, **more}
        reader = EventReader()
        with self._asked("POST", "/v1/chat/completions", request) as response:
            while piece := self._next(response):
                for event in reader.feed(piece):
                    if event == "[DONE]":
                        return
                    if text := _text(event):
                        yield text
        raise GatewayTrouble("chat.broken")

    def _next(self, response: HTTPResponse) -> bytes:
        try:
            return response.read1(65536)
        except TimeoutError:
            raise GatewayTrouble("chat.silent", seconds=round(self.silence_seconds)) from None
        except (OSError, HTTPException):
            raise GatewayTrouble("chat.broken") from None

    @contextlib.contextmanager
    def _asked(self, method: str, path: str, body: dict[str, Any] | None) -> Generator[HTTPResponse, None, None]:
        """A successful answer whose body has not been read yet; the connection is closed at the end."""
        kind = HTTPSConnection if self._https else HTTPConnection
        try:
            connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        except HTTPException:
            raise GatewayTrouble("chat.bad_url", url=self.url) from None
        with contextlib.closing(connection):
            try:
                connection.connect()
            except OSError:
                raise GatewayTrouble("chat.not_running", url=self.url) from None
            except UnicodeError:
                # No name of a host can be made of it.
                raise GatewayTrouble("chat.bad_url", url=self.url) from None
            socket = connection.sock
            socket.settimeout(self.silence_seconds)
            # After `connection: close` from the gateway the socket belongs to the response.
            with contextlib.closing(self._send(connection, method, path, body)) as response:
                if response.status not in {200, 202}:
                    raise _refusal(response)
                yield response
                # Who leaves before the end of an answer looks like somebody who does not want it.
                with contextlib.suppress(OSError, HTTPException):
                    socket.settimeout(_LAST_BYTE_SECONDS)
                    response.read1(65536)

    def _send(self, connection: HTTPConnection, method: str, path: str, body: dict[str, Any] | None) -> HTTPResponse:
        headers = {"accept": "text/event-stream, application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key.reveal()}"
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            connection.request(method, self._path + path, None if body is None else json.dumps(body).encode(), headers)
            return connection.getresponse()
        except TimeoutError:
            raise GatewayTrouble("chat.silent", seconds=round(self.silence_seconds)) from None
        except (OSError, HTTPException):
            raise GatewayTrouble("chat.no_gateway", url=self.url) from None
        except ValueError:
            # http.client refuses keys and paths with line breaks and the like.
            raise GatewayTrouble("chat.bad_url", url=self.url) from None


def _offered(entry: dict[str, Any]) -> OfferedModel:
    facts = entry.get("x_stellwerk") or {}
    return OfferedModel(
        id=str(entry["id"]), local=facts.get("local") is True, chats="chat" in facts.get("operations", ["chat"])
    )


def _text(event: str) -> str:
    """What an event adds to the answer. Raises GatewayTrouble when it tells of an error."""
    try:
        chunk = json.loads(event)
    except ValueError:
        raise GatewayTrouble("chat.not_understood") from None
    if not isinstance(chunk, dict):
        raise GatewayTrouble("chat.not_understood")
    if error := chunk.get("error"):
        raise GatewayTrouble("chat.failed", message=_said(error))
    try:
        content = chunk["choices"][0]["delta"]["content"]
    except (LookupError, TypeError):
        return ""
    return content if isinstance(content, str) else ""


def _refusal(response: HTTPResponse) -> GatewayTrouble:
    try:
        error = json.loads(response.read(1 << 20))["error"]
        message = _said(error)
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        error, message = None, response.reason
    code = error.get("code") if isinstance(error, dict) else None
    refusal = GatewayTrouble("chat.refused", status=response.status, message=message)
    refusal.code = str(code or "")[:100]
    return refusal


def _said(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or "?")[:2000]
