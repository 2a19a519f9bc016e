"""`stellwerk chat`: a conversation with a model of a running gateway."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble, OfferedModel
from stellwerk.cli.language import text
from stellwerk.cli.own_address import find_own_url
from stellwerk.cli.refusals import explain_trouble
from stellwerk.config.reading import data_folder
from stellwerk.core.secrets import Secret

app = typer.Typer(add_completion=False)

DEMO_MODEL = "stellwerk-demo"
ADMIN_KEY_FILE = "admin.key"
CHAT_KEY_FILE = "chat.key"
INTERRUPTED = 130
_MOST_MESSAGES = 400
# What a model writes must not steer the terminal: escape sequences would reach it from here.
_HARMLESS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


class Conversation:
    """The messages so far; the oldest exchange goes first when there are too many."""

    def __init__(self, client: GatewayClient, model: str, system: str | None) -> None:
        self.model = model
        self._client = client
        self._system = [{"role": "system", "content": system}] if system else []
        self._messages: list[dict[str, str]] = []

    def ask(self, question: str) -> None:
        """Prints the answer as it comes.

        Raises GatewayTrouble, and KeyboardInterrupt when it was stopped. What had come until then stays part of the
        conversation; a question without any answer does not.
        """
        self._messages.append({"role": "user", "content": question})
        pieces: list[str] = []
        try:
            with contextlib.closing(self._client.answer(self.model, [*self._system, *self._messages])) as answer:
                for piece in answer:
                    pieces.append(piece)
                    typer.echo(piece.translate(_HARMLESS), nl=False)
        finally:
            if pieces:
                typer.echo()
                self._messages.append({"role": "assistant", "content": "".join(pieces)})
                del self._messages[: max(0, len(self._messages) - _MOST_MESSAGES)]
            else:
                self._messages.pop()

    def clear(self) -> None:
        self._messages.clear()


@app.command()
def chat(
    model: Annotated[str | None, typer.Argument(help="The model; without it a local one.", show_default=False)] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Where the gateway listens; without it the one of this machine.", show_default=False),
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key; better in STELLWERK_API_KEY.", show_default=False)] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.", show_default=False)] = None,
    once: Annotated[str | None, typer.Option(help="Ask this, print the answer and exit.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder of the gateway.", show_default=False)] = None,
) -> None:
    """Talk to a model of the running gateway."""
    try:
        client = GatewayClient(url or find_own_url(data, os.environ))
        client.key = find_key(key, os.environ, data, look_into_folder=client.is_on_this_machine)
        conversation = Conversation(client, model or default_model(client.models()), system)
        if once is not None:
            conversation.ask(once)
        else:
            _talk(client, conversation)
    except GatewayTrouble as trouble:
        _report(trouble)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def find_key(given: str | None, environment: Mapping[str, str], data: Path | None, *, look_into_folder: bool) -> Secret:
    """The key to use. Raises GatewayTrouble when there is none.

    Keys from the data folder are for the gateway on this machine and sent nowhere else. Without any, one is made
    there for the chat.
    """
    found = given or environment.get("STELLWERK_API_KEY") or environment.get("STELLWERK_ADMIN_KEY") or ""
    folder = data_folder(data, environment)
    if not found and look_into_folder:
        # The admin's comes last: its sessions are not those of the clients that need no key.
        found = _read_key(folder / CHAT_KEY_FILE) or _make_key(folder) or _read_key(folder / ADMIN_KEY_FILE)
    if not found.strip():
        raise GatewayTrouble("chat.no_key", file=folder / ADMIN_KEY_FILE)
    return Secret(found.strip())


def _read_key(file: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="ascii").strip()
    return ""


def _make_key(folder: Path) -> str:
    # Only now: the database costs a quarter of a second to import.
    from stellwerk.cli.own_key import make_own_key  # noqa: PLC0415

    key = make_own_key(folder, "stellwerk chat")
    return key.reveal() if key is not None else ""


def default_model(offered: list[OfferedModel]) -> str:
    """A local model, the demo only when it is the only one, else whatever comes first. Raises GatewayTrouble."""
    chatting = [model for model in offered if model.chats]
    local = [model for model in chatting if model.local]
    ranked = sorted(local, key=lambda model: model.id == DEMO_MODEL) or chatting
    if not ranked:
        raise GatewayTrouble("chat.no_models")
    return ranked[0].id


def _talk(client: GatewayClient, conversation: Conversation) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415  # gives input() editing and history, where the system has it
        typer.echo(text("chat.welcome", model=conversation.model))
    while (line := _read_line(interactive)) is not None:
        try:
            if line.startswith("/"):
                if not _obey(line, client, conversation):
                    return
            elif line:
                conversation.ask(line)
        except GatewayTrouble as trouble:
            if not interactive:
                raise
            _report(trouble)
        except KeyboardInterrupt:
            if not interactive:
                raise
            typer.echo("\n" + text("chat.stopped"))


def _read_line(interactive: bool) -> str | None:
    """The next line without its ends; None when there are no more."""
    if not interactive:
        line = sys.stdin.readline()
        return line.strip() if line else None
    while True:
        try:
            return input("> ").strip()
        except EOFError:
            typer.echo()
            return None
        except KeyboardInterrupt:
            typer.echo("\n" + text("chat.how_to_leave"))


def _obey(line: str, client: GatewayClient, conversation: Conversation) -> bool:
    """Carries out a command; False when it was the one that ends the conversation."""
    command, _, argument = line.partition(" ")
    argument = argument.strip()
    if command in {"/exit", "/quit", "/bye"}:
        return False
    if command == "/models":
        for model in client.models():
            typer.echo(("* " if model.id == conversation.model else "  ") + model.id.translate(_HARMLESS))
    elif command == "/model" and argument:
        conversation.model = argument
        typer.echo(text("chat.model", model=argument))
    elif command == "/model":
        typer.echo(text("chat.model", model=conversation.model))
    elif command == "/clear":
        conversation.clear()
        typer.echo(text("chat.cleared"))
    else:
        typer.echo(text("chat.commands"))
    return True


def _report(trouble: GatewayTrouble) -> None:
    typer.echo(explain_trouble(trouble).translate(_HARMLESS), err=True)
