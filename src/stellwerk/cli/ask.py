"""`stellwerk ask`: one question to a running gateway, its answer on standard output."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from stellwerk.cli.chat import default_model, find_key
from stellwerk.cli.gateway_client import GatewayClient, GatewayTrouble, OfferedModel
from stellwerk.cli.language import text
from stellwerk.cli.model_facts import ModelFacts, find_model, read_facts
from stellwerk.cli.own_address import find_own_url
from stellwerk.cli.question import Question, answer, read_prompt, report
from stellwerk.core.secrets import Secret

app = typer.Typer(add_completion=False)

TRUSTED_URL = "http://127.0.0.1:9080"
"""The sigoREST listener, which needs no key from this machine."""

FAILED = 1
NO_PROMPT = 2
INTERRUPTED = 130


@app.command()
def ask(
    prompt: Annotated[
        list[str] | None, typer.Argument(help="The question; without it standard input.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model; without it a local one.")] = None,
    session: Annotated[str | None, typer.Option("--session", "-s", help="Go on with the chat of this name.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", "-n", min=1, help="The most tokens of the answer.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", "-T", min=0, max=2, help="How freely the model chooses its words.")
    ] = None,
    timeout: Annotated[
        int | None, typer.Option("--timeout", "-t", min=1, max=86400, help="Seconds for all attempts together.")
    ] = None,
    retries: Annotated[int | None, typer.Option("--retries", "-r", min=1, max=10, help="The most attempts.")] = None,
    system: Annotated[str | None, typer.Option(help="Instructions for the model.")] = None,
    listing: Annotated[bool, typer.Option("--list", "-l", help="List the models by provider, with prices.")] = False,
    info: Annotated[bool, typer.Option("--info", "-i", help="Show what is known of the model.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing beside the answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", "-j", help="Print JSON.")] = False,
    url: Annotated[
        str | None,
        typer.Option(help=f"Where the gateway listens; without it the one of this machine, then {TRUSTED_URL}."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="API key; better in STELLWERK_API_KEY.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder of the gateway.")] = None,
) -> None:
    """Ask a model of the running gateway one question."""
    try:
        asked = "" if listing or info else read_prompt(prompt or (), quiet=quiet)
        if not (asked or listing or info):
            typer.echo(text("ask.no_prompt"), err=True)
            raise typer.Exit(NO_PROMPT)
        client, models = find_gateway(
            [url] if url else [find_own_url(data, os.environ), TRUSTED_URL], key, data, os.environ
        )
        if listing or info:
            wanted = None if listing else model or local_model(models)
            show(models, wanted, flag="--list", as_json=as_json)
            return
        question = Question(
            prompt=asked,
            model=model or local_model(models),
            system=system,
            session=session,
            tokens=tokens,
            temperature=temperature,
            timeout=timeout,
            retries=retries,
        )
        succeeded = answer(client, question, as_json=as_json, notes=not quiet and sys.stderr.isatty())
    except GatewayTrouble as trouble:
        report(trouble)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if not succeeded:
        raise typer.Exit(FAILED)


def find_gateway(
    urls: Sequence[str], key: str | None, data: Path | None, environ: Mapping[str, str]
) -> tuple[GatewayClient, list[ModelFacts]]:
    """The first gateway that tells its models, and those. Raises GatewayTrouble when none does."""
    troubles = []
    for url in urls:
        try:
            return _ask_for_models(url, key, data, environ)
        except GatewayTrouble as trouble:
            troubles.append(trouble)
    # That nothing listens at one address says less than what came from the other.
    telling = next((trouble for trouble in troubles if trouble.key != "chat.not_running"), None)
    if telling is None and len(urls) > 1:
        raise GatewayTrouble("ask.not_running", urls=", ".join(urls))
    raise telling or troubles[0]


def _ask_for_models(
    url: str, key: str | None, data: Path | None, environ: Mapping[str, str]
) -> tuple[GatewayClient, list[ModelFacts]]:
    client = GatewayClient(url)
    lacking = None
    if url == TRUSTED_URL:
        # Keys that were not given for it stay at home: the port belongs to whoever takes it first.
        client.key = Secret(key) if key else None
    else:
        try:
            client.key = find_key(key, environ, data, look_into_folder=client.is_on_this_machine)
        except GatewayTrouble as trouble:
            lacking = trouble
    try:
        return client, read_facts(client)
    except GatewayTrouble as trouble:
        if lacking is not None and trouble.values.get("status") == 401:
            raise lacking from None
        raise


def local_model(models: Sequence[ModelFacts]) -> str:
    """Raises GatewayTrouble when there is nothing to chat with."""
    return default_model([OfferedModel(model.id, local=model.local, chats=model.chats) for model in models])


def show(models: Sequence[ModelFacts], wanted: str | None, *, flag: str, as_json: bool) -> None:
    """All models, or the one that is wanted; `flag` lists them. Raises GatewayTrouble for one that is not offered."""
    # Only now: drawing tables costs more than asking.
    from stellwerk.cli.model_view import show_model, show_models  # noqa: PLC0415

    if wanted is None:
        show_models(models, as_json=as_json)
        return
    found = find_model(wanted, models)
    if found is None:
        raise GatewayTrouble("ask.unknown_model", model=wanted, flag=flag)
    show_model(found, as_json=as_json)
