"""`stellwerk serve`: runs the gateway until it is stopped."""

import contextlib
import os
import resource
import shlex
import signal
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stellwerk import __version__
from stellwerk.app.application import ADMIN_KEY_VARIABLE, Application
from stellwerk.app.listeners import Opened
from stellwerk.app.settings import log_settings
from stellwerk.app.store import Store
from stellwerk.auth.admin import ADMIN_KEY_FILE
from stellwerk.auth.tokens import WeakKey, check_chosen_key
from stellwerk.cli.language import text
from stellwerk.cli.listener_view import describe_listeners
from stellwerk.cli.own_address import local_url
from stellwerk.cli.refusals import explain_text
from stellwerk.cli.shell_process import ShellProcess
from stellwerk.config.reading import data_folder, find, load
from stellwerk.core.errors import Unavailable
from stellwerk.core.secrets import Secret
from stellwerk.http.interfaces import machine_addresses
from stellwerk.providers.vendors import load_vendors
from stellwerk.storage.failures import StorageRefused
from stellwerk.telemetry.logs import start_logs

_EX_CONFIG = 78
_MOST_FILES = 65536
_API_KEY_VARIABLE = "STELLWERK_API_KEY"

app = typer.Typer(add_completion=False, help="Run the gateway.")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on, in place of listen.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, in place of listen.port.")] = None,
    config: Annotated[Path | None, typer.Option(help="The config file.")] = None,
    data: Annotated[Path | None, typer.Option(help="The folder for everything that Stellwerk keeps.")] = None,
    with_shell: Annotated[
        bool, typer.Option("--shell", help="Take the commands of `stellwerk shell` in the same terminal.")
    ] = False,
) -> None:
    """Run the gateway until Ctrl+C or SIGTERM; SIGHUP reads the config file again."""
    environ = dict(os.environ)
    if host is not None:
        environ["STELLWERK_LISTEN__HOST"] = host
    if port is not None:
        environ["STELLWERK_LISTEN__PORT"] = str(port)
    folder = data_folder(data, environ)
    file = find(config, environ, folder)
    settings = load(file, environ, load_vendors())
    chosen = _chosen_admin_key(environ)
    _prepare_process()
    try:
        store = Store(folder, keep_admin_key_in=_admin_key_file(folder), admin_key=chosen)
    except (StorageRefused, Unavailable, OSError) as error:
        typer.echo(explain_text(str(error)), err=True)
        raise typer.Exit(_EX_CONFIG) from None
    shell = ShellProcess(folder, environ, file) if with_shell else None
    logs = start_logs(log_settings(settings), sys.stderr if shell is None else shell.log_stream(sys.stderr))

    def announce(opened: Opened) -> None:
        _announce(opened, folder, store.new_admin_key, chosen)
        if shell is not None:
            shell.start(_stop_this_process)

    try:
        application = Application(settings, store=store, data=folder, config_file=file, environ=environ, logs=logs)
        _run(application.run(announce))
    except (StorageRefused, Unavailable) as error:
        typer.echo(explain_text(str(error)), err=True)
        raise typer.Exit(_EX_CONFIG) from None
    except OSError as error:
        listen = settings.listen
        reason = explain_text(error.strerror or type(error).__name__)
        typer.echo(text("serve.cannot_listen", host=listen.host, port=listen.port, reason=reason), err=True)
        raise typer.Exit(1) from None
    finally:
        if shell is not None:
            shell.stop()
        logs.stop()
        store.close()


def _stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _chosen_admin_key(environ: Mapping[str, str]) -> Secret | None:
    key = Secret(environ.get(ADMIN_KEY_VARIABLE, ""))
    if not key:
        return None
    try:
        check_chosen_key(key)
    except WeakKey as error:
        typer.echo(explain_text(str(error)), err=True)
        raise typer.Exit(_EX_CONFIG) from None
    return key


def _admin_key_file(folder: Path) -> Path | None:
    """Where the first admin key goes when there is nobody to show it to."""
    return None if _is_watched() else folder / ADMIN_KEY_FILE


def _is_watched() -> bool:
    # There is no object at all when the program was started with its output closed.
    return sys.stdout is not None and sys.stdout.isatty()


def _prepare_process() -> None:
    os.umask(0o077)
    # A core dump would hold every key in clear text.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Every stream takes two sockets, and the usual limit of 1024 files is reached with five hundred.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run(main: Coroutine[Any, Any, None]) -> None:
    import uvloop  # noqa: PLC0415  # only here: no other command needs its 20 ms

    uvloop.run(main)


def _announce(opened: Opened, folder: Path, new_key: Secret | None, chosen: Secret | None) -> None:
    """Tells a person how to get the first answer; the key itself is shown on a terminal only, and only once."""
    url = local_url(opened.host, opened.port)
    lines = [text("serve.ready", version=__version__, url=url), *describe_listeners(opened, machine_addresses())]
    file = folder / ADMIN_KEY_FILE
    if chosen is not None:
        key = f"${ADMIN_KEY_VARIABLE}"
    elif new_key is not None and _is_watched():
        lines.append(text("serve.admin_key", secret=new_key.reveal()))
        key = new_key.reveal()
    elif file.exists():
        lines.append(text("serve.admin_key_file", file=file))
        key = f"$(cat {shlex.quote(str(file))})"
    else:
        key = f"${_API_KEY_VARIABLE}"
    lines += [text("serve.try"), f"  {_curl(url, key, opened.chat_model)}", text("serve.stop")]
    # That nobody reads this, or that the disk below it is full, is no reason to stop.
    with contextlib.suppress(OSError):
        typer.echo("\n".join(lines))


def _curl(url: str, key: str, model: str | None) -> str:
    authorization = f'-H "Authorization: Bearer {key}"'
    if model is None:
        return f"curl {shlex.quote(f'{url}/v1/models')} {authorization}"
    messages = [{"role": "user", "content": text("serve.example_question")}]
    body = msgspec.json.encode({"model": model, "stream": True, "messages": messages}).decode()
    return f"curl -N {shlex.quote(f'{url}/v1/chat/completions')} {authorization} -d {shlex.quote(body)}"
