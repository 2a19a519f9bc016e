"""What of a changed config waits for a restart."""

import logging

import msgspec

from stellwerk.config.reading import restart_needed
from stellwerk.config.settings import Config

_FIXED = (
    "engines", "hub", "compat", "sigorest", "go_ollama", "ollama_cloud_proxy", "ai_gateway", "jobs", "ocr", "sessions",
)  # fmt: skip
_log = logging.getLogger("stellwerk.app")


def without_fixed_changes(now: Config, config: Config) -> Config:
    """`config` with the old values of everything that cannot change while the gateway runs; the log names it."""
    needed = restart_needed(now, config)
    needed += [name for name in _FIXED if getattr(config, name) != getattr(now, name)]
    money = msgspec.structs.replace(config.money, currency=now.money.currency)
    if config.money != money:
        needed.append("money.currency")
    if needed:
        _log.warning("a restart is needed for: %s", ", ".join(needed))
    kept = {name: getattr(now, name) for name in ("listen", *_FIXED)}
    return msgspec.structs.replace(config, money=money, **kept)
