"""`stellwerk models`: the models of this machine, where they come from and which of them are loaded."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import typer
from rich.console import Console

from stellwerk.cli.admin_client import AdminClient
from stellwerk.cli.confirmation import confirmed
from stellwerk.cli.data import AsJson, Data, opened
from stellwerk.cli.gateway_client import GatewayTrouble
from stellwerk.cli.local_model_view import (
    print_details,
    print_downloads,
    print_found,
    print_missing,
    print_models,
)
from stellwerk.cli.model_sources import names_of, open_gateway, open_source
from stellwerk.cli.pull_progress import watched
from stellwerk.cli.refusals import explain, explain_text, explain_trouble
from stellwerk.cli.tables import Wording, moment, print_json, visible
from stellwerk.core.errors import GatewayError
from stellwerk.engines.model_types import ModelType
from stellwerk.records import audit
from stellwerk.records.missing_models import forget as forget_names
from stellwerk.records.missing_models import list_missing
from stellwerk.storage.failures import FolderInUse, StorageRefused

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Search, fetch, load and show the models of this machine."
)
INTERRUPTED = 130
VERBS = ("pause", "resume", "cancel")

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {
        "en": "There are no local models; `stellwerk models pull user/repository` fetches one.",
        "de": "Es gibt keine lokalen Modelle; `stellwerk models pull user/repository` holt eins.",
    },
    "not_found": {"en": "The hub has nothing for: {query}", "de": "Der Hub hat nichts zu: {query}"},
    "unknown": {
        "en": "There is no local model {model}; `stellwerk models list` shows all.",
        "de": "Ein lokales Modell {model} gibt es nicht; `stellwerk models list` zeigt alle.",
    },
    "here": {"en": "{model} is here.", "de": "{model} ist da."},
    "pull_failed": {"en": "{model} could not be fetched: {error}", "de": "{model} ließ sich nicht holen: {error}"},
    "pull_ended": {
        "en": "Somebody has paused or cancelled the download of {model}.",
        "de": "Jemand hat den Download von {model} angehalten oder abgebrochen.",
    },
    "paused": {
        "en": "Paused; what has come is kept. It goes on with: stellwerk models pull {reference}",
        "de": "Angehalten; was da ist, bleibt. Weiter geht es mit: stellwerk models pull {reference}",
    },
    "loading": {"en": "Loading {model} …", "de": "{model} wird geladen …"},
    "loaded": {"en": "{model} is loaded at port {slot}.", "de": "{model} ist auf Port {slot} geladen."},
    "load_goes_on": {
        "en": "{model} is being loaded; `stellwerk models list` shows when it is there.",
        "de": "{model} wird geladen; `stellwerk models list` zeigt, wann es da ist.",
    },
    "unloaded": {"en": "{model} is unloaded.", "de": "{model} ist entladen."},
    "not_loaded": {"en": "{model} is not loaded.", "de": "{model} ist nicht geladen."},
    "pinned": {"en": "{model} is pinned.", "de": "{model} ist angeheftet."},
    "unpinned": {"en": "{model} is pinned no longer.", "de": "{model} ist nicht mehr angeheftet."},
    "really": {"en": "Delete {file}?", "de": "{file} löschen?"},
    "kept": {"en": "Nothing was deleted.", "de": "Nichts wurde gelöscht."},
    "deleted": {"en": "{file} is deleted.", "de": "{file} ist gelöscht."},
    "no_downloads": {"en": "There are no downloads.", "de": "Es gibt keine Downloads."},
    "bad_verb": {
        "en": "A download can be paused, resumed and cancelled: {verbs}, each with its id.",
        "de": "Einen Download kann man anhalten, fortsetzen und abbrechen: {verbs}, je mit seiner ID.",
    },
    "steered": {"en": "Download {id}: {status}", "de": "Download {id}: {status}"},
    "none_missing": {
        "en": "Nobody has asked for a model that there is not.",
        "de": "Niemand hat nach einem Modell gefragt, das es nicht gibt.",
    },
    "forgotten": {"en": "Forgotten: {count}", "de": "Vergessen: {count}"},
    "in_use": {
        "en": "{error} If it is a gateway, --url names its address.",
        "de": "{error} Ist es ein Gateway, nennt --url seine Adresse.",
    },
    "note": {"en": "Note: {note}", "de": "Hinweis: {note}"},
}
text = Wording(TEXTS)

Url = Annotated[str | None, typer.Option(help="Where the gateway listens; without it the one of this machine.")]
Key = Annotated[str | None, typer.Option(help="An admin's API key; better in STELLWERK_ADMIN_KEY.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model, by id or by the name of its file.")]


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 10,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Search the hub for models in GGUF files, the most downloaded first."""
    query = " ".join(words)
    with _told():
        found = open_source(url, key, data).search(query, limit)
        if as_json:
            print_json(found)
        elif found:
            print_found(found)
        else:
            text.say("not_found", query=query)


@app.command()
def pull(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="user/repository[:quantisation], the address of its page, or name[:tag] of Ollama's library.",
        ),
    ],
    file: Annotated[str | None, typer.Option(help="This file of the repository.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model from the hub, with all its parts and its projector. Ctrl+C pauses it."""
    with _told():
        source = open_source(url, key, data)
        try:
            with watched() as progress:
                download = source.pull(reference, file, progress)
        except KeyboardInterrupt:
            again = reference if file is None else f"{reference} --file {file}"
            text.say("paused", reference=again)
            raise typer.Exit(INTERRUPTED) from None
        if as_json:
            print_json(download)
        if download.status == "failed":
            text.fail("pull_failed", model=download.model, error=explain_text(download.error or ""))
        if download.status != "done":
            text.fail("pull_ended", model=download.model)
        if not as_json:
            text.say("here", model=download.model)


@app.command("list")
def list_all(url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """List the models of this machine, and which of them are loaded."""
    with _told():
        models = open_source(url, key, data).list_models()
        if as_json:
            print_json(models)
        elif models:
            print_models(models)
        else:
            text.say("none")


@app.command()
def show(name: Name, url: Url = None, key: Key = None, data: Data = None, as_json: AsJson = False) -> None:
    """Show a model with all that its file says, vocabularies left out."""
    with _told():
        source = open_source(url, key, data)
        known = names_of(source.list_models()).get(name)
        details = source.show(name if known is None else known.name)
        if as_json:
            print_json(details)
        else:
            print_details(details)


@app.command("load")
def load_model(
    name: Name,
    slot: Annotated[int | None, typer.Option(min=1, max=65535, help="The port of a slot; without it any.")] = None,
    context: Annotated[int | None, typer.Option(min=256, max=16_777_216, help="Tokens.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, max=1024, help="0 is one less than cores.")] = None,
    kind: Annotated[ModelType | None, typer.Option("--type", help="Without it, what the file is.")] = None,
    mmproj: Annotated[str | None, typer.Option(help="The projector, by the name of its file.")] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Load it at every start, and never make room.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is loaded.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Load a model into a slot of the running gateway."""
    wanted = {
        "slot": slot,
        "ctx_size": context,
        "threads": threads,
        "model_type": None if kind is None else kind.value,
        "mmproj_path": mmproj,
        "pinned": True if pin else None,
    }
    body = {"model_path" if name.endswith((".gguf", ".bin")) else "model": name, "wait": not no_wait}
    body |= {option: value for option, value in wanted.items() if value is not None}
    with _told():
        client = open_gateway(url, key, data)
        with _spinning(text("loading", model=name)):
            done = client.ask("POST", "/admin/api/slots/load", body)
        if as_json:
            print_json(done)
        elif done.get("status") != "loaded":
            text.say("load_goes_on", model=str(done.get("model")))
        else:
            text.say("loaded", model=str(done.get("model")), slot=done.get("slot"))
            for note in done.get("notes") or ():
                text.say("note", note=str(note))


@app.command()
def unload(
    name: Annotated[str, typer.Argument(metavar="NAME|PORT", help="The model, or the port of its slot.")],
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Unload a model; requests that run get half a minute to end."""
    with _told():
        client = open_gateway(url, key, data)
        port = int(name) if name.isascii() and name.isdigit() and len(name) <= 5 else _port_of(client, name)
        if port is None:
            text.fail("not_loaded", model=name)
        done = client.ask("POST", f"/admin/api/slots/{port}/unload")
        text.say("unloaded" if done.get("status") == "unloaded" else "not_loaded", model=name)


@app.command()
def pin(
    name: Name,
    off: Annotated[bool, typer.Option("--off", help="Pin it no longer.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Have a model loaded at every start and never make room for another."""
    with _told():
        client = open_gateway(url, key, data)
        done = client.ask("POST", "/admin/api/models/pin", {"model": name, "pinned": not off})
        text.say("unpinned" if off else "pinned", model=str(done.get("model")))


@app.command("rm")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    key: Key = None,
    data: Data = None,
) -> None:
    """Delete a model's files, or a projector. What is loaded has to be unloaded first."""
    with _told():
        source = open_source(url, key, data)
        known = names_of(source.list_models()).get(name)
        if known is None:
            text.fail("unknown", model=name)
        if not yes and not confirmed(text("really", file=known.path)):
            text.fail("kept")
        source.remove(known.path)
        text.say("deleted", file=known.path)


@app.command()
def downloads(
    verb: Annotated[str | None, typer.Argument(metavar="[pause|resume|cancel]")] = None,
    download: Annotated[str | None, typer.Argument(metavar="[ID]", help="The id of the download.")] = None,
    url: Url = None,
    key: Key = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the downloads, newest first; or pause, resume or cancel one."""
    with _told():
        if verb is not None:
            if verb not in VERBS or download is None:
                typer.echo(text("bad_verb", verbs=", ".join(VERBS)), err=True)
                raise typer.Exit(2)
            path = f"/admin/api/models/downloads/{quote(download, safe='')}/{verb}"
            state = open_gateway(url, key, data).ask("POST", path)
            text.say("steered", id=download, status=str(state.get("status")))
            return
        found = open_source(url, key, data).downloads()
        if as_json:
            print_json(found)
        elif found:
            print_downloads(found)
        else:
            text.say("no_downloads")


@app.command()
def missing(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    forget: Annotated[bool, typer.Option("--forget", help="Forget them all.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List the models that clients asked for and that there are not, the latest first."""
    with opened(data) as folder:
        if forget:
            count = folder.write(forget_names)
            folder.write(
                lambda connection: audit.append(
                    connection,
                    folder.actor,
                    "missing_models.forget",
                    "missing-models",
                    {"count": count},
                    now=folder.now,
                )
            )
            text.say("forgotten", count=count)
            return
        rows = folder.read(lambda connection: list_missing(connection, limit))
        if as_json:
            print_json(
                [
                    {
                        "name": row.name,
                        "key_id": row.key_id,
                        "user_id": row.user_id,
                        "count": row.count,
                        "first_at": moment(row.first_at),
                        "last_at": moment(row.last_at),
                        "nearest": row.nearest,
                    }
                    for row in rows
                ]
            )
        elif rows:
            print_missing(rows)
        else:
            text.say("none_missing")


def _port_of(client: AdminClient, name: str) -> int | None:
    """The slot of a model, by its id or the name of its file."""
    slots: list[dict[str, Any]] = client.get("/admin/api/slots")
    return next((slot["port"] for slot in slots if name in (slot.get("model_name"), slot.get("model_path"))), None)


@contextlib.contextmanager
def _spinning(words: str) -> Iterator[None]:
    """Shows on a terminal that something goes on."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(visible(words)):
        yield


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Says in a sentence what went wrong, and ends the command with 1."""
    try:
        yield
    except GatewayTrouble as trouble:
        _fail(explain_trouble(trouble, refused=False))
    except GatewayError as error:
        _fail(explain(error))
    except FolderInUse as error:
        _fail(text("in_use", error=explain_text(str(error))))
    except StorageRefused as error:
        _fail(explain_text(str(error)))


def _fail(message: str) -> NoReturn:
    typer.echo(visible(message), err=True)
    raise typer.Exit(1) from None
