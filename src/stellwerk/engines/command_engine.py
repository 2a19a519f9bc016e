"""Any program as an engine: a command line of the operator's configuration, in which what is known is filled in.

The command never comes from a request, and no shell reads it.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from stellwerk.core.ports import EngineAddress
from stellwerk.core.secrets import Secret
from stellwerk.engines.environment import bound_command, child_environment, threads_of
from stellwerk.engines.failure import EngineFailed
from stellwerk.engines.model_files import ModelFile
from stellwerk.engines.options import EngineOptions
from stellwerk.engines.process import Launch

PLACEHOLDERS = frozenset({"model", "host", "port", "key", "context", "threads", "parallel", "mmproj"})

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""Other braces stand for themselves: arguments may be JSON."""
_SECRET_LENGTH = 8
"""Shorter values of the environment are switches, and would make a message unreadable if they were hidden in it."""


class EngineCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of the configuration. Raises ValueError for a placeholder that nobody knows."""

    command: tuple[str, ...]
    health: str = "/health"
    """Path that answers 200 once the model is loaded."""
    checks_key: bool = False
    """The program answers `/v1/models` only to who shows {key}; otherwise its answer to `health` has to do."""
    environment: Mapping[str, Secret] = msgspec.field(default_factory=dict)
    """Variables of the child; placeholders are filled in here too, so that a key need not stand on a command line."""

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("a command needs a program")
        unknown = unknown_placeholders((*self.command, *(value.reveal() for value in self.environment.values())))
        if unknown:
            raise ValueError(f"a command does not know {{{unknown[0]}}}")


def unknown_placeholders(texts: Iterable[str]) -> list[str]:
    """Names in braces that stand for nothing, for the check of a configuration."""
    return sorted({name for text in texts for name in _PLACE.findall(text) if name not in PLACEHOLDERS})


def launch(
    file: ModelFile,
    options: EngineOptions,
    address: EngineAddress,
    environment: Mapping[str, str],
    engine: EngineCommand,
) -> Launch:
    """Raises EngineFailed when the program is not there, or needs a projector and the model has none."""
    if options.mmproj is None and any("{mmproj}" in argument for argument in engine.command):
        raise EngineFailed("its command needs a projector (mmproj), and none is named for the model")
    values = {
        "model": str(file.path),
        "host": address.host,
        "port": str(address.port),
        "key": address.key,
        "context": str(options.context),
        "threads": str(threads_of(options.threads)),
        "parallel": str(options.parallel),
        "mmproj": str(options.mmproj or ""),
    }
    program, *arguments = (fill(argument, values) for argument in engine.command)
    own = {name: fill(value.reveal(), values) for name, value in engine.environment.items()}
    return Launch(
        command=bound_command(program, tuple(arguments), environment),
        environment=child_environment(environment) | own,
        orders=b"",
        announces=False,
        address=address,
        hidden=(str(file.path), address.key, *(value for value in own.values() if len(value) >= _SECRET_LENGTH)),
        engine=options.engine,
        health_path=engine.health,
        checks_key=engine.checks_key,
    )


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each known placeholder replaced once: what is filled in is not looked at again."""
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)
