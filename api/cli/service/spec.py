"""What a service runs: which Python, where, with which settings. The same on each system."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from api.cli.client import CliError
from jobs.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SECRETS = frozenset({"MGS_API_KEY", "MGS_MANAGEMENT_KEY"})
_STOP_MARGIN_S = 10  # after the jobs' grace: honcho ends within 5 s, and the Redis after that


@dataclass(frozen=True)
class ServiceSpec:
    """One installed server. ``stop_s``: how long it may take to stop before it is killed."""

    name: str
    folder: Path
    python: Path
    stop_s: int
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command(self) -> tuple[str, ...]:
        return (str(self.python), "-m", "api.cli.main", "serve")


def make_spec(
    name: str,
    folder: Path,
    settings: Settings,
    shell: Mapping[str, str],
    dotenv: Mapping[str, str | None],
) -> ServiceSpec:
    """The service of the checkout ``folder`` with the settings of this shell.

    What ``.env`` says is not copied, since the service reads it itself. Raises ``CliError`` for a
    name, a path or a value that no service can have, and for secrets that only the shell knows.
    """
    check_name(name)
    environment = _settings_of_shell(shell, dotenv)
    if secrets := sorted(variable for variable in environment if _is_secret(variable, environment)):
        raise CliError(
            f"{', '.join(secrets)}: set in this shell only, and a service's file is no place for "
            f"secrets: write it to {folder / '.env'} (chmod 600), which the service reads"
        )
    python = Path(sys.executable)
    texts = {"folder": str(folder), "Python": str(python), **environment}
    for what, text in texts.items():
        if not text.isprintable():
            raise CliError(f"{what}: a service cannot have control characters in {text!r}")
    return ServiceSpec(name, folder, python, stop_s_of(settings), environment)


def stop_s_of(settings: Settings) -> int:
    """Whole seconds that a server may take to stop."""
    return math.ceil(settings.grace_s) + _STOP_MARGIN_S


def check_name(name: str) -> None:
    """Raises ``CliError`` for what would be no good name of a file and of a job."""
    if not _NAME.fullmatch(name):
        raise CliError(f"--name {name!r}: a name has small letters, digits and hyphens")


def _settings_of_shell(
    shell: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> dict[str, str]:
    """The server's variables that are set, and not by ``.env``; in a fixed order."""
    known = (
        str(field.validation_alias or f"MGS_{name.upper()}")
        for name, field in Settings.model_fields.items()
    )
    return {
        variable: shell[variable]
        for variable in sorted(known)
        if shell.get(variable) and shell[variable] != dotenv.get(variable)
    }


def _is_secret(variable: str, environment: Mapping[str, str]) -> bool:
    if variable == "REDIS_URL":
        url = urlsplit(environment[variable])
        return bool(url.password) or "password=" in url.query
    return variable in _SECRETS
