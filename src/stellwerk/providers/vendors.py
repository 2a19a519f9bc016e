"""The vendors that speak OpenAI's API, one row each in vendors.yaml, and which of them the environment has keys for."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from stellwerk.core.secrets import Secret

# libyaml reads the table ten times faster; it is missing where PyYAML was built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MOST_NUMBERED_KEYS = 32
_BaseURL = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+(/[^\s]*[^/\s])?$")]
_Variable = Annotated[str, msgspec.Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Vendor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts about one vendor; a quirk at its default means that the vendor does what OpenAI's own API does."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]*$")]
    """The provider's name, which stands before the slash in the names of its models."""
    title: str
    owned_by: str
    base_url: _BaseURL | None = None
    """Without a slash at the end; None when only the configuration can know it."""
    base_url_variables: tuple[_Variable, ...] = ()
    """Environment variables that replace `base_url`, the first one that is set wins."""
    key_variables: tuple[_Variable, ...] = ()
    """Environment variables for the key, the first one that is set wins.

    With `_0` to `_31` behind its name, each stands for more than one key.
    """
    key_required: bool = True
    automatic: bool = True
    """Whether a key in the environment is reason enough to offer the vendor."""
    local: bool = False
    """Runs on the owner's machines: nothing is sent to a third party."""
    completions: bool = True
    """Has `/completions`."""
    embeddings: bool = True
    """Has `/embeddings`."""
    rerank: str = ""
    """Where it reranks: a path below `base_url`, or with a slash before it one of its host; empty when it does not."""
    models: bool = True
    """Has `GET /models`."""
    stream_options: bool = True
    """Takes `stream_options.include_usage`; a vendor that does not sends the usage unasked."""
    model_prefix: str = ""
    """What `GET /models` puts before every name and requests do without."""
    price_vendor: str | None = None
    """The vendor's id in genai-prices; None when it has no prices there."""
    checked: date
    source: str


class VendorAccess(msgspec.Struct, frozen=True, kw_only=True):
    """A vendor that can be used, with the address and the keys that the environment gives it."""

    vendor: Vendor
    base_url: str
    keys: tuple[Secret, ...] = ()


def load_vendors() -> Mapping[str, Vendor]:
    """Every row of the table by name. Reads the file anew; the caller keeps the result."""
    return parse_vendors(Path(__file__).with_name("vendors.yaml").read_bytes())


def parse_vendors(table: bytes) -> Mapping[str, Vendor]:
    """Rows by name from YAML. Raises msgspec.ValidationError for an unknown field, a missing one or a wrong value."""
    rows = msgspec.convert(yaml.load(table, Loader=_Loader), dict[str, dict[str, Any]])  # noqa: S506  # a safe loader
    return {
        name: msgspec.convert({"owned_by": name, **row, "name": name}, Vendor, strict=True)
        for name, row in rows.items()
    }


def vendors_in_environment(vendors: Mapping[str, Vendor], environment: Mapping[str, str]) -> list[VendorAccess]:
    """The vendors that can be used with what the environment holds.

    A vendor on the owner's machines, or one that needs no key, is there only when its address is set: nobody is
    knocked at on the chance that something listens.
    """
    found = []
    for vendor in vendors.values():
        keys = keys_in_environment(vendor.key_variables, environment)
        address = _first(vendor.base_url_variables, environment)
        base_url = (address or vendor.base_url or "").rstrip("/")
        wanted = bool(address) or (bool(keys) and vendor.automatic and vendor.key_required)
        if base_url and wanted and (keys or not vendor.key_required):
            found.append(VendorAccess(vendor=vendor, base_url=base_url, keys=keys))
    return found


def keys_in_environment(variables: Sequence[str], environment: Mapping[str, str]) -> tuple[Secret, ...]:
    """The keys that the first of `variables` has which has any, in the order NAME, NAME_0, …, NAME_31."""
    for variable in variables:
        names = (variable, *(f"{variable}_{number}" for number in range(_MOST_NUMBERED_KEYS)))
        values = (environment.get(name, "").strip() for name in names)
        if found := dict.fromkeys(value for value in values if value):
            return tuple(map(Secret, found))
    return ()


def _first(variables: tuple[str, ...], environment: Mapping[str, str]) -> str:
    return next((value for name in variables if (value := environment.get(name, "").strip())), "")
