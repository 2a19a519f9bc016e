"""Models that are known by a short name: the built-in table, and the file that replaces it or chooses from it."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from stellwerk.core.plan import Price

FILE_NAME = "models.csv"

_HEADER = ("id", "shortcode")
_LEAST_FIELDS, _MOST_FIELDS = 10, 11
_MAX_BYTES = 1_048_576
_MAX_MODELS = 2_000
_MAX_WARNINGS = 50
_MAX_TOKENS = 1_000_000_000
_HOTTEST = 10.0
_SUGGESTIONS = 3
_SHOWN_CHARACTERS = 64
_DISCOVERED = "ollama-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,199}", re.ASCII)
_ENDPOINT = re.compile(
    r"https?://[A-Za-z0-9.:\[\]-]{1,255}(/[A-Za-z0-9._~%/-]{0,500})?/(chat/completions|embeddings)", re.ASCII
)
_VARIABLE = re.compile(r"([A-Z][A-Z0-9_]{0,127})?", re.ASCII)
_COST = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)
_DEGREES = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3})?", re.ASCII)
_FLAGS = {"": False, "false": False, "true": True}

_T = TypeVar("_T")


class RegistryModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    id: str
    """The name that goes upstream."""
    shortcode: str
    endpoint: str
    """The URL that requests go to, with `/chat/completions` or `/embeddings` at its end."""
    key_variable: str
    """The environment variable with the key; empty when none is needed."""
    max_input: int
    """Tokens; 0 when not known, here and below."""
    max_output: int
    input_cost: Decimal
    """USD for a million tokens."""
    output_cost: Decimal
    temperature: tuple[float, float]
    """The least and the highest; both 0 where there is none to choose."""
    completion_tokens: bool = False
    """Takes `max_completion_tokens` in the place of `max_tokens`."""

    @property
    def base_url(self) -> str:
        """The endpoint without what the API adds to it."""
        return self.endpoint.removesuffix("/embeddings").removesuffix("/chat/completions")

    @property
    def embeds(self) -> bool:
        return self.endpoint.endswith("/embeddings")

    @property
    def price(self) -> Price:
        # A dollar for a million is a million pico dollars for one.
        return Price(input=int(self.input_cost * 10**6), output=int(self.output_cost * 10**6))


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """What a table or a whitelist says, and what in it could not be used."""

    models: tuple[RegistryModel, ...]
    """No two with the same shortcode, whatever the case."""
    warnings: tuple[str, ...] = ()


def builtin_models() -> tuple[RegistryModel, ...]:
    """The table of the package. Reads the file anew; the caller keeps the result."""
    return _read_table(Path(__file__).with_name("registry.csv").read_text(encoding="utf-8")).models


def load(data_folder: Path) -> Registry:
    """The operator's `models.csv` in the data folder when there is one, else the built-in table.

    A file that cannot be read offers nothing: it may have been there to keep models out.
    """
    try:
        with (data_folder / FILE_NAME).open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return Registry(models=builtin_models())
    except OSError as error:
        return Registry(models=(), warnings=(f"it cannot be read ({error.strerror}), so it offers no models",))
    if len(raw) > _MAX_BYTES:
        return Registry(models=(), warnings=("it is larger than 1 MiB, so it offers no models",))
    # What is not UTF-8 is most often a comment; in a name it makes its own row unusable.
    return read_registry(raw.decode("utf-8", errors="replace"))


def read_registry(text: str) -> Registry:
    """Reads either form: rows with semicolons, or names of built-in models with commas or blanks between them."""
    text = text.removeprefix("\ufeff")
    if any(";" in line for _, line in _lines(text)):
        return _read_table(text)
    return _read_whitelist(text, builtin_models())


def nearest(name: str, models: Sequence[RegistryModel]) -> list[str]:
    """Shortcodes that may have been meant by `name`, the likeliest first, at most three."""
    forms: dict[str, str] = {}
    for model in models:
        forms.setdefault(model.shortcode.casefold(), model.shortcode)
        forms.setdefault(model.id.casefold(), model.shortcode)
    close = difflib.get_close_matches(name[:_SHOWN_CHARACTERS].casefold(), forms, n=2 * _SUGGESTIONS, cutoff=0.5)
    return list(dict.fromkeys(forms[form] for form in close))[:_SUGGESTIONS]


def _lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content:
            yield number, content


def _read_whitelist(text: str, builtin: Sequence[RegistryModel]) -> Registry:
    known = _by_name(builtin)
    chosen: dict[str, RegistryModel] = {}
    warnings = []
    for number, line in _lines(text):
        for name in re.split(r"[,\s]+", line):
            model = known.get(name.casefold())
            if model is not None:
                chosen[model.shortcode] = model
            # What an Ollama offers is known only once it has been asked, and always offered.
            elif name and not name.casefold().startswith(_DISCOVERED):
                meant = nearest(name, builtin)
                question = f"; did you mean {' or '.join(meant)}?" if meant else ""
                warnings.append(f"line {number}: there is no model {_shown(name)}{question}")
    if not chosen:
        warnings.append("it names no known model, so it offers none")
    return Registry(models=tuple(chosen.values()), warnings=_bounded(warnings))


def _by_name(models: Sequence[RegistryModel]) -> Mapping[str, RegistryModel]:
    named = {model.id.casefold(): model for model in models}
    return named | {model.shortcode.casefold(): model for model in models}


def _read_table(text: str) -> Registry:
    models: dict[str, RegistryModel] = {}
    endpoints: dict[tuple[str, str], str] = {}
    warnings = []
    for number, line in _lines(text):
        fields = [field.strip() for field in line.split(";")]
        if tuple(field.casefold() for field in fields[:2]) == _HEADER:
            continue
        try:
            model = _read_row(fields)
            if model.shortcode.casefold() in models:
                raise ValueError(f"the shortcode {model.shortcode} is taken by an earlier line")
            twin = endpoints.get((model.base_url, model.id))
            if twin is not None:
                raise ValueError(f"the model {model.id} stands in an earlier line as {twin}")
            if len(models) >= _MAX_MODELS:
                raise ValueError(f"there are more than {_MAX_MODELS} models")
        except ValueError as error:
            warnings.append(f"line {number} is ignored: {error}")
            continue
        models[model.shortcode.casefold()] = model
        endpoints[model.base_url, model.id] = model.shortcode
    if not models:
        warnings.append("no line of it can be used, so it offers no models")
    return Registry(models=tuple(models.values()), warnings=_bounded(warnings))


def _read_row(fields: Sequence[str]) -> RegistryModel:
    """Raises ValueError, which never repeats what stands where a key could have been written by mistake."""
    if not _LEAST_FIELDS <= len(fields) <= _MOST_FIELDS:
        raise ValueError(f"it has {len(fields)} fields in the place of {_LEAST_FIELDS} or {_MOST_FIELDS}")
    name, shortcode, endpoint, variable, most_in, most_out, cost_in, cost_out, coldest, hottest, *flag = fields
    low, high = (_field(_DEGREES, text, "a temperature", float) for text in (coldest, hottest))
    if not low <= high <= _HOTTEST:
        raise ValueError(f"the temperatures are no range from 0 to {_HOTTEST:g}")
    if (flag or [""])[0].casefold() not in _FLAGS:
        raise ValueError("the last field is neither true nor false")
    return RegistryModel(
        id=_field(_NAME, name, "the id", str),
        shortcode=_field(_NAME, shortcode or name, "the shortcode", str),
        endpoint=_field(
            _ENDPOINT, endpoint, "the endpoint, a URL that ends in /chat/completions or /embeddings,", _url
        ),
        key_variable=_field(_VARIABLE, variable, "the name of the variable for the key", str),
        max_input=_tokens(most_in),
        max_output=_tokens(most_out),
        input_cost=_field(_COST, cost_in, "a cost", Decimal),
        output_cost=_field(_COST, cost_out, "a cost", Decimal),
        temperature=(low, high),
        completion_tokens=_FLAGS[(flag or [""])[0].casefold()],
    )


def _field(form: re.Pattern[str], text: str, what: str, read: Callable[[str], _T]) -> _T:
    if form.fullmatch(text) is None:
        raise ValueError(f"{what} has not the form that it must have")
    return read(text)


def _url(text: str) -> str:
    try:
        usable = urlsplit(text).port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("the endpoint names no host and port")
    return text


def _tokens(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_TOKENS)) else -1
    if not 0 <= number <= _MAX_TOKENS:
        raise ValueError("a number of tokens is not a whole number, zero or more")
    return number


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…")


def _bounded(warnings: list[str]) -> tuple[str, ...]:
    if len(warnings) > _MAX_WARNINGS:
        left = len(warnings) - _MAX_WARNINGS
        return (*warnings[:_MAX_WARNINGS], f"{left} more such lines")
    return tuple(warnings)
