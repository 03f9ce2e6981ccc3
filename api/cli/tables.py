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
                to_text(process.get("context_length")),
                to_text(process.get("process_id")),
                f"{process.get('cpu_usage') or 0:.0f} %",
                _memory_text(process),
                to_text(queue["request_queue_size"]),
                _until_text(process),
            )
        )
    titles = ("ID", "MODEL", "TYPE", "STATE", "CONTEXT", "PID", "CPU", "MEMORY", "WAITING", "UNTIL")
    show_table(titles, rows, empty="no model is loaded: mgs load NAME (mgs models lists them)")
    for node in answer.get("nodes", ()):
        if node["budget_bytes"] is not None:
            reserved, budget = map(to_size_text, (node["reserved_bytes"], node["budget_bytes"]))
            print(f"{node['node']}: {reserved} of {budget} reserved for models")


def _until_text(process: Json) -> str:
    """When an unused model is parked, or since when it waits for memory or another load."""
    now = time.time()
    if process.get("waiting_since") is not None:
        return f"waits for {to_age_text(now - process['waiting_since'])}"
    if process.get("pinned"):
        return "pinned"
    expires_at = process.get("expires_at")
    return "" if expires_at is None else f"in {to_age_text(expires_at - now)}"


_BASES = {
    "header": "from the files' headers",
    "guess": "a guess: not all of this architecture is known",
    "measured": "as an earlier process took",
    "given": "from models.toml",
}


def show_estimate(answer: Json) -> None:
    """``GET /v1/internal/model/estimate`` as a table with a verdict."""
    context, slots = answer["context_length"], answer["slots"]
    sequences = f"{slots} slots of up to" if answer["model_type"] == "llama-cpp" else "one text of"
    rows = [
        ("weights", to_size_text(answer["weights_bytes"]), ""),
        ("state", to_size_text(answer["state_bytes"]), f"{sequences} {context} tokens"),
        ("computing", to_size_text(answer["compute_bytes"]), ""),
        ("kept prompts", to_size_text(answer["prompt_cache_bytes"]), "at most"),
        ("in all", to_size_text(answer["total_bytes"]), _BASES[answer["basis"]]),
    ]
    show_table(("MEMORY", "SIZE", ""), rows, empty="")
    if answer["fits"] is not None:
        verdict = "fits within" if answer["fits"] else "does not fit within"
        print(f"{answer['model_name']} {verdict} {to_size_text(answer['budget_bytes'])}")


def show_models(models: Sequence[Json]) -> None:
    """``GET /v1/models`` as a table with a row per model, and the ids under which it is loaded."""
    ids = defaultdict(set)
    for model in models:
        if model["model_id"] is not None:
            ids[model["model_name"]].add(f"{model['model_id']} ({model['state']})")
    found = {model["model_name"]: model for model in models}
    columns = {
        "MODEL": list(found),
        "FORMAT": ["GGUF" if m["backend"] == "llama-cpp" else "MLX" for m in found.values()],
        "SIZE": [to_size_text(m.get("size_bytes") or 0) for m in found.values()],
        "PARAMETERS": [to_count_text(m.get("num_parameters")) for m in found.values()],
        "QUANTIZATION": [to_text(m.get("quantization")) for m in found.values()],
        "CONTEXT": [to_text(m.get("context_length")) for m in found.values()],
        "SOURCE": [to_text(m.get("source")) for m in found.values()],
        "LOADED AS": [", ".join(sorted(ids[name])) for name in found],
        "ALIASES": [", ".join(m.get("aliases") or ()) for m in found.values()],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells) or title == "MODEL"}
    show_table(tuple(shown), list(zip(*shown.values(), strict=True)), empty="there are no models")


def show_jobs(page: Json) -> None:
    """A page of ``GET /v1/jobs`` as a table."""
    now = time.time()
    rows = [
        (
            job["id"],
            to_text(job.get("task") or job.get("type")),
            to_text(job.get("model_id")),
            to_text(job.get("status")),
            to_age_text(now - job["created_at"]),
        )
        for job in page["data"]
    ]
    show_table(("JOB", "TASK", "MODEL", "STATUS", "AGE"), rows, empty="no jobs")


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


def to_count_text(number: int | None) -> str:
    """A number of parameters as text: ``1.5B``, ``270M``; empty without one."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number and number >= size:
            value = number / size
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return to_text(number)


def to_age_text(age_s: float) -> str:
    """An age in seconds as text: ``4 s``, ``12 min``, ``3 h``, ``2 d``."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if age_s < limit:
            return f"{max(0, age_s) / length:.0f} {unit}"
    return f"{age_s / 86400:.0f} d"


def show_table(titles: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Print a table, or the line ``empty`` if it has no rows."""
    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    text_console().print(table)


def _memory_text(process: Json) -> str:
    """What the process takes, and what is reserved for it where that is known."""
    used = to_size_text(process.get("memory_usage") or 0)
    reserved = process.get("reserved_bytes")
    return f"{used} of {to_size_text(reserved)}" if reserved else used


def to_text(value: object) -> str:
    """A cell: empty for ``None``."""
    return "" if value is None else str(value)
