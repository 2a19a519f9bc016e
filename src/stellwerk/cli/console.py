"""`stellwerk console`: models, queues, requests and crashes of a running gateway, steered by keys."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from stellwerk.cli.admin_client import mint_token
from stellwerk.cli.data import Data
from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble
from stellwerk.cli.own_address import own_url
from stellwerk.cli.refusals import explain_trouble
from stellwerk.config.reading import data_folder
from stellwerk.core.secrets import Secret

app = typer.Typer(add_completion=False)

_FRESH_SECONDS = 300.0
_NO_TOKEN = 1


class OwnToken:
    """A token of minutes from the data folder, made anew in time: who may write the folder may administer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._token: Secret | None = None
        self._made_at = float("-inf")

    @property
    def exists(self) -> bool:
        self._refresh()
        return self._token is not None

    def __call__(self) -> Secret:
        self._refresh()
        return self._token or Secret("")

    def _refresh(self) -> None:
        if time.monotonic() - self._made_at > _FRESH_SECONDS:
            self._token = mint_token(self._folder) or self._token
            self._made_at = time.monotonic()


@app.command()
def console(
    url: Annotated[
        str | None, typer.Argument(help="Where the gateway listens; without it the one of this machine.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Argument(
            help="An admin's API key or login token; better in STELLWERK_API_KEY, where no list of processes shows it."
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Watch and steer a running gateway."""
    # Only now: the screen costs a fifth of a second to import.
    from stellwerk.tui.language import Words, language  # noqa: PLC0415
    from stellwerk.tui.main import run_console, token_of  # noqa: PLC0415

    folder = data_folder(data, os.environ)
    address = url or own_url(data, os.environ)
    given = Secret(token.strip()) if token and token.strip() else token_of(os.environ)
    if given is not None:
        chosen = given
        raise typer.Exit(run_console(address, lambda: chosen, os.environ, sys.stderr))
    try:
        own = OwnToken(folder) if GatewayClient(address).is_on_this_machine else None
    except GatewayTrouble as trouble:
        typer.echo(explain_trouble(trouble), err=True)
        raise typer.Exit(_NO_TOKEN) from None
    if own is None or not own.exists:
        typer.echo(Words(language(os.environ))("no_token"), err=True)
        raise typer.Exit(_NO_TOKEN)
    raise typer.Exit(run_console(address, own, os.environ, sys.stderr))
