"""`stellwerk jobs`: requests that the gateway answers later."""

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from stellwerk.cli.client_access import (
    INTERRUPTED,
    GivenKey,
    Timeout,
    Url,
    exit_code,
    find_administrator,
    find_url,
    say,
    told,
)
from stellwerk.cli.data import AsJson, Data
from stellwerk.cli.job_progress import watched
from stellwerk.cli.job_view import job_values, print_answer, print_job, print_jobs, status_of
from stellwerk.cli.tables import Wording, print_json
from stellwerk.client.client import Client
from stellwerk.client.errors import StellwerkError
from stellwerk.client.jobs import ENDED, Job, Status

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="List, wait for, cancel and repeat requests that are answered later.",
)

TEXTS: Mapping[str, Mapping[str, str]] = {
    "none": {"en": "There are no jobs.", "de": "Es gibt keine Jobs."},
    "more": {
        "en": "There are more: stellwerk jobs list --before {before}",
        "de": "Es gibt weitere: stellwerk jobs list --before {before}",
    },
    "cancelled": {"en": "Job {id} is cancelled.", "de": "Job {id} ist abgebrochen."},
    "ended_before": {
        "en": "Job {id} had ended already: {status}",
        "de": "Job {id} war schon zu Ende: {status}",
    },
    "retried": {"en": "Job {id} is queued again.", "de": "Job {id} ist wieder eingereiht."},
    "goes_on": {
        "en": "No longer waiting. Still under way: stellwerk jobs wait {ids}",
        "de": "Es wird nicht mehr gewartet. Noch unterwegs: stellwerk jobs wait {ids}",
    },
}
text = Wording(TEXTS)

Ids = Annotated[list[str], typer.Argument(metavar="ID", help="The job, or several.")]


@app.command("list")
def list_jobs(
    status: Annotated[Status | None, typer.Option(help="Only those in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those that were queued before this one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    url: Url = None,
    key: GivenKey = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first: those of the key, or all for an administrator."""
    url = find_url(url, data)
    with told(url):
        page = _client(url, key, data).jobs.list(status=status, model=model, before=before, limit=limit)
        if as_json:
            print_json([job_values(job) for job in page.data])
        elif page.data:
            print_jobs(page.data)
            if page.has_more and page.last_id:
                text.say("more", before=page.last_id)
        else:
            text.say("none")


@app.command()
def show(
    job: Annotated[str, typer.Argument(metavar="ID", help="The job.")],
    url: Url = None,
    key: GivenKey = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Show a job: its state, its place in the line, its attempts."""
    url = find_url(url, data)
    with told(url):
        found = _client(url, key, data).jobs.get(job)
        if as_json:
            print_json(job_values(found))
        else:
            print_job(found)


@app.command()
def wait(
    jobs: Ids,
    timeout: Timeout = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    url: Url = None,
    key: GivenKey = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answers.")] = False,
) -> None:
    """Wait until jobs have ended and print their answers, in the order in which they were named.

    Ends with 1 when one of them has failed, with 75 when one has not ended after --timeout. Ctrl+C stops waiting; the
    jobs go on.
    """
    url = find_url(url, data)
    left = list(dict.fromkeys(jobs))
    worst = 0
    try:
        with told(url):
            client = _client(url, key, data)
            while left:
                worst = max(worst, _wait_for(client, left[0], timeout, url, quiet=quiet, as_json=as_json))
                left.pop(0)
    except KeyboardInterrupt:
        text.say("goes_on", ids=" ".join(left))
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(worst)


@app.command()
def cancel(jobs: Ids, url: Url = None, key: GivenKey = None, data: Data = None, as_json: AsJson = False) -> None:
    """Cancel jobs, also those that run. What has ended stays as it is."""

    def act(client: Client, job: str) -> Job:
        found = client.jobs.cancel(job)
        if not as_json:
            how = "cancelled" if found.status not in ENDED - {"cancelled"} else "ended_before"
            text.say(how, id=found.id, status=status_of(found))
        return found

    _each(jobs, act, url, key, data, as_json=as_json)


@app.command()
def retry(jobs: Ids, url: Url = None, key: GivenKey = None, data: Data = None, as_json: AsJson = False) -> None:
    """Queue jobs again that were given up after their last attempt."""

    def act(client: Client, job: str) -> Job:
        found = client.jobs.retry(job)
        if not as_json:
            text.say("retried", id=found.id)
        return found

    _each(jobs, act, url, key, data, as_json=as_json)


def _client(url: str, key: str | None, data: Data) -> Client:
    return Client(url, find_administrator(url, key, data))


def _wait_for(client: Client, job: str, timeout: float | None, url: str, *, quiet: bool, as_json: bool) -> int:
    try:
        with watched(quiet=quiet) as show_progress:
            found = client.jobs.wait(job, timeout, lambda state: show_progress(job, state))
        found.check()
        print_answer(client.jobs.result(job), raw=as_json)
    except StellwerkError as error:
        say(error, url)
        return exit_code(error)
    return 0


def _each(
    jobs: list[str], act: Callable[[Client, str], Job], url: str | None, key: str | None, data: Data, *, as_json: bool
) -> None:
    """Does it to every one of them, whatever becomes of the others."""
    url = find_url(url, data)
    done, failed = [], False
    with told(url):
        client = _client(url, key, data)
        for job in dict.fromkeys(jobs):
            try:
                done.append(act(client, job))
            except StellwerkError as error:
                say(error, url, about=job)
                failed = True
    if as_json:
        print_json([job_values(job) for job in done])
    if failed:
        raise typer.Exit(1)
