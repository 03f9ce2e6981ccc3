"""A user unit of systemd: systemd.service(5), systemd.syntax(7)."""

from __future__ import annotations

import getpass
from pathlib import Path

from api.cli.client import CliError
from api.cli.service.programs import Run, demand, run_program, write_file
from api.cli.service.spec import ServiceSpec

# Type=exec: a Python that is not there is told at once. KillMode=mixed: the signal goes to
# `mgs serve` alone, which stops the others in their order; what is left at the end is killed.
_UNIT = """\
[Unit]
Description=mlx-gguf-server ({name})

[Service]
Type=exec
WorkingDirectory={folder}
ExecStart={command}
{environment}Restart=on-failure
RestartSec=5
TimeoutStopSec={stop_s}
KillMode=mixed

[Install]
WantedBy=default.target
"""
_UNFIT = frozenset('$"\\')  # systemd would read them as variables, quotes and escapes


class Systemd:
    """Installs, removes and shows units of this user."""

    def __init__(self, run: Run = run_program, home: Path | None = None) -> None:
        self._run = run
        self._home = home or Path.home()

    def path(self, name: str) -> Path:
        """The unit's file."""
        return self._home / ".config" / "systemd" / "user" / f"{name}.service"

    def content(self, spec: ServiceSpec) -> str:
        """The unit. Raises ``CliError`` for a path that cannot be written in one."""
        for path in (spec.folder, spec.python):
            if _UNFIT & set(str(path)):
                raise CliError(f'{path}: a unit cannot have $, " or \\ in a path')
        lines = (f"Environment={_quoted(f'{n}={v}')}\n" for n, v in spec.environment.items())
        return _UNIT.format(
            name=spec.name,
            folder=str(spec.folder).replace("%", "%%"),
            command=" ".join([_quoted(spec.command[0]), *spec.command[1:]]),
            environment="".join(lines),
            stop_s=spec.stop_s,
        )

    def install(self, spec: ServiceSpec) -> list[str]:
        """Write the unit and start it, anew if it runs. What the user should know."""
        content = self.content(spec)
        self._demand_session()
        write_file(self.path(spec.name), content)
        demand(self._run, "systemctl", "--user", "daemon-reload")
        demand(self._run, "systemctl", "--user", "enable", f"{spec.name}.service")
        demand(self._run, "systemctl", "--user", "restart", f"{spec.name}.service")
        if self._lingers():
            return []
        return ["it ends with your last session; so that it does not: loginctl enable-linger"]

    def uninstall(self, name: str, stop_s: int) -> None:
        self._demand_session()
        self._run("systemctl", "--user", "disable", "--now", f"{name}.service")
        self.path(name).unlink(missing_ok=True)
        demand(self._run, "systemctl", "--user", "daemon-reload")

    def status(self, name: str) -> bool:
        """Print the unit's state. False when it does not run."""
        unit = f"{name}.service"
        shown = self._run("systemctl", "--user", "--no-pager", "status", unit, is_shown=True)
        return shown.status == 0

    def logs(self, name: str) -> None:
        """Show the output up to now and what comes, until Ctrl-C."""
        self._run("journalctl", "--user", "-n", "100", "-f", "-u", name, is_shown=True)

    def _demand_session(self) -> None:
        if (said := self._run("systemctl", "--user", "show-environment")).status != 0:
            raise CliError(
                f"no systemd for this user ({said.output}): log in directly (not by su or sudo), "
                "or `loginctl enable-linger` and `export XDG_RUNTIME_DIR=/run/user/$(id -u)`"
            )

    def _lingers(self) -> bool:
        """Whether the user's services run without a session; also true where nobody knows."""
        user = getpass.getuser()
        return self._run("loginctl", "show-user", user, "-p", "Linger").output != "Linger=no"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
