"""``mgs hold``, ``drain``, ``resume``, ``purge``; waiting jobs by queue (``mgs jobs --queue``)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from api.cli.client import Server, ServerError
from api.cli.tables import show_table, to_age_text, to_text
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


def purge(
    older_than: Annotated[float, typer.Option(min=0, help="Age in seconds; 0: all.")],
    model_id: Annotated[str, typer.Option("--id", help="Model id, as in X-Model-Id.")] = "0",
    job_class: Annotated[
        str, typer.Option("--class", help="interactive, batch or all.")
    ] = "interactive",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    url: Url = None,
) -> None:
    """End the generations of a model that are older, waiting and running."""
    body: Json = {"timeout": older_than, "class": job_class, "dry_run": dry_run}
    headers = {"X-Model-Id": model_id}
    server = Server(load_settings(), url)
    found: Json = server.post("/management/process/clean-up", body, headers).json()
    done = "would end" if dry_run else "ended"
    print(f"{found['num_waiting']} waiting and {found['num_running']} running jobs {done}")


def _change(
    action: str, model: str, classes: list[str] | None, url: str | None, **options: bool
) -> None:
    body: Json = {**({"classes": classes} if classes else {}), **options}
    path = f"/management/queues/{quote(model, safe='')}/{action}"
    answer: Json = Server(load_settings(), url).post(path, body, {}).json()
    _show_queues(answer["data"])
    if answer["yielded"]:
        print(f"{answer['yielded']} running jobs go back to their queue")


def show_waiting_jobs(server: Server, **filters: str | None) -> None:
    """The queues, and the jobs that wait in them in their order."""
    try:
        _show_queues(server.get("/management/queues")["data"])
        print()
    except ServerError as error:
        if error.status not in _MAY_NOT:
            raise
    _show_waiting([job for job in _waiting(server, filters) if job["queue"]])


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


def _show_queues(entries: Sequence[Json]) -> None:
    """``GET /management/queues`` as a table."""
    now = time.time()
    rows = [
        (
            entry["model_id"],
            entry["model_name"],
            entry["class"],
            entry["state"] + (f" by {entry['by']}" if entry["by"] else ""),
            to_age_text(now - entry["since"]) if entry["since"] else "",
            to_text(entry["waiting"]),
            to_text(entry["running"]),
        )
        for entry in entries
    ]
    titles = ("ID", "MODEL", "CLASS", "STATE", "SINCE", "WAITING", "RUNNING")
    show_table(titles, rows, empty="no model is loaded")


def _show_waiting(jobs: Sequence[Json]) -> None:
    """Jobs that wait, in the order of their queues."""
    rows = [_waiting_row(job) for job in sorted(jobs, key=_place)]
    titles = ("ID", "CLASS", "POSITION", "PRIORITY", "STARTS IN", "AGE", "KEY", "JOB")
    show_table(titles, rows, empty="no jobs wait")


def _place(job: Json) -> tuple[str, str, int]:
    queue = job["queue"]
    return job["model_id"], queue["class"], queue["position"] or 0


def _waiting_row(job: Json) -> tuple[str, ...]:
    queue, start_s = job["queue"], job["queue"]["estimated_start_s"]
    return (
        job["model_id"],
        queue["class"],
        to_text(queue["position"]),
        to_text(queue["priority"]),
        "" if start_s is None else to_age_text(start_s),
        to_age_text(time.time() - job["created_at"]),
        to_text(job["key"]),
        job["id"],
    )
