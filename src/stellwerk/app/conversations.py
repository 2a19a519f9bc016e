"""Sessions and the memory block, as the config wants them kept."""

from collections.abc import Callable
from pathlib import Path

from stellwerk.api.openai.conversations import Conversations
from stellwerk.config.settings import Config
from stellwerk.core.clock import Clock
from stellwerk.pipeline.gateway import Gateway
from stellwerk.routing.catalogue import Catalogue
from stellwerk.sessions.memory import MemoryBlock
from stellwerk.sessions.sessions import Sessions, SessionStore
from stellwerk.sessions.sql_store import SqlSessions
from stellwerk.sessions.store import FileSessions
from stellwerk.storage.database import Database


def make_conversations(
    config: Config,
    gateway: Gateway,
    memory: MemoryBlock,
    *,
    data: Path,
    database: Database,
    catalogue: Catalogue,
    is_local: Callable[[int], bool],
    clock: Clock,
) -> Conversations:
    """`is_local` knows the account of the tools on this machine."""

    def is_anthropic(name: str) -> bool:
        model = catalogue.get(name)
        return "claude" in (name if model is None else model.name).lower()

    store: SessionStore
    if config.sessions.store == "files":
        store = FileSessions(data / ".sessions")
    else:
        store = SqlSessions(database.read, database.write, clock)
    return Conversations(gateway, Sessions(store, clock), memory, is_anthropic=is_anthropic, is_local=is_local)
