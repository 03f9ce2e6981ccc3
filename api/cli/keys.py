"""The subcommands of ``mgs keys``. They change the keys file; a running server reads it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from api.cli.client import CliError
from api.cli.tables import show_table
from jobs.keys.editing import add_key, remove_key, rotate_key
from jobs.keys.keys_file import KeyEntry, KeysFileError
from jobs.settings import load_settings

app = typer.Typer(help="Make, list and remove API keys (MGS_KEYS_FILE).", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the key: of a person or program.")]


@app.command()
def add(
    name: Name,
    weight: Annotated[
        float | None, typer.Option(help="Share of the tokens while others wait; default: 1.")
    ] = None,
    priority_floor: Annotated[
        int | None, typer.Option(help="Most urgent priority, -100 to 100; default: 0.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="interactive or batch; default: both.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Model name or pattern; default: all.")
    ] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs that may wait and run.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Jobs that may run at once.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    manager: Annotated[
        bool, typer.Option("--manager", help="May manage models, and sees everybody's jobs.")
    ] = False,
) -> None:
    """Make a key and print it, once: the file has only its hash."""
    options: dict[str, Any] = {
        "weight": weight,
        "priority_floor": priority_floor,
        "classes": classes,
        "models": models,
        "max_jobs": max_jobs,
        "max_running": max_running,
        "rpm": rpm,
        "tpm": tpm,
        "is_manager": manager or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with _explained():
        key = add_key(_file(), name, given)
    _show_once(key)


@app.command()
def rotate(name: Name) -> None:
    """Give a key a new secret and print it; the old one ends, jobs and limits stay."""
    with _explained():
        key = rotate_key(_file(), name)
    _show_once(key)


@app.command("list")
def list_keys() -> None:
    """Show the keys and what they allow."""
    settings = load_settings()
    path = _file()
    with _explained():
        keys = settings.keys.check() if settings.keys and path.exists() else None
    _show_keys(keys.entries if keys else ())


@app.command()
def remove(name: Name) -> None:
    """Remove a key: its next request gets 401."""
    with _explained():
        remove_key(_file(), name)
    print(f"key {name} is removed")


def _file() -> Path:
    settings = load_settings()
    if settings.keys is None:
        raise CliError("no keys file is set: set MGS_KEYS_FILE first, for instance keys.toml")
    return settings.keys.path


def _show_once(key: str) -> None:
    """The key alone on standard output, for scripts."""
    print(key)
    print("It is shown only now.", file=sys.stderr)


def _show_keys(entries: Sequence[KeyEntry]) -> None:
    rows = [
        (
            entry.name + (" (manager)" if entry.is_manager else ""),
            f"{entry.weight:g}",
            str(entry.priority_floor),
            ", ".join(entry.classes),
            ", ".join(entry.models),
            *(
                "" if getattr(entry, name) is None else str(getattr(entry, name))
                for name in ("max_jobs", "max_running", "rpm", "tpm")
            ),
        )
        for entry in entries
    ]
    titles = ("NAME", "WEIGHT", "FLOOR", "CLASSES", "MODELS", "JOBS", "RUNNING", "RPM", "TPM")
    show_table(titles, rows, empty="there are no keys: mgs keys add NAME")


@contextmanager
def _explained() -> Iterator[None]:
    """Raise ``CliError`` for what is wrong with the file or an option."""
    try:
        yield
    except KeysFileError as error:
        raise CliError(error.problems[0]) from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise CliError(f"{place}: {problem['msg'].removeprefix('Value error, ')}") from None
    except OSError as error:
        raise CliError(f"{error.filename or _file()}: {error.strerror}") from None
