"""POST /api/pull: a model comes from a hub, from Ollama's registry or through an Ollama, and its client watches."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from stellwerk.api._guard import Request, Routes
from stellwerk.api.ollama.errors import error_line
from stellwerk.api.ollama.model_names import is_public_name
from stellwerk.api.ollama.remote import LINES, Found, Remote, find_remote, pass_lines, respond_json
from stellwerk.api.ollama.requests import PullBody, no_model, read
from stellwerk.core.errors import BadRequest, Conflict, Forbidden, GatewayError, Unavailable, UpstreamError
from stellwerk.core.plan import Model
from stellwerk.core.principal import CALLERS, Principal, Role
from stellwerk.engines.downloads import Download
from stellwerk.engines.ollama_registry import is_library_name

_PULL = msgspec.json.Decoder(PullBody)
_DIGITS = 12
_SUCCESS = {"status": "success"}
_NOTHING_TO_FETCH = ("pulling manifest", "verifying sha256 digest", "writing manifest", "success")


class Source(Protocol):
    """Fetches models into our own folder."""

    async def begin(self, name: str) -> Download: ...

    def follow(self, download_id: str) -> AsyncGenerator[Download, None]: ...


class Pulling:
    """Decides where a model comes from and tells its client of the way."""

    def __init__(
        self,
        source: Source | None,
        remotes: Callable[[], Mapping[str, Remote]],
        refresh: Callable[[str], Awaitable[None]],
    ) -> None:
        """`source` is None where we run no models ourselves; `remotes` are the Ollamas of the operator's by provider,
        and `refresh` looks again what one of them has."""
        self._source = source
        self._remotes = remotes
        self._refresh = refresh

    def register(self, routes: Routes, find: Callable[[Principal, str], Model | None]) -> None:
        """`find` is the model of a name that the caller may use."""

        async def pull(request: Request) -> None:
            exchange = request.exchange
            body = read(exchange.body, exchange.headers.get(b"content-type"), _PULL)
            name = (body.model or body.name).strip()
            if not name:
                raise no_model()
            await self._pull(request, name, find(request.caller, name), stream=body.stream is not False)

        routes.add("POST", "/api/pull", CALLERS, pull)

    async def _pull(self, request: Request, name: str, known: Model | None, *, stream: bool) -> None:
        remotes = self._remotes()
        # A key for certain models only is for no others, whoever has it.
        is_admin = request.caller.role is Role.ADMIN and request.caller.models is None
        # An Ollama looks whether there is a newer one; that costs its disk, so it is not for everybody.
        may_renew = known is not None and known.provider in remotes and is_admin and not is_public_name(known)
        if known is not None and not may_renew:
            _respond_all(request, [{"status": status} for status in _NOTHING_TO_FETCH], stream=stream)
            return
        if not is_admin:
            raise Forbidden("only an admin of this gateway may pull models that it does not have")
        found = find_remote(remotes, known, name)
        # What is named as a hub's is fetched here, where it can be watched and goes on after a break.
        if found is not None and (found.sure or is_library_name(name) or self._source is None):
            try:
                await self._relay(remotes, found, request, stream=stream)
            except GatewayError as error:
                if found.sure or self._source is None or error.code != "upstream_unreachable":
                    raise
            else:
                return
        if self._source is None:
            raise BadRequest(
                "pull is not offered here: this gateway runs no models itself", code="unsupported_operation"
            )
        await self._fetch(self._source, request, name, stream=stream)

    async def _relay(self, remotes: Mapping[str, Remote], found: Found, request: Request, *, stream: bool) -> None:
        async def refresh() -> None:
            await self._refresh(found.provider)

        remote, fields = remotes[found.provider], {"model": found.name}
        await pass_lines(remote, request, "/api/pull", fields, stream=stream, done=refresh)

    async def _fetch(self, source: Source, request: Request, name: str, *, stream: bool) -> None:
        download = await source.begin(name)
        progress = Progress()
        exchange = request.exchange
        async with aclosing(source.follow(download.id)) as changes:
            if stream:
                exchange.start(200, ((b"x-request-id", request.id.encode()), *LINES))
                exchange.write(_line({"status": "pulling manifest"}))
            try:
                async for each in changes:
                    said = progress.take(each)
                    if stream and said:
                        exchange.write(b"".join(map(_line, said)))
                progress.check_end()
            except GatewayError as error:
                if not stream:
                    raise
                exchange.write(error_line(error))
        if stream:
            exchange.finish()
        else:
            respond_json(request, _SUCCESS)


class Progress:
    """What a client is told of a download, from how it stands each time."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self._verifies = False
        self._done = False

    def take(self, download: Download) -> list[dict[str, Any]]:
        """The next lines. Raises GatewayError when it will not come to an end."""
        state = download.state
        if state == "failed":
            raise UpstreamError(download.error or "The download failed.")
        if state in ("paused", "cancelled"):
            raise Conflict(f"The download was {state}.")
        said = []
        for file in download.files:
            if self._told.get(file.name) != file.completed:
                self._told[file.name] = file.completed
                said.append(_pulling(file.name, file.sha256, file.size, file.completed))
            if file.completed < file.size:
                # Ollama tells of one layer after the other, and clients draw a bar for each.
                break
        if state in ("verifying", "done") and not self._verifies:
            self._verifies = True
            said.append({"status": "verifying sha256 digest"})
        if state == "done":
            self._done = True
            said += [{"status": "writing manifest"}, _SUCCESS]
        return said

    def check_end(self) -> None:
        """Raises Unavailable when nothing more comes although the download is not over."""
        if not self._done:
            raise Unavailable("The gateway is shutting down; pull again to go on.", code="shutting_down")


def _pulling(name: str, sha256: str | None, total: int, completed: int) -> dict[str, Any]:
    said: dict[str, Any] = {"status": f"pulling {name if sha256 is None else sha256[:_DIGITS]}"}
    if sha256 is not None:
        said["digest"] = f"sha256:{sha256}"
    said["total"] = total
    return said | {"completed": completed} if completed else said


def _respond_all(request: Request, lines: Iterable[dict[str, Any]], *, stream: bool) -> None:
    if stream:
        headers = ((b"x-request-id", request.id.encode()), *LINES)
        request.exchange.respond(200, headers, b"".join(map(_line, lines)))
    else:
        respond_json(request, _SUCCESS)


def _line(said: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(said) + b"\n"
