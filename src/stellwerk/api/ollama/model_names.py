"""Names of models as clients of an Ollama write them."""

from stellwerk.core.errors import NotFound
from stellwerk.core.plan import Model

LATEST = ":latest"
_SHOWN_CHARACTERS = 128


def is_whole_name(name: str, model: Model) -> bool:
    """Whether `name` is the model's whole name; the catalogue may take the beginning of one too, which is good enough
    for a question and not for what cannot be undone."""
    plain = name.casefold().removesuffix(LATEST)
    names = (model.id, model.name, f"{model.provider}:{model.name}", model.shortcode or "")
    return plain in {each.casefold().removesuffix(LATEST) for each in names}


def is_public_name(model: Model) -> bool:
    """Whether this is a name of the configuration, and the model itself has another."""
    return model.id not in (model.name, f"{model.provider}/{model.name}")


def short(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def no_such_model(name: str) -> NotFound:
    return NotFound(f"model '{short(name)}' not found", code="model_not_found", param="model")
