"""A hub for models on two real sockets, the second of them holding the bytes, that fails as a test tells it to."""

import asyncio
import contextlib
import hashlib
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.scripted_upstream import ScriptedUpstream, Talk

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    files: dict[str, bytes]
    gated: bool = False
    downloads: int = 10
    likes: int = 1
    sums: dict[str, str] = field(default_factory=dict)
    """Checksums that are announced in place of the true ones."""


@dataclass
class Fault:
    """What happens to one answer with bytes of a file."""

    cut_after: int | None = None
    stop_after: int | None = None
    """Sends so many bytes and then nothing more, until the test lets it go on."""
    wrong: bool = False
    no_range: bool = False
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


class SmallHub:
    """`faults` are used up one for each answer with bytes; then `always` is what happens, if anything."""

    def __init__(self, *, redirect: bool = True) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()
        """Those that open gated repositories."""
        self.faults: deque[Fault] = deque()
        self.always = Fault()
        self.go_on = asyncio.Event()
        self.stopped = asyncio.Event()
        """Set when an answer has reached its `stop_after`."""
        self.etag = ""
        """Put before the etag of every file: another one means that its content is another one."""
        self.hub = ScriptedUpstream(script=self._hub)
        self.store = ScriptedUpstream(script=self._store)
        self.redirect = redirect
        self.location: str | None = None
        """Where every redirect leads, in place of the store."""
        self.broken: int | None = None
        """The status of every question that is not for bytes."""

    async def start(self) -> None:
        await self.hub.start()
        await self.store.start()

    async def stop(self) -> None:
        self.go_on.set()
        await self.hub.stop()
        await self.store.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hub.port}"

    def add(self, name: str, files: dict[str, bytes], **more) -> Repository:
        repository = self.repositories[name] = Repository(files, **more)
        return repository

    def bodies(self) -> list:
        """The requests for bytes of files, in the order of their arrival."""
        return self.store.requests if self.redirect else [one for one in self.hub.requests if "/resolve/" in one.path]

    # --- the first origin: questions, and where the bytes are

    async def _hub(self, talk: Talk) -> None:
        parts = urlsplit(talk.request.path)
        path = unquote(parts.path).strip("/")
        if self.broken is not None and "/resolve/" not in path:
            await talk.answer({"error": "broken"}, status=self.broken)
        elif path == "api/models":
            await self._search(talk, parse_qs(parts.query))
        elif path.startswith("api/models/"):
            await self._information(talk, path.removeprefix("api/models/"))
        else:
            await self._resolve(talk, path)

    async def _search(self, talk: Talk, query: dict[str, list[str]]) -> None:
        wanted = query.get("search", [""])[0].lower()
        found = [
            {
                "id": name,
                "downloads": repository.downloads,
                "likes": repository.likes,
                "gated": "auto" if repository.gated else False,
                "siblings": [{"rfilename": file} for file in repository.files],
            }
            for name, repository in self.repositories.items()
            if wanted in name.lower()
        ]
        found.sort(key=lambda model: -model["downloads"])
        await talk.answer(found[: int(query.get("limit", ["10"])[0])])

    async def _information(self, talk: Talk, rest: str) -> None:
        name = "/".join(rest.split("/")[:2])
        repository = self.repositories.get(name)
        if repository is None:
            await talk.answer({"error": "Repository not found"}, 404, [("X-Error-Code", "RepoNotFound")])
        elif rest.endswith("/auth-check"):
            if self._opens(talk, repository):
                await talk.answer({})
            else:
                await talk.answer({"error": "gated"}, 403, [("X-Error-Code", "GatedRepo")])
        elif "/revision/" in rest and not rest.endswith((f"/{COMMIT}", "/main")):
            await talk.answer({"error": "Revision not found"}, 404, [("X-Error-Code", "RevisionNotFound")])
        else:
            await talk.answer(
                {
                    "id": name,
                    "sha": COMMIT,
                    "gated": "auto" if repository.gated else False,
                    "siblings": [self._sibling(repository, file) for file in repository.files],
                }
            )

    def _sibling(self, repository: Repository, file: str) -> dict:
        data = repository.files[file]
        digest = repository.sums.get(file) or hashlib.sha256(data).hexdigest()
        large = {"size": len(data), "sha256": digest, "pointerSize": 134}
        return {"rfilename": file, "size": len(data), "blobId": "b", **({"lfs": large} if digest != "none" else {})}

    def _opens(self, talk: Talk, repository: Repository) -> bool:
        token = talk.request.headers.get("authorization", "").removeprefix("Bearer ")
        return not repository.gated or token in self.tokens

    async def _resolve(self, talk: Talk, path: str) -> None:
        name, _, rest = path.partition("/resolve/")
        repository = self.repositories.get(name)
        revision, _, file = rest.partition("/")
        if repository is None or revision != COMMIT or file not in repository.files:
            await talk.answer({"error": "Entry not found"}, 404, [("X-Error-Code", "EntryNotFound")])
        elif not self._opens(talk, repository):
            await talk.answer({"error": "gated"}, 403, [("X-Error-Code", "GatedRepo")])
        elif self.redirect:
            location = self.location or f"http://127.0.0.1:{self.store.port}/{path}?signature=1"
            headers = [("location", location), ("x-linked-etag", f'"{self._etag(repository.files[file])}"')]
            await talk.answer(b"Found", 302, headers)
        else:
            await self._bytes(talk, repository.files[file])

    # --- the second origin: the bytes

    async def _store(self, talk: Talk) -> None:
        name, _, rest = unquote(urlsplit(talk.request.path).path).strip("/").partition("/resolve/")
        await self._bytes(talk, self.repositories[name].files[rest.partition("/")[2]])

    def _etag(self, data: bytes) -> str:
        return self.etag + hashlib.sha256(data).hexdigest()

    async def _bytes(self, talk: Talk, data: bytes) -> None:
        fault = self.faults.popleft() if self.faults else self.always
        if fault.status is not None:
            await talk.answer({"error": "failed"}, fault.status, fault.headers)
            return
        asked = talk.request.headers.get("range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not fault.no_range else 0
        headers = [("etag", f'"{self._etag(data)}"'), ("content-length", str(len(data) - start))]
        if start:
            headers.append(("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
        lines = [f"HTTP/1.1 {206 if start else 200} Status", *(f"{name}: {value}" for name, value in headers)]
        body = bytes(byte ^ 0xFF for byte in data[start:]) if fault.wrong else data[start:]
        stop = fault.stop_after if fault.stop_after is not None else fault.cut_after
        await talk.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body if stop is None else body[:stop]))
        if fault.cut_after is not None:
            # The bytes before the cut arrive: an abort would throw away what lies in the buffers.
            talk.writer.close()
        elif fault.stop_after is not None:
            self.stopped.set()
            waiting = [asyncio.ensure_future(event.wait()) for event in (self.go_on, talk.left)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            with contextlib.suppress(ConnectionError):
                await talk.send(body[fault.stop_after :])
