"""Output of the command line: tables, a progress bar, sizes and ages."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

Json = dict[str, Any]


def show_processes(answer: Json) -> None:
    """``GET /management/processes`` as a table."""
    rows = []
    for process in answer["processes"]:
        queue = process["current_queue"]
        rows.append(
            (
                process["model_id"],
                process["model_name"],
                process["model_type"],
                process.get("state", ""),
                _text(process.get("context_length")),
                _text(process.get("process_id")),
                f"{process.get('cpu_usage') or 0:.0f} %",
                to_size_text(process.get("memory_usage") or 0),
                _text(queue["request_queue_size"]),
            )
        )
    titles = ("ID", "MODEL", "TYPE", "STATE", "CONTEXT", "PID", "CPU", "MEMORY", "WAITING")
    _show(titles, rows, empty="no model is loaded: mgs load NAME (mgs models lists them)")


def show_models(names: Sequence[str], processes: Json) -> None:
    """The models folder, with the ids under which each model is loaded."""
    ids = defaultdict(list)
    for process in processes["processes"]:
        ids[process["model_name"]].append(process["model_id"])
    rows = [
        (name, "GGUF" if name.lower().endswith(".gguf") else "MLX", ", ".join(ids[name]))
        for name in names
    ]
    _show(("MODEL", "FORMAT", "LOADED AS"), rows, empty="the models folder is empty")


def show_jobs(page: Json) -> None:
    """A page of ``GET /v1/jobs`` as a table."""
    now = time.time()
    rows = [
        (
            job["id"],
            _text(job.get("task") or job.get("type")),
            _text(job.get("model_id")),
            _text(job.get("status")),
            to_age_text(now - job["created_at"]),
        )
        for job in page["data"]
    ]
    _show(("JOB", "TASK", "MODEL", "STATUS", "AGE"), rows, empty="no jobs")


def progress_bar() -> Progress:
    """A progress bar; without a terminal it prints nothing."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    return Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def download_bar() -> Progress:
    """A bar with bytes, speed and remaining time; without a terminal it prints nothing."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    return Progress(
        *columns,
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def text_console() -> Console:
    """The console of all output, without colours for numbers and paths."""
    console = Console(highlight=False)
    # Without a terminal rich assumes 80 columns and folds lines that scripts parse.
    return console if console.is_terminal else Console(highlight=False, width=200)


def to_size_text(num_bytes: float) -> str:
    """A size in bytes as text: ``3.6 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit in ("B", "kB") else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def to_age_text(age_s: float) -> str:
    """An age in seconds as text: ``4 s``, ``12 min``, ``3 h``, ``2 d``."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if age_s < limit:
            return f"{max(0, age_s) / length:.0f} {unit}"
    return f"{age_s / 86400:.0f} d"


def _show(titles: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    text_console().print(table)


def _text(value: object) -> str:
    return "" if value is None else str(value)
