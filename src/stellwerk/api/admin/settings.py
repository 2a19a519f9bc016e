"""/admin/api/config: the settings in force, and the few of them that change while the gateway runs."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stellwerk.api._endpoints import Asked, Endpoint, Registry
from stellwerk.api.admin import actions
from stellwerk.api.admin.administration import Administration
from stellwerk.core.errors import Unavailable
from stellwerk.core.principal import ADMINS, OBSERVERS
from stellwerk.records.settings import read_settings

_TAG = "Settings"
_MASKED = "sk-…"

Rate = Annotated[
    float,
    Meta(ge=0, le=1000, description="Currency units for 1000 tokens, at most twelve decimals; null for the file's."),
]
Requests = Annotated[int, Meta(ge=0, le=1_000_000, description="In any 60 seconds; 0 is unlimited, null the file's.")]


class SlotShape(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded model."""

    model_path: Annotated[str, Meta(description="The file's name, without its folder.")]
    model_type: str
    ctx_size: int
    threads: int


class PricingShape(msgspec.Struct, frozen=True, kw_only=True):
    """Currency units for 1000 tokens of a model that has no price of its own."""

    input_per_1k: float
    output_per_1k: float


class RateLimitsShape(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one user in any 60 seconds, by tier; 0 is unlimited."""

    payg: int
    sub: int


class PerformanceShape(msgspec.Struct, frozen=True, kw_only=True):
    """How models are loaded: llama.cpp's own choices, which cannot be set."""

    flash_attention: bool = True
    mlock: bool = False
    kv_cache_quantization: str = "f16"
    batch_size: int = 2048


class SignupShape(msgspec.Struct, frozen=True, kw_only=True):
    """Whether strangers may ask for an account."""

    enabled: bool


class ConfiguredSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the config file says."""

    default_threads: int
    default_ctx_size: int
    pricing: PricingShape
    rate_limits: RateLimitsShape
    signup: SignupShape
    performance: PerformanceShape = PerformanceShape()


class ConfigShape(msgspec.Struct, kw_only=True):
    """The settings in force. Secrets are never shown."""

    slots: Annotated[dict[str, SlotShape | None], Meta(description="By port.")]
    hf_token: None
    admin_key: str
    admin_key_display: str
    default_threads: int
    default_ctx_size: int
    pricing: PricingShape
    rate_limits: RateLimitsShape
    performance: PerformanceShape
    signup: SignupShape
    currency: str
    changed: Annotated[list[str], Meta(description="Names of the settings that go before those of stellwerk.yaml.")]


class PricingChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """New default prices."""

    input_per_1k: Rate | UnsetType | None = UNSET
    output_per_1k: Rate | UnsetType | None = UNSET


class RateLimitChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """New limits by tier."""

    payg: Requests | UnsetType | None = UNSET
    sub: Requests | UnsetType | None = UNSET


class SignupChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Null takes what the file says."""

    enabled: bool | UnsetType | None = UNSET


class ConfigChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays, and null goes back to what stellwerk.yaml says."""

    pricing: PricingChanges | UnsetType = UNSET
    rate_limits: RateLimitChanges | UnsetType = UNSET
    signup: SignupChanges | UnsetType = UNSET


class ChangedConfig(msgspec.Struct, kw_only=True):
    """The settings after the change."""

    status: str
    config: ConfigShape


class SettingsAPI:
    """`slots` returns every slot by its port; `configured` what the file says now."""

    def __init__(
        self,
        administration: Administration,
        *,
        configured: Callable[[], ConfiguredSettings],
        slots: Callable[[], Mapping[str, SlotShape | None]],
    ) -> None:
        self._administration = administration
        self._configured = configured
        self._slots = slots

    def register(self, registry: Registry) -> None:
        path = "/admin/api/config"
        registry.add(
            Endpoint(
                method="GET",
                path=path,
                access=OBSERVERS,
                tag=_TAG,
                summary="Show the settings in force",
                handler=self._show,
                answer=ConfigShape,
                example=_CONFIG,
                errors=(Unavailable,),
            ),
            Endpoint(
                method="PATCH",
                path=path,
                access=ADMINS,
                tag=_TAG,
                summary="Change settings while the gateway runs",
                description="They go before those of stellwerk.yaml, also after a restart, until null takes them back.",
                handler=self._change,
                body=ConfigChanges,
                unknown_hint="Other settings are made in stellwerk.yaml.",
                body_example={"rate_limits": {"payg": 25, "sub": 100}, "signup": {"enabled": True}},
                answer=ChangedConfig,
                example={"status": "updated", "config": _CONFIG},
                errors=(Unavailable,),
            ),
        )

    async def _show(self, _asked: Asked) -> ConfigShape:
        return self._render(await self._administration.fetch(read_settings))

    async def _change(self, asked: Asked) -> ChangedConfig:
        changes = _flatten(asked.body)
        after = await self._administration.change(
            asked, lambda connection, actor, now: actions.change_settings(connection, actor, changes, now=now)
        )
        return ChangedConfig(status="updated", config=self._render(after))

    def _render(self, changed: Mapping[str, Any]) -> ConfigShape:
        configured = self._configured()
        pricing, limits = configured.pricing, configured.rate_limits
        return ConfigShape(
            slots=dict(self._slots()),
            hf_token=None,
            admin_key=_MASKED,
            admin_key_display=_MASKED,
            default_threads=configured.default_threads,
            default_ctx_size=configured.default_ctx_size,
            pricing=PricingShape(
                input_per_1k=float(changed.get("pricing.input_per_1k", pricing.input_per_1k)),
                output_per_1k=float(changed.get("pricing.output_per_1k", pricing.output_per_1k)),
            ),
            rate_limits=RateLimitsShape(
                payg=changed.get("rate_limits.payg", limits.payg), sub=changed.get("rate_limits.sub", limits.sub)
            ),
            performance=configured.performance,
            signup=SignupShape(enabled=changed.get("signup.enabled", configured.signup.enabled)),
            currency=self._administration.currency,
            changed=sorted(changed),
        )


def _flatten(body: ConfigChanges) -> dict[str, Any]:
    """The names of records.settings with their values."""
    return {
        f"{group}.{name}": value
        for group, fields in msgspec.structs.asdict(body).items()
        if fields is not UNSET
        for name, value in msgspec.structs.asdict(fields).items()
        if value is not UNSET
    }


_CONFIG = {
    "slots": {
        "4801": {"model_path": "llama-3.gguf", "model_type": "text", "ctx_size": 8192, "threads": 10},
        "4802": None,
    },
    "hf_token": None,
    "admin_key": _MASKED,
    "admin_key_display": _MASKED,
    "default_threads": 10,
    "default_ctx_size": 8192,
    "pricing": {"input_per_1k": 0.0001, "output_per_1k": 0.0002},
    "rate_limits": {"payg": 25, "sub": 100},
    "performance": {"flash_attention": True, "mlock": False, "kv_cache_quantization": "f16", "batch_size": 2048},
    "signup": {"enabled": False},
    "currency": "EUR",
    "changed": ["rate_limits.payg"],
}
