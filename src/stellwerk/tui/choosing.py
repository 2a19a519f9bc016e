"""Which of the two ways to ask fits the address and the token."""

from stellwerk.core.clock import Clock
from stellwerk.tui import admin_source, documented_source
from stellwerk.tui.admin_source import AdminSource
from stellwerk.tui.connection import Connection
from stellwerk.tui.documented_source import DocumentedSource
from stellwerk.tui.source import Source
from stellwerk.tui.trouble import ConsoleTrouble


async def choose_source(connection: Connection, clock: Clock) -> Source:
    """A login's token asks for the documented routes first, an API key for the administration.

    Raises ConsoleTrouble, `trouble.no_gateway` when the address has neither.
    """
    if connection.has_login and await documented_source.is_offered(connection):
        return DocumentedSource(connection, clock)
    if await admin_source.is_offered(connection):
        return AdminSource(connection, clock)
    if await documented_source.is_offered(connection):
        return DocumentedSource(connection, clock)
    raise ConsoleTrouble("trouble.no_gateway", url=connection.url)
