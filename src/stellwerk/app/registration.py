"""Hands the APIs of people and money what each of them needs."""

from collections.abc import Callable, Mapping

from stellwerk import __version__
from stellwerk.api._endpoints import Registry
from stellwerk.api._guard import Routes
from stellwerk.api.account import AccountAPI
from stellwerk.api.admin.administration import Administration
from stellwerk.api.admin.audit import AuditAPI
from stellwerk.api.admin.auto_switch import AutoSwitchAPI
from stellwerk.api.admin.downloads import DownloadsAPI
from stellwerk.api.admin.keys import KeysAPI
from stellwerk.api.admin.missing_models import MissingModelsAPI
from stellwerk.api.admin.models import ModelsAPI
from stellwerk.api.admin.money import MoneyAPI
from stellwerk.api.admin.reports import ReportsAPI
from stellwerk.api.admin.running_calls import RunningCallsAPI
from stellwerk.api.admin.settings import (
    ConfiguredSettings,
    PricingShape,
    RateLimitsShape,
    SettingsAPI,
    SignupShape,
    SlotShape,
)
from stellwerk.api.admin.signups import SignupsAPI
from stellwerk.api.admin.slots import SlotsAPI
from stellwerk.api.admin.system import SystemAPI
from stellwerk.api.admin.users import UsersAPI
from stellwerk.api.admin.webhooks import WebhooksAPI
from stellwerk.api.login import LoginAPI
from stellwerk.api.openapi import OpenAPI
from stellwerk.api.own_keys import OwnKeysAPI
from stellwerk.api.public import PublicAPI
from stellwerk.app import settings as cut
from stellwerk.app.auto_switch import AutoSwitch
from stellwerk.app.jobs import JobParts
from stellwerk.app.local_models import LocalModelParts
from stellwerk.app.notices import Notices
from stellwerk.app.people import People
from stellwerk.config.settings import Config
from stellwerk.engines.slots import Slots
from stellwerk.pipeline.gateway import Gateway
from stellwerk.routing.catalogue import Catalogue
from stellwerk.storage.sealing import Seal
from stellwerk.telemetry.machine import Cores, Processor, read_memory

_LOADED_STATES = frozenset({"ready", "restarting", "draining"})


def register_people(
    routes: Routes,
    people: People,
    notices: Notices,
    seal: Seal,
    auto_switch: AutoSwitch,
    gateway: Gateway,
    *,
    catalogue: Catalogue,
    engines: Slots,
    config: Callable[[], Config],
    local: LocalModelParts | None = None,
    jobs: JobParts | None = None,
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
    for api in (KeysAPI, MoneyAPI, SignupsAPI, AuditAPI, MissingModelsAPI):
        api(administration).register(registry)
    AutoSwitchAPI(auto_switch.advise).register(registry)
    RunningCallsAPI(administration, gateway).register(registry)
    WebhooksAPI(
        administration,
        seal=seal,
        check=notices.egress.check,
        test=notices.webhooks.send_test,
        refresh=notices.webhooks.refresh,
    ).register(registry)
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
    if local is not None:
        register_local_models(registry, administration, local)
    if jobs is not None:
        jobs.register(registry, administration)
    OpenAPI(registry, __version__).register()
    return registry


def register_local_models(registry: Registry, administration: Administration, local: LocalModelParts) -> None:
    SlotsAPI(administration, local.api, loads=local.loads, look=local.processes.look).register(registry)
    SystemAPI(
        local.api, look=local.processes.look, cores=Cores().busy, processor=Processor().busy, memory=read_memory
    ).register(registry)
    DownloadsAPI(administration, local.api).register(registry)
    ModelsAPI(administration, local.api).register(registry)


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
    files = engines.files()
    return {
        str(slot.port): None
        if slot.model is None
        else SlotShape(
            model_path=files[slot.model].path.name if slot.model in files else f"{slot.model}.gguf",
            model_type=slot.type or "text",
            ctx_size=slot.context or config.engines.context,
            threads=config.engines.threads if slot.threads is None else slot.threads,
        )
        for slot in engines.status()
    }


def _ports(engines: Slots) -> Mapping[str, int]:
    """The ports of the loaded models, by their ids."""
    return {
        slot.model: slot.port for slot in engines.status() if slot.model is not None and slot.state in _LOADED_STATES
    }
