"""What the endpoints for downloads take and answer; the command line prints the same."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from stellwerk.api._shapes import Instant, show_instant
from stellwerk.core.errors import BadRequest
from stellwerk.engines.download_list import State
from stellwerk.engines.downloads import Download
from stellwerk.engines.ollama_registry import is_library_name

DownloadId = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


class DownloadBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to fetch: a file of a repository, or a model as people name it."""

    repo_id: Annotated[str, Meta(min_length=1, max_length=200, examples=["Qwen/Qwen2.5-7B-Instruct-GGUF"])] | None = (
        None
    )
    filename: Annotated[str, Meta(min_length=1, max_length=400)] | None = None
    model: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=600,
                description="`user/repository[:quantisation]`, also with hf.co/ before it or as a page's address; "
                "`name[:tag]` is one of Ollama's library.",
            ),
        ]
        | None
    ) = None
    wait: Annotated[
        bool, Meta(description="Answer when it is here; false, or `Prefer: respond-async`, answers 202 at once.")
    ] = True


class DownloadedModel(msgspec.Struct, kw_only=True):
    """A model that is in the models folder now."""

    status: Literal["downloaded"]
    path: Annotated[str, Meta(description="Name of the file; of a model in parts, the first one's.")]
    repo: str
    filename: Annotated[str, Meta(description="Its path in the repository.")]
    model: Annotated[str, Meta(description="The id under which it is asked.")]
    id: str


class DownloadFileShape(msgspec.Struct, kw_only=True):
    """One file; sizes are bytes."""

    name: str
    kind: Literal["model", "mmproj", "other"]
    size: int
    completed: int
    sha256: str | None


class DownloadShape(msgspec.Struct, kw_only=True):
    """One download; sizes are bytes."""

    id: str
    status: State
    model: Annotated[str, Meta(description="The id that the model will have.")]
    reference: Annotated[str, Meta(description="What was asked for.")]
    repo: str
    revision: str
    files: list[DownloadFileShape]
    total: int
    completed: int
    percent: float
    bytes_per_second: float | None
    eta_seconds: float | None
    error: str | None
    started_at: Instant
    finished_at: Instant | None


class DownloadBegun(DownloadShape, kw_only=True):
    """A download that goes on by itself."""

    status_url: str
    events_url: Annotated[str, Meta(description="Server-sent events with its progress.")]


def show_download(download: Download) -> DownloadShape:
    return DownloadShape(**_facts(download))


def show_begun(download: Download) -> DownloadBegun:
    url = f"/admin/api/models/downloads/{download.id}"
    return DownloadBegun(**_facts(download), status_url=url, events_url=f"{url}/events")


def show_downloaded(download: Download, filename: str | None) -> DownloadedModel:
    path = download.files[0].name
    return DownloadedModel(
        status="downloaded",
        path=path,
        repo=download.repo,
        filename=filename or path,
        model=download.model_id,
        id=download.id,
    )


def to_reference(body: DownloadBody) -> tuple[str, str | None]:
    """What to fetch, and the file of it that is wanted. Raises BadRequest."""
    if (body.repo_id is None) == (body.model is None):
        raise BadRequest("Name what to fetch either by 'repo_id' and 'filename' or by 'model'.", param="repo_id")
    if body.model is not None:
        if body.filename is not None:
            raise BadRequest("'filename' belongs to 'repo_id'.", param="filename")
        return body.model, None
    if is_library_name(body.repo_id or ""):
        raise BadRequest("'repo_id' is a repository of the hub, user/repository.", param="repo_id")
    return body.repo_id or "", body.filename


def _facts(download: Download) -> dict[str, Any]:
    return {
        "id": download.id,
        "status": download.state,
        "model": download.model_id,
        "reference": download.reference,
        "repo": download.repo,
        "revision": download.revision,
        "files": [
            DownloadFileShape(
                name=file.name, kind=file.kind, size=file.size, completed=file.completed, sha256=file.sha256
            )
            for file in download.files
        ],
        "total": download.total,
        "completed": download.completed,
        "percent": round(100 * download.completed / download.total, 1) if download.total else 0.0,
        "bytes_per_second": None if download.bytes_per_second is None else round(download.bytes_per_second, 1),
        "eta_seconds": None if download.eta_seconds is None else round(download.eta_seconds, 1),
        "error": download.error,
        "started_at": show_instant(download.started),
        "finished_at": None if download.finished is None else show_instant(download.finished),
    }


DOWNLOADED: Final[dict[str, Any]] = {
    "status": "downloaded",
    "path": "qwen2.5-7b-instruct-q4_k_m.gguf",
    "repo": "Qwen/Qwen2.5-7B-Instruct-GGUF",
    "filename": "qwen2.5-7b-instruct-q4_k_m.gguf",
    "model": "qwen2.5-7b-instruct-q4_k_m",
    "id": "0123456789abcdef",
}
DOWNLOAD: Final[dict[str, Any]] = {
    "id": "0123456789abcdef",
    "status": "running",
    "model": "qwen2.5-7b-instruct-q4_k_m",
    "reference": "Qwen/Qwen2.5-7B-Instruct-GGUF",
    "repo": "Qwen/Qwen2.5-7B-Instruct-GGUF",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "files": [
        {
            "name": "qwen2.5-7b-instruct-q4_k_m.gguf",
            "kind": "model",
            "size": 4683073536,
            "completed": 1170768384,
            "sha256": None,
        }
    ],
    "total": 4683073536,
    "completed": 1170768384,
    "percent": 25.0,
    "bytes_per_second": 31457280.0,
    "eta_seconds": 111.7,
    "error": None,
    "started_at": "2026-11-21T09:30:00.000Z",
    "finished_at": None,
}
_URL = f"/admin/api/models/downloads/{DOWNLOAD['id']}"
DOWNLOAD_BEGUN: Final[dict[str, Any]] = {**DOWNLOAD, "status_url": _URL, "events_url": f"{_URL}/events"}
