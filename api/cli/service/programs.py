"""The one place that runs the system's programs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from api.cli.client import CliError


@dataclass(frozen=True)
class Said:
    """How a program ended, and its output and errors together."""

    status: int
    output: str = ""


class Run(Protocol):
    """Runs a program. ``is_shown``: on the terminal, so that ``output`` is empty."""

    def __call__(self, *command: str, is_shown: bool = False) -> Said: ...


def run_program(*command: str, is_shown: bool = False) -> Said:
    """Raises ``CliError`` when there is no such program."""
    output = None if is_shown else subprocess.PIPE
    errors = None if is_shown else subprocess.STDOUT
    try:
        done = subprocess.run(command, stdout=output, stderr=errors, text=True, errors="replace")
    except FileNotFoundError:
        raise CliError(
            f"{command[0]} is not on this machine: let your own service manager run "
            "`mgs serve` (docs/service.md)"
        ) from None
    except KeyboardInterrupt:  # the way out of a log that goes on
        return Said(0)
    return Said(done.returncode, (done.stdout or "").strip())


def demand(run: Run, *command: str) -> None:
    """Run a program that has to succeed. Raises ``CliError`` with what it said."""
    if (said := run(*command)).status != 0:
        raise CliError(f"`{' '.join(command)}` failed ({said.status}): {said.output}")


def write_file(path: Path, content: str) -> None:
    """Write a service's file as a whole. Others may read it, nobody else may change it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(content, encoding="utf-8")
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}") from error
