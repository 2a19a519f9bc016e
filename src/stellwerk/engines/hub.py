"""Asks a Hugging Face hub what it offers. Its library is loaded on the first question and runs in threads."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from stellwerk import __version__
from stellwerk.core.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    NotFound,
    RateLimited,
    Unavailable,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.secrets import Secret
from stellwerk.engines.hub_files import (
    Choice,
    ChosenFile,
    HubFile,
    HubModel,
    Reference,
    choose_files,
    kind_of,
    parse_reference,
)

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

__all__ = ["Choice", "ChosenFile", "Hub", "HubFile", "HubModel", "Reference"]

_T = TypeVar("_T")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")
_MOST_FILES = 5_000
_MOST_NAME = 500
_MOST_FOUND = 100
_MOST_QUERY = 200
_THREADS = 4
GATED = (
    "That model is gated: accept its conditions on its page at the hub, and set `hub.token` "
    "to a token of an account that has accepted them."
)


class Hub:
    """One hub. `seconds` bounds a question; its threads end by themselves and keep no process alive."""

    def __init__(self, endpoint: str, token: Secret | None = None, *, seconds: float = 20.0) -> None:
        """`endpoint` is a base URL. The token is sent to that origin only."""
        self.endpoint = endpoint.rstrip("/")
        self.token = token or None
        self._seconds = seconds
        self._free = _THREADS
        self._hosts = tuple(host for host in (urlsplit(self.endpoint).netloc,) if host)

    async def search(self, query: str, limit: int = 10) -> list[HubModel]:
        """Models in GGUF files, the most downloaded first; the sizes of their files stay unknown."""
        query = query.strip()
        if not query or len(query) > _MOST_QUERY:
            raise BadRequest(f"A search has 1 to {_MOST_QUERY} characters.", param="q")
        return await self._ask(lambda api: _search(api, query, max(1, min(limit, _MOST_FOUND))))

    async def files(self, repo: str, revision: str | None = None) -> list[HubFile]:
        """All files of a repository (the first 5000)."""
        if not _REPO.fullmatch(repo) or (revision is not None and not _COMMIT.fullmatch(revision)):
            raise BadRequest("A repository of the hub is named as user/repository.", param="repo_id")
        return _files((await self._ask(lambda api: _info(api, repo, revision))).siblings)

    async def choose(self, reference: str, file: str | None = None) -> Choice:
        """The files that `reference` means, see `parse_reference`; `file` names one of the repository's."""
        wanted = self.reference(reference, file)
        info = await self._ask(lambda api: _info(api, wanted.repo, wanted.revision))
        if info.gated:
            if self.token is None:
                raise Forbidden(GATED, code="model_gated", param="model")
            await self._ask(lambda api: api.auth_check(wanted.repo))
        revision = info.sha
        if not isinstance(revision, str) or not _COMMIT.fullmatch(revision):
            raise UpstreamError("The hub does not say which revision of the model it has.")
        return choose_files(wanted.repo, revision, _files(info.siblings), wanted)

    def reference(self, text: str, file: str | None = None) -> Reference:
        """What `text` names, without asking the hub. Raises BadRequest."""
        return parse_reference(text, file, self._hosts)

    def address(self, repo: str, revision: str, name: str) -> str:
        """Where the bytes of a file are."""
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(name)}"

    async def _ask(self, question: "Callable[[HfApi], _T]") -> _T:
        """Runs one question in a thread of its own.

        The library sleeps and retries as it likes; a thread that nobody waits for any more must hold up neither the
        loop's own threads nor the end of the process.
        """
        if not self._free:
            raise Unavailable("Too many questions to the hub are open.", retry_after=5)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_T] = loop.create_future()
        self._free -= 1

        def report(result: _T | None, error: Exception | None) -> None:
            self._free += 1
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: _T | None = None
            problem: Exception | None = None
            try:
                with _translated():
                    result = question(self._api())
            except Exception as error:  # noqa: BLE001 - it is raised again where it is awaited
                problem = error
            with suppress(RuntimeError):  # the loop has ended, and with it whoever asked
                loop.call_soon_threadsafe(report, result, problem)

        threading.Thread(target=run, name="hub", daemon=True).start()
        try:
            async with asyncio.timeout(self._seconds):
                return await answer
        except TimeoutError:
            raise UpstreamTimeout("The hub did not answer in time.") from None

    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi, constants, get_session  # noqa: PLC0415

        # Otherwise the first call asks the library's default hub, whatever the endpoint, for a list of its own.
        constants.HF_HUB_DISABLE_TELEMETRY = True
        get_session().timeout = self._seconds
        token = self.token.reveal() if self.token is not None else False
        return HfApi(endpoint=self.endpoint, token=token, library_name="stellwerk", library_version=__version__)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the library's errors into the gateway's; its messages carry addresses, so none of them is kept."""
    import httpx2  # noqa: PLC0415
    from huggingface_hub import errors  # noqa: PLC0415

    try:
        yield
    except GatewayError:
        raise
    except errors.GatedRepoError:
        raise Forbidden(GATED, code="model_gated", param="model") from None
    except errors.RevisionNotFoundError:
        raise NotFound("That repository has no such revision.", param="model") from None
    except errors.RepositoryNotFoundError:
        raise NotFound("The hub has no such repository, or it is private and the token does not open it.") from None
    except errors.HFValidationError:
        raise BadRequest("That is no name of a repository.", param="model") from None
    except errors.HfHubHTTPError as error:
        raise _by_status(error.response.status_code) from None
    except httpx2.TimeoutException:
        raise UpstreamTimeout("The hub did not answer in time.") from None
    except errors.OfflineModeIsEnabled:
        raise UpstreamError("The hub is not asked: HF_HUB_OFFLINE is set.") from None
    except (httpx2.HTTPError, OSError):
        raise UpstreamError("The hub cannot be reached.", code="upstream_unreachable") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UpstreamError("The hub answered something that cannot be understood.") from None


def _by_status(status: int) -> GatewayError:
    if status == 404:
        return NotFound("The hub has no such repository.", param="model")
    if status in (401, 403):
        return Forbidden("The hub refuses access; check `hub.token`.", code="hub_refused")
    if status == 429:
        return RateLimited("The hub asks to wait.", retry_after=60)
    return UpstreamError("The hub failed.")


def _search(api: "HfApi", query: str, limit: int) -> list[HubModel]:
    """Asks once. The library's own search asks again for longer than anybody waits, and follows links elsewhere."""
    from huggingface_hub import ModelInfo, get_session  # noqa: PLC0415
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        build_hf_headers,
        hf_raise_for_status,
    )

    headers = build_hf_headers(token=api.token, library_name=api.library_name, library_version=api.library_version)
    wanted: dict[str, Any] = {
        "search": query,
        "filter": "gguf",
        "sort": "downloads",
        "limit": limit,
        "expand": ["downloads", "likes", "gated", "siblings"],
    }
    response = get_session().get(f"{api.endpoint}/api/models", params=wanted, headers=headers)
    hf_raise_for_status(response)
    found = [ModelInfo(**model) for model in islice(response.json(), limit)]  # type: ignore[no-untyped-call]
    return [
        HubModel(
            repo=model.id,
            downloads=_count(model.downloads),
            likes=_count(model.likes),
            gated=bool(model.gated),
            files=[file for file in _files(model.siblings) if file.kind != "other"],
        )
        for model in found
        if _REPO.fullmatch(model.id)
    ]


def _info(api: "HfApi", repo: str, revision: str | None) -> "ModelInfo":
    return api.model_info(repo, revision=revision, files_metadata=True)


def _files(siblings: "Iterable[RepoSibling] | None") -> list[HubFile]:
    files = []
    for sibling in islice(siblings or (), _MOST_FILES):
        name: Any = sibling.rfilename
        if not isinstance(name, str) or not 0 < len(name) <= _MOST_NAME:
            continue
        size: Any = sibling.lfs.size if sibling.lfs is not None else sibling.size
        digest: Any = sibling.lfs.sha256 if sibling.lfs is not None else None
        files.append(
            HubFile(
                name=name,
                size=size if isinstance(size, int) and size >= 0 else None,
                sha256=digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
                kind=kind_of(name),
            )
        )
    return files


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
