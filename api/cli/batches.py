"""``mgs batch`` and ``mgs batches``: files of requests that are answered in the background."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from api.cli import tables
from api.cli.client import CliError, Json, Server
from jobs.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import Progress

Url = Annotated[str | None, typer.Option("--url", help="Server; default: MGS_HOST and MGS_PORT.")]
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_POLL_S = 1.0
_RATE_OVER_S = 15.0
_MAX_SHOWN_ERRORS = 5


def batch(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL, as for OpenAI's batches.")],
    endpoint: Annotated[
        str | None, typer.Option(help="Route of the lines; default: the first line's url.")
    ] = None,
    window: Annotated[str, typer.Option(help="Time for all lines, such as 24h or 7d.")] = "24h",
    is_waiting: Annotated[
        bool, typer.Option("--wait", help="Show the progress, then write the output.")
    ] = False,
    url: Url = None,
) -> None:
    """Answer the lines of a file in the background; the output is written beside the file."""
    path = (context.obj or Path.cwd()) / file
    server = Server(load_settings(), url)
    body: Json = {"endpoint": endpoint or _endpoint_of(path), "completion_window": window}
    with path.open("rb") as source:
        body["input_file_id"] = server.upload("/v1/files", source, path.name, "batch")["id"]
    created = server.post("/v1/batches", body, {}).json()
    if not is_waiting:
        print(f"{created['id']} is accepted; mgs batches shows it")
        return
    try:
        ended = _follow(server, created["id"], path.name)
    except KeyboardInterrupt:
        raise CliError(f"{created['id']} goes on; mgs batches shows it") from None
    _finish(server, ended, path)


def batches(
    cancel: Annotated[str | None, typer.Option(help="Cancel the batch with this id.")] = None,
    retry: Annotated[
        str | None, typer.Option(help="Make a batch of the failed lines of this one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    url: Url = None,
) -> None:
    """Show the newest batches; or cancel one, or try its failed lines again."""
    server = Server(load_settings(), url)
    if cancel is not None:
        print(f"{cancel} is {server.post(f'/v1/batches/{cancel}/cancel', {}, {}).json()['status']}")
    elif retry is not None:
        print(f"{server.post(f'/v1/batches/{retry}/retry', {}, {}).json()['id']} is accepted")
    else:
        _show_batches(server.get("/v1/batches", limit=limit)["data"])


def _endpoint_of(path: Path) -> str:
    """The ``url`` of the first line."""
    try:
        with path.open("rb") as source:
            first = json.loads(source.readline().removeprefix(b"\xef\xbb\xbf"))
        return str(first["url"])
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise CliError(f"{path}: the first line names no url; use --endpoint") from None


def _follow(server: Server, batch_id: str, name: str) -> Json:
    """Show the progress up to the end; gives the batch as it is then."""
    rate = _Rate()
    with _batch_bar() as bar:
        line = bar.add_task(name, total=None, tokens="", state="")
        while True:
            found = server.get(f"/v1/batches/{batch_id}")
            counts = found["request_counts"]
            rate.note(time.monotonic(), found["usage"]["total_tokens"])
            bar.update(
                line,
                completed=counts["completed"] + counts["failed"],
                total=counts["total"] or None,
                tokens=rate.text,
                state=_state_of(found),
            )
            if found["status"] in _ENDED:
                return found
            time.sleep(_POLL_S)


class _Rate:
    """Tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, tokens: int) -> None:
        self._seen.append((now, tokens))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()

    @property
    def text(self) -> str:
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return f"{(after - before) / (last - first):.0f} tokens/s" if last > first else ""


def _state_of(found: Json) -> str:
    waiting = found.get("waiting")
    return f"waits: {waiting['message']}" if waiting else str(found["status"])


def _finish(server: Server, ended: Json, path: Path) -> None:
    """Write the files beside the input, and say how the batch has ended."""
    for error in ((ended["errors"] or {}).get("data") or [])[:_MAX_SHOWN_ERRORS]:
        place = f"line {error['line']}: " if error["line"] else ""
        print(f"{place}{error['message']}")
    for what, file_id in (("output", ended["output_file_id"]), ("errors", ended["error_file_id"])):
        if file_id is not None:
            target = path.with_name(f"{path.stem}.{what}.jsonl")
            _download(server, file_id, target)
            print(f"{what}: {target}")
    counts = ended["request_counts"]
    print(f"{ended['status']}: {counts['completed']} answered, {counts['failed']} not")
    if ended["status"] != "completed":
        raise CliError(f"{ended['id']} is {ended['status']}")


def _download(server: Server, file_id: str, target: Path) -> None:
    """Write the file whole or not at all."""
    partial = target.with_name(f"{target.name}.part")
    try:
        with partial.open("wb") as file:
            for data in server.download(f"/v1/files/{file_id}/content"):
                file.write(data)
        partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _show_batches(batches: list[Json]) -> None:
    """Batches of ``GET /v1/batches`` as a table."""
    now = time.time()
    rows = []
    for one in batches:
        counts, waiting = one["request_counts"], one.get("waiting")
        state = f"{one['status']} ({waiting['code']})" if waiting else one["status"]
        done = f"{counts['completed'] + counts['failed']}/{counts['total']}"
        age = tables.to_age_text(now - one["created_at"])
        rows.append((one["id"], one["model"] or "", state, done, str(counts["failed"]), age))
    titles = ("BATCH", "MODEL", "STATUS", "ENDED", "FAILED", "AGE")
    tables.show_table(titles, rows, empty="no batches: mgs batch FILE")


def _batch_bar() -> Progress:
    """A bar with lines, tokens per second and the estimated end; without a terminal nothing."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(
        *columns,
        TextColumn("{task.fields[tokens]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
