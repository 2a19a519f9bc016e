"""What a hub offers, and which files of a repository belong to the model that somebody names. Pure."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec

from stellwerk.core.errors import BadRequest, NotFound

Kind = Literal["model", "mmproj", "other"]
Source = Literal["hub", "ollama"]
"""Who has the files: a Hugging Face hub, or a registry of Ollama's."""

_REPO_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_PART = re.compile(r"[^\x00-\x1f\x7f\\/]{1,200}")
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}\.gguf")
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})")
_MOST_REFERENCE = 600
_MOST_PARTS = 200
_NAMED = 20
"""So many quantisations a message lists."""

# What a name without a quantisation means: the usual compromise first, then what comes closest to it.
_PREFERRED = (
    "Q4_K_M", "Q4_K_XL", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_0", "Q4_1", "MXFP4", "Q5_K_M", "Q5_K_S", "Q5_0", "Q6_K",
    "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K", "F16", "BF16", "F32",
)  # fmt: skip
_PROJECTOR_PREFERRED = ("F16", "BF16", "Q8_0", "F32")
_KNOWN = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d_(?:K_(?:XL|XS|[SML])|K|NL|XXS|XS|[SM01])|TQ\d_0|MXFP4|NVFP4|BF16|F16|F32|FP16|FP32))"
    r"(?=$|[-./])",
    re.IGNORECASE,
)


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a repository."""

    name: str
    """Its path in the repository."""
    size: int | None
    """Bytes; None where the hub was not asked for it, as in a search."""
    sha256: str | None
    kind: Kind


class HubModel(msgspec.Struct, frozen=True, kw_only=True):
    """One result of a search."""

    repo: str
    downloads: int
    likes: int
    gated: bool
    files: list[HubFile]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a person named."""

    repo: str
    revision: str | None = None
    quantization: str | None = None
    file: str | None = None


class ChosenFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is to be fetched."""

    name: str
    """Its path in the repository; in a registry its digest."""
    local: str
    """Its name in the models folder."""
    size: int
    sha256: str | None
    kind: Kind


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The files that make one model: all its parts and, where it has one, its projector."""

    repo: str
    revision: str
    """The commit, so that all parts and all attempts see the same files."""
    files: tuple[ChosenFile, ...]
    model_id: str
    """The name under which it can be called once it is here."""
    total: int
    source: Source = "hub"


def kind_of(name: str) -> Kind:
    stem = PurePosixPath(name).name.lower()
    if not stem.endswith(".gguf"):
        return "other"
    if "mmproj" in stem:
        return "mmproj"
    return "other" if "imatrix" in stem else "model"


def parse_reference(text: str, file: str | None = None, hosts: Iterable[str] = ()) -> Reference:
    """Reads `hf.co/user/repo[:QUANT]`, `user/repo[:QUANT]`, `user/repo/file.gguf` or the address of a hub's page.

    `hosts` are further names of the hub. Raises BadRequest.
    """
    text = text.strip()
    if not text or len(text) > _MOST_REFERENCE:
        raise _bad("A model of the hub is named as user/repository, optionally with :quantisation.")
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https", "hf"):
            raise _bad("Only a hub's models can be named by an address.")
        text = unquote(f"{parts.netloc}{parts.path}").removeprefix("models/")
    for host in ("hf.co", "huggingface.co", "www.huggingface.co", *hosts):
        text = _without_host(text, host)
    user, _, rest = text.strip("/").partition("/")
    repo, _, path = rest.partition("/")
    tag: str | None = None
    if path:
        if ":" in repo:
            raise _bad("A quantisation stands at the end: user/repository:QUANT.")
    else:
        repo, _, tag = repo.partition(":")
    if not _REPO_PART.fullmatch(user) or not _REPO_PART.fullmatch(repo) or "--" in repo or ".." in repo + user:
        raise BadRequest(
            "That names no repository; a model of the hub is named as user/repository[:quantisation].",
            param="model",
            code="invalid_model_name",
        )
    revision, path = _revision(path)
    return _with_file(f"{user}/{repo}", revision, tag or None, file or path or None)


def _without_host(text: str, host: str) -> str:
    return text[len(host) + 1 :] if text.lower().startswith(host.lower() + "/") else text


def _revision(path: str) -> tuple[str | None, str]:
    """Splits what follows a repository in the address of a page: blob/<revision>/<file>."""
    place, _, rest = path.partition("/")
    if place not in {"blob", "resolve", "tree"} or not rest:
        return None, path
    revision, _, file = rest.partition("/")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise _bad("That revision is none that a hub could have.")
    return revision, file


def _with_file(repo: str, revision: str | None, tag: str | None, file: str | None) -> Reference:
    if tag is not None and tag.lower().endswith(".gguf") and file is None:
        tag, file = None, tag
    if file is not None:
        if len(file) > 400 or not file.lower().endswith(".gguf"):
            raise _bad("Only GGUF files can be fetched.")
        if any(part in {".", ".."} or not _FILE_PART.fullmatch(part) for part in file.split("/")):
            raise _bad("That is no path of a file.")
        return Reference(repo=repo, revision=revision, file=file)
    if tag is not None and not _QUANTIZATION.fullmatch(tag):
        raise _bad("That is no quantisation; Q4_K_M is one.")
    return Reference(repo=repo, revision=revision, quantization=None if tag == "latest" else tag)


def _bad(message: str) -> BadRequest:
    return BadRequest(message, param="model")


def choose_files(repo: str, revision: str, files: Sequence[HubFile], wanted: Reference) -> Choice:
    """All parts of the model that `wanted` means, with its projector. Raises NotFound and BadRequest."""
    groups = _groups(file for file in files if file.kind == "model")
    if wanted.file is not None:
        parts = _named(groups, files, wanted.file)
    elif not groups:
        raise NotFound("That repository holds no GGUF model; look for one with GGUF in its name.", param="model")
    elif wanted.quantization is not None:
        parts = _quantized(groups, wanted.quantization)
    else:
        parts = _default(groups)
    stem = PurePosixPath(parts[0].name).stem
    split = _SPLIT.fullmatch(stem)
    model_id = split["stem"] if split else stem
    chosen = [_chosen(part, PurePosixPath(part.name).name) for part in parts]
    projector = None if parts[0].kind == "mmproj" else _projector(files, parts[0], model_id)
    if projector is not None:
        chosen.append(_chosen(projector, _projector_name(projector, model_id)))
    if len({file.local for file in chosen}) != len(chosen):
        raise BadRequest("Two files of that model have the same name.", param="model")
    total = sum(file.size for file in chosen)
    return Choice(repo=repo, revision=revision, files=tuple(chosen), model_id=model_id, total=total)


def _groups(files: Iterable[HubFile]) -> dict[str, list[HubFile]]:
    """Files by model; the parts of a split one in their order. Incomplete ones are left out."""
    groups: dict[str, list[HubFile]] = {}
    counts: dict[str, int] = {}
    for file in sorted(files, key=lambda file: (file.name.count("/"), len(file.name), file.name)):
        path = PurePosixPath(file.name)
        split = _SPLIT.fullmatch(path.stem)
        key = str(path.with_name(f"{split['stem']}-of-{split['count']}" if split else path.name))
        counts[key] = int(split["count"]) if split else 1
        groups.setdefault(key, []).append(file)
    for key, parts in list(groups.items()):
        parts.sort(key=lambda file: file.name)
        numbers = [split["part"] for part in parts if (split := _SPLIT.fullmatch(PurePosixPath(part.name).stem))]
        if (
            counts[key] > _MOST_PARTS
            or len(parts) != counts[key]
            or (numbers and numbers != [f"{number:05}" for number in range(1, counts[key] + 1)])
        ):
            del groups[key]
    return groups


def _named(groups: dict[str, list[HubFile]], files: Sequence[HubFile], name: str) -> list[HubFile]:
    for parts in groups.values():
        if any(part.name == name for part in parts):
            return parts
    for file in files:
        if file.name == name and file.kind == "mmproj":
            return [file]
    raise NotFound("That repository has no complete model in a file of that name.", param="model")


def _quantized(groups: dict[str, list[HubFile]], tag: str) -> list[HubFile]:
    for parts in groups.values():
        if _matches(parts[0].name, tag):
            return parts
    there = sorted({found[1].upper() for parts in groups.values() if (found := _KNOWN.search(_plain(parts[0].name)))})
    hint = f" It has: {', '.join(there[:_NAMED])}." if there else ""
    raise NotFound(f"That repository has no complete model in that quantisation.{hint}", param="model")


def _default(groups: dict[str, list[HubFile]]) -> list[HubFile]:
    for tag in _PREFERRED:
        for parts in groups.values():
            if _matches(parts[0].name, tag):
                return parts
    return next(iter(groups.values()))


def _matches(name: str, tag: str) -> bool:
    """Whether a quantisation stands in a path as a word: Q4_K is none of the words of `x-Q4_K_M`."""
    return re.search(rf"(?:^|[-._/]){re.escape(tag)}(?=$|[-./])", _plain(name), re.IGNORECASE) is not None


def _plain(name: str) -> str:
    """A path without the ending and the numbers of a part."""
    stem = name.rpartition(".")[0]
    split = _SPLIT.fullmatch(stem)
    return split["stem"] if split else stem


def _projector(files: Sequence[HubFile], model: HubFile, model_id: str) -> HubFile | None:
    """Of several, the one whose name shares most with the model's, then the one in the usual precision."""
    folder = PurePosixPath(model.name).parent
    near = [
        file
        for file in files
        if file.kind == "mmproj"
        and (PurePosixPath(file.name).parent == folder or PurePosixPath(file.name).parent in folder.parents)
    ]
    words = set(re.split(r"[-._]", base_name(model_id).lower()))

    def order(file: HubFile) -> tuple[int, int, str]:
        shared = len(words & set(re.split(r"[-._]", PurePosixPath(file.name).stem.lower())))
        precision = [rank for rank, tag in enumerate(_PROJECTOR_PREFERRED) if _matches(file.name, tag)]
        return -shared, min(precision, default=len(_PROJECTOR_PREFERRED)), file.name

    return min(near, key=order, default=None)


def _projector_name(file: HubFile, model_id: str) -> str:
    """Projectors are often called the same in every repository; here each carries the name of its model."""
    name = PurePosixPath(file.name).name
    base = base_name(model_id)
    if re.search(rf"(?:^|[-._]){re.escape(base)}(?=[-._])", name, re.IGNORECASE):
        return name
    precision = _KNOWN.search(_plain(name))
    return f"mmproj-{base[:90]}-{precision[1].upper()}.gguf" if precision else f"mmproj-{base[:100]}.gguf"


def base_name(model_id: str) -> str:
    """A model's name without its quantisation."""
    found = _KNOWN.search(model_id)
    return model_id[: found.start()] if found and found.start() else model_id


def _chosen(file: HubFile, local: str) -> ChosenFile:
    if not is_local_name(local):
        raise BadRequest(
            "That file's name cannot be used here: letters, digits, dots, dashes and underscores, then .gguf.",
            param="model",
        )
    if file.size is None:
        raise NotFound("The hub does not say how large that file is.", param="model")
    return ChosenFile(name=file.name, local=local, size=file.size, sha256=file.sha256, kind=file.kind)


def is_local_name(name: str) -> bool:
    """Whether a file of that name may stand in the models folder."""
    return _LOCAL.fullmatch(name) is not None


def is_later_part(name: str) -> bool:
    """Whether a file is a part of a split model, and not its first."""
    split = _SPLIT.fullmatch(PurePosixPath(name).stem)
    return split is not None and int(split["part"]) != 1
