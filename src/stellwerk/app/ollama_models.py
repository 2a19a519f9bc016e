"""Who loads, fetches, copies and deletes models for Ollama's clients."""

from collections.abc import Mapping

from stellwerk.api.ollama.manage import Management
from stellwerk.api.ollama.remote import Remote
from stellwerk.app.providers import Providers
from stellwerk.config.settings import Config
from stellwerk.engines.pulls import Pulls
from stellwerk.engines.slots import Slots
from stellwerk.providers.ollama_native import OllamaNative
from stellwerk.routing.discovery import Discovery


def manage_models(
    config: Config, engines: Slots, pulls: Pulls | None, providers: Providers, discovery: Discovery
) -> Management:
    """`pulls` fetches into our own folder."""

    def remotes() -> Mapping[str, Remote]:
        found = providers.by_name.items()
        return {name: each for name, each in found if isinstance(each, OllamaNative) and each.is_ours}

    if not config.engines.enabled:
        return Management(None, None, remotes, discovery.refresh)
    return Management(engines, pulls, remotes, discovery.refresh)
