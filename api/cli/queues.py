"""``mgs hold``, ``drain`` and ``resume``, and the waiting jobs by queue (``mgs jobs --queue``)."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from api.cli import tables
from api.cli.client import Server, ServerError
from jobs.settings import load_settings

_MAX_SHOWN = 1000
_PAGE = 200
_MAY_NOT = (401, 403)

Model = Annotated[str, typer.Argument(help="Model id, name or alias.")]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Only this class: interactive or batch. May be repeated."),
]
IsYielding = Annotated[
    bool, typer.Option("--yield-running", help="Jobs that run go back to their queue.")
]
Url = Annotated[str | None, typer.Option("--url", help="Server; default: MGS_HOST and MGS_PORT.")]
Json = dict[str, Any]


def hold(
    model: Model, classes: Classes = None, yield_running: IsYielding = False, url: Url = None
) -> None:
    """Start no further jobs of a model: they wait until `mgs resume`."""
    _change("hold", model, classes, url, yield_running=yield_running)


def drain(
    model: Model, classes: Classes = None, yield_running: IsYielding = False, url: Url = None
) -> None:
    """Refuse new jobs of a model until `mgs resume`; those that wait still run."""
    _change("drain", model, classes, url, yield_running=yield_running)


def resume(model: Model, classes: Classes = None, url: Url = None) -> None:
    """Take and start jobs of a model again."""
    _change("resume", model, classes, url)


def _change(
    action: str, model: str, classes: list[str] | None, url: str | None, **options: bool
) -> None:
    body: Json = {**({"classes": classes} if classes else {}), **options}
    path = f"/management/queues/{quote(model, safe='')}/{action}"
    answer: Json = Server(load_settings(), url).post(path, body, {}).json()
    tables.show_queues(answer["data"])
    if answer["yielded"]:
        print(f"{answer['yielded']} running jobs go back to their queue")


def show_waiting_jobs(server: Server, **filters: str | None) -> None:
    """The queues, and the jobs that wait in them in their order."""
    try:
        tables.show_queues(server.get("/management/queues")["data"])
        print()
    except ServerError as error:
        if error.status not in _MAY_NOT:
            raise
    tables.show_waiting([job for job in _waiting(server, filters) if job["queue"]])


def _waiting(server: Server, filters: dict[str, str | None]) -> list[Json]:
    found: list[Json] = []
    cursor: str | None = None
    while len(found) < _MAX_SHOWN:
        query = {**filters, "status": "queued", "limit": _PAGE, "cursor": cursor}
        page = server.get("/v1/jobs", **query)
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found
