"""Which projector (mmproj) belongs to a model: the operator's word first, then the names of the files."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stellwerk.engines.gguf import InvalidGguf, read_gguf
from stellwerk.engines.hub_files import base_name
from stellwerk.engines.model_types import ModelType
from stellwerk.engines.projector_facts import ProjectorFacts

_WHOLE_NAME, _SHARED, _ENOUGH = 100, 20, 20
_PRECISIONS = (("f16", 5), ("q8", 4), ("f32", 3))
_FAMILIES = ("qwen", "llava", "minicpm", "gemma", "internvl", "pixtral", "moondream", "smolvlm")
_MARKS = ("vision", "omni", "embed")
_SIZE = re.compile(r"(?<![a-z0-9.])\d{1,3}(?:\.\d{1,2})?b(?![a-z0-9])")
_VERSION = re.compile(r"(?<![\d.])\d{1,2}(?:\.\d{1,2})?(?![\d.]|b(?![a-z]))")


class Projector(msgspec.Struct, frozen=True, kw_only=True):
    """One projector on disk; it may have a fault."""

    path: Path
    facts: ProjectorFacts


def read_projector_file(path: Path) -> Projector:
    """Blocks. Raises InvalidGguf for what is no projector and for one that an engine must not be given."""
    facts = read_gguf(path)[0].projector
    if facts is None:
        raise InvalidGguf("it is no projector")
    if facts.fault:
        raise InvalidGguf(facts.fault)
    return Projector(path=path, facts=facts)


def serves(facts: ProjectorFacts, kind: ModelType) -> bool:
    """Whether a projector can give a model of that type its senses."""
    if facts.fault:
        return False
    if kind is ModelType.OMNI:
        return facts.sees or facts.hears
    return facts.hears if kind is ModelType.AUDIO else facts.sees


def find_projector(
    model: str, kind: ModelType, projectors: Sequence[Projector], *, width: int | None = None
) -> Projector | None:
    """The one whose name says most that it belongs to `model` (its id); of several that say nothing, none is guessed.

    `width` is the size of the model's embeddings.
    """
    able = sorted((one for one in projectors if serves(one.facts, kind)), key=lambda one: one.path.name)
    if not able:
        return None
    best = max(able, key=lambda one: score(model, one.path.stem))
    if len(able) == 1 or score(model, best.path.stem) >= _ENOUGH:
        return best
    fitting = [one for one in able if width is not None and one.facts.width == width]
    return fitting[0] if len(fitting) == 1 else None


def find_own(model: str, projectors: Sequence[Projector], *, width: int | None = None) -> Projector | None:
    """The projector that bears the name of `model`, as those that came with it do; of several the best precision.

    A model whose name says nothing of images takes them all the same when it has one.
    """
    own = [
        one
        for one in projectors
        if not one.facts.fault
        and _letters(_without_mark(one.path.stem)) == _letters(base_name(model).lower())
        and (width is None or one.facts.width in (None, width))
    ]
    return max(own, key=lambda one: (score(model, one.path.stem), one.path.name), default=None)


def find_named(name: str, folder: Path | None, projectors: Sequence[Projector]) -> Projector | None:
    """The projector of the folder that somebody named, by file name or whole path; only what a scan has found."""
    if folder is None:
        return None
    wanted = folder.absolute() / name
    return next((one for one in projectors if one.path == wanted and one.path.parent == folder.absolute()), None)


def score(model: str, candidate: str) -> int:
    """How much the name of a projector has in common with that of a model; both without their ending."""
    model, candidate = model.lower(), candidate.lower()
    points = _WHOLE_NAME if _letters(base_name(model)) in _letters(candidate) else 0
    points += _SHARED * len(_identifiers(model) & _identifiers(candidate))
    return points + next((value for precision, value in _PRECISIONS if precision in candidate), 0)


def _identifiers(name: str) -> set[str]:
    found = {word for word in (*_FAMILIES, *_MARKS) if word in name}
    found.update(_SIZE.findall(name))
    # A precision such as f16 or q8 is no version.
    return found | set(_VERSION.findall(re.sub(r"(?<![a-z])(?:bf|f|i?q)\d+(?:_[a-z0-9]+)*", "", name)))


def _without_mark(stem: str) -> str:
    """The name of a projector without the word for what it is and its precision."""
    return base_name(stem.lower()).replace("mmproj", "")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name)
