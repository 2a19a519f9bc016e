"""Asks a registry of Ollama's which files make a model; their bytes come as those of a hub do."""

import asyncio
import hashlib
import re

import msgspec

from stellwerk.core.errors import (
    BadRequest,
    Forbidden,
    NotFound,
    RateLimited,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
)
from stellwerk.core.secrets import Secret
from stellwerk.engines.download_request import FileRequest
from stellwerk.engines.hub_files import Choice, ChosenFile
from stellwerk.http.pool import Pools

ADDRESS = "https://registry.ollama.ai"
_HOSTS = ("registry.ollama.ai/", "ollama.com/")
_PREFIXES = (*_HOSTS, "library/")
_MODEL = "application/vnd.ollama.image.model"
_PROJECTOR = "application/vnd.ollama.image.projector"
_ADAPTER = "application/vnd.ollama.image.adapter"
_TENSOR = "application/vnd.ollama.image.tensor"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_LAYERS = 10_000
_MOST_MODEL_ID = 100
_MOST_SIZE = 1 << 53


class _Layer(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""
    size: int = 0


class _Manifest(msgspec.Struct):
    layers: list[_Layer] | None = None


class LibraryName(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a registry, as people name it: `[namespace/]name[:tag]`."""

    namespace: str = "library"
    name: str
    tag: str = "latest"

    @property
    def repo(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def model_id(self) -> str:
        """The name under which it can be called once it is here: that of a file, which has no colon."""
        parts = [self.namespace] if self.namespace != "library" else []
        parts += [self.name] if self.tag == "latest" else [self.name, self.tag]
        return "-".join(parts)


def is_library_name(name: str) -> bool:
    """Whether Ollama's own registry is meant: `name[:tag]`, or with its host before it. All others are a hub's."""
    plain = name.strip().lower().removeprefix("https://")
    return "/" not in plain or plain.startswith(_PREFIXES)


def parse_library_name(text: str) -> LibraryName:
    """Reads a name with or without the registry's host. Raises BadRequest."""
    text = text.strip().removeprefix("https://")
    for host in _HOSTS:
        text = text[len(host) :] if text.lower().startswith(host) else text
    path, _, tag = text.partition(":")
    *namespaces, name = path.split("/")
    found = LibraryName(
        namespace=namespaces[0] if namespaces else "library", name=name, tag=tag if ":" in text else "latest"
    )
    parts = (found.namespace, found.name, found.tag)
    if len(namespaces) > 1 or not all(map(_PART.fullmatch, parts)) or len(found.model_id) > _MOST_MODEL_ID:
        raise BadRequest("invalid model name", param="model", code="invalid_model_name")
    return found


class OllamaRegistry:
    """One registry, asked without an account. `seconds` bounds a question."""

    token: Secret | None = None

    def __init__(self, pools: Pools, address: str = ADDRESS, *, seconds: float = 20.0) -> None:
        """`address` is a base URL."""
        self._pools = pools
        self._address = address.rstrip("/")
        self._seconds = seconds

    async def choose(self, name: str) -> Choice:
        """The files of one model. Raises BadRequest for one in no form that can be run here, and NotFound."""
        wanted = parse_library_name(name)
        body = await self._manifest(wanted)
        try:
            manifest = msgspec.json.decode(body, type=_Manifest)
        except (ValueError, RecursionError):
            raise UpstreamBroken("The registry answered something that cannot be understood.") from None
        files = _files(wanted, (manifest.layers or [])[:_MOST_LAYERS])
        return Choice(
            repo=wanted.repo,
            revision=hashlib.sha256(body).hexdigest(),
            files=files,
            model_id=wanted.model_id,
            total=sum(file.size for file in files),
            source="ollama",
        )

    def address(self, repo: str, revision: str, name: str) -> str:  # noqa: ARG002  # a digest says it all
        """Where the bytes with the digest `name` are."""
        return f"{self._address}/v2/{repo}/blobs/{name}"

    async def _manifest(self, wanted: LibraryName) -> bytes:
        url = f"{self._address}/v2/{wanted.repo}/manifests/{wanted.tag}"
        try:
            async with asyncio.timeout(self._seconds):
                opened = await FileRequest(self._pools, url, None).open(0)
                try:
                    return await opened.answer.read()
                finally:
                    opened.answer.abort()
        except TimeoutError:
            raise UpstreamTimeout("The registry did not answer in time.") from None
        except NotFound:
            raise NotFound("pull model manifest: file does not exist", param="model", code="not_in_library") from None
        except Forbidden:
            raise Forbidden("pull model manifest: the registry refuses access") from None
        except RateLimited as error:
            raise RateLimited("The registry asks to wait.", retry_after=error.retry_after) from None
        except UpstreamError as error:
            raise UpstreamError("pull model manifest: the registry cannot be asked", code=error.code) from None


def _files(wanted: LibraryName, layers: list[_Layer]) -> tuple[ChosenFile, ...]:
    """Model and projector: templates and parameters of a Modelfile are not needed, since a GGUF file has its own."""
    models = [layer for layer in layers if layer.media_type == _MODEL]
    projectors = [layer for layer in layers if layer.media_type == _PROJECTOR]
    if any(layer.media_type.startswith((_ADAPTER, _TENSOR)) for layer in layers) or len(models) != 1:
        raise BadRequest(
            "This model is in a form that only an Ollama can run: what is fetched here is one GGUF file.",
            param="model",
            code="unsupported_operation",
        )
    chosen = [_file(models[0], f"{wanted.model_id}.gguf")]
    if projectors:
        chosen.append(_file(projectors[0], f"mmproj-{wanted.model_id}.gguf", projector=True))
    return tuple(chosen)


def _file(layer: _Layer, local: str, *, projector: bool = False) -> ChosenFile:
    digest = _DIGEST.fullmatch(layer.digest)
    if digest is None or not 0 < layer.size < _MOST_SIZE:
        raise UpstreamBroken("The registry answered something that cannot be understood.")
    return ChosenFile(
        name=layer.digest, local=local, size=layer.size, sha256=digest[1], kind="mmproj" if projector else "model"
    )
