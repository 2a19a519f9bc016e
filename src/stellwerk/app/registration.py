"""Hands the APIs of people and money what each of them needs."""

from collections.abc import Callable, Mapping

from stellwerk import __version__
from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.account import AccountAPI
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.audit import AuditAPI
from stellwerk.api.admin.keys import KeysAPI
from stellwerk.api.admin.money import MoneyAPI
from stellwerk.api.admin.reports import ReportsAPI
from stellwerk.api.admin.settings import (
    ConfiguredSettings,
    PricingShape,
    RateLimitsShape,
    SettingsAPI,
    SignupShape,
    SlotShape,
)
from stellwerk.api.admin.signups import SignupsAPI
from stellwerk.api.admin.users import UsersAPI
from stellwerk.api.login import LoginAPI
from stellwerk.api.openapi import OpenAPI
from stellwerk.api.own_keys import OwnKeysAPI
from stellwerk.api.public import PublicAPI
from stellwerk.app import settings as cut
from stellwerk.app.people import People
from stellwerk.config.settings import Config
from stellwerk.engines.slots import Slots
from stellwerk.routing.catalogue import Catalogue
from stellwerk.telemetry.machine import Processor, read_memory


def register_people(
    routes: Routes, people: People, *, catalogue: Catalogue, engines: Slots, config: Callable[[], Config]
) -> Registry:
    """Registers every endpoint that is not on the data path; `config` is asked anew whenever it is needed."""
    registry = Registry(routes)
    administration = Administration(
        run=people.run,
        fetch=people.fetch,
        clock=people.clock,
        digest=people.digest,
        currency=config().money.currency,
        changed=people.refresh,
    )
    processor = Processor()
    LoginAPI(
        run=people.run,
        fetch=people.fetch,
        passwords=people.passwords,
        mint=people.mint,
        digest=people.digest,
        clock=people.clock,
        on_change=people.refresh,
    ).register(registry)
    UsersAPI(administration, people.passwords.hash).register(registry)
    for api in (KeysAPI, MoneyAPI, SignupsAPI, AuditAPI):
        api(administration).register(registry)
    OwnKeysAPI(administration, lambda: cut.key_allowance(config())).register(registry)
    SettingsAPI(
        administration, configured=lambda: _configured(config()), slots=lambda: _slots(engines, config())
    ).register(registry)
    ReportsAPI(
        administration, loaded=lambda: list(_ports(engines)), processor=processor.busy, memory=read_memory
    ).register(registry)
    AccountAPI(
        administration, status=people.limits.status, models=catalogue.models, ports=lambda: _ports(engines)
    ).register(registry)
    PublicAPI(
        run=people.run,
        fetch=people.fetch,
        models=catalogue.models,
        aliases=lambda: config().models,
        signup_enabled=lambda: people.signup_enabled,
        clock=people.clock,
    ).register(registry)
    OpenAPI(registry, __version__).register()
    return registry


def _configured(config: Config) -> ConfiguredSettings:
    tiers = config.limits.tiers
    return ConfiguredSettings(
        default_threads=config.engines.threads,
        default_ctx_size=config.engines.context,
        pricing=PricingShape(input_per_1k=config.money.input_per_1k, output_per_1k=config.money.output_per_1k),
        rate_limits=RateLimitsShape(payg=tiers.payg.requests_per_minute, sub=tiers.sub.requests_per_minute),
        signup=SignupShape(enabled=config.signup.enabled),
    )


def _slots(engines: Slots, config: Config) -> Mapping[str, SlotShape | None]:
    return {
        str(slot.port): None
        if slot.model is None
        else SlotShape(
            model_path=f"{slot.model}.gguf",
            model_type="text",
            ctx_size=config.engines.context,
            threads=config.engines.threads,
        )
        for slot in engines.status()
    }


def _ports(engines: Slots) -> Mapping[str, int]:
    """The ports of the loaded models, by their ids."""
    return {slot.model: slot.port for slot in engines.status() if slot.model is not None}
