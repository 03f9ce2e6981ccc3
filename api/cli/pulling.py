"""``mgs pull`` and ``mgs rm``: models from the hub into the models folder, and out of it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from api.cli import tables
from api.cli.client import CliError, Json, Server
from jobs.settings import load_settings

Url = Annotated[str | None, typer.Option("--url", help="Server; default: MGS_HOST and MGS_PORT.")]


def pull(
    model: Annotated[str, typer.Argument(help="publisher/model, or publisher/model:QUANT.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    node: Annotated[str | None, typer.Option(help="Machine, if there are several.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Do not check disk and memory.")] = False,
    url: Url = None,
) -> None:
    """Download a model of the Hugging Face hub; a repeated pull continues an earlier one."""
    body: Json = {"model": model, "revision": revision, "force": force, "background": True}
    if node is not None:
        body["node"] = node
    server = Server(load_settings(), url)
    started = time.monotonic()
    job = server.post("/v1/internal/model/pull", body, {}).headers["Location"]
    try:
        name = _follow(server, job, model)
    except KeyboardInterrupt:
        server.delete(job)
        raise CliError("cancelled; a repeated pull goes on where this one ended") from None
    print(f"{model} is in the models folder as {name} ({time.monotonic() - started:.1f} s)")
    _show_memory(server, name)


def remove(
    model: Annotated[str | None, typer.Argument(help="Entry of the models folder.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Remove unfinished downloads: all, or of a model.")
    ] = False,
    url: Url = None,
) -> None:
    """Remove a model from the models folder, or what unfinished downloads have left."""
    if model is None and not partial:
        raise CliError("name a model, or use --partial")
    body: Json = {"partial": partial} | ({"model": model} if model is not None else {})
    answer = Server(load_settings(), url).post("/v1/internal/model/delete", body, {}).json()
    what = model if model is not None and not partial else "unfinished downloads"
    print(f"{what} removed: {tables.to_size_text(answer['freed_bytes'])} are free again")


def _show_memory(server: Server, name: str) -> None:
    """What the model needs to be loaded, if the server's machine can tell."""
    try:
        answer = server.get("/v1/internal/model/estimate", llm_model_name=name)
    except CliError:
        return
    more = "" if answer["fits"] is not False else ", more than all models of the machine may take"
    print(f"it needs about {tables.to_size_text(answer['total_bytes'])} of memory{more}")


def _follow(server: Server, job: str, model: str) -> str:
    """Show the job's progress up to its end; returns the model's name."""
    with tables.download_bar() as bar:
        line = bar.add_task(model, total=None)
        is_size_known = False
        for event in server.events(f"{job}/events"):
            if event["kind"] == "progress":
                if not is_size_known:
                    bar.console.print(f"{model}: {_size(event)}")
                is_size_known = True
                _show(bar, line, model, event)
            if event["kind"] in ("failed", "cancelled"):
                error = event.get("error") or {}
                raise CliError(error.get("message") or f"the pull was {event['kind']}")
            if event["kind"] == "finished":
                return str(event.get("text", ""))
    raise CliError("the events of the pull have ended without an end")


def _size(event: Json) -> str:
    """The size of the whole, and how much is there from an earlier pull."""
    there, total = event.get("completed", 0), event.get("total", 0)
    known = f", {tables.to_size_text(there)} of it are there" if there else ""
    return f"{tables.to_size_text(total)} on disk{known}"


def _show(bar: Any, line: Any, model: str, event: Json) -> None:
    file = event.get("file") or ""
    bar.update(
        line,
        completed=event.get("completed", 0),
        total=event.get("total"),
        description=f"{model} {file.rpartition('/')[2]}".strip(),
    )
