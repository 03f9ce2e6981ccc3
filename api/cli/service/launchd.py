"""A job of launchd for the user who is logged in at the Mac: launchd.plist(5), launchctl(1)."""

from __future__ import annotations

import os
import plistlib
import time
from pathlib import Path

from api.cli.client import CliError
from api.cli.service.programs import Run, demand, run_program, write_file
from api.cli.service.spec import ServiceSpec

_NUM_FILES = 10_240  # macOS begins with 256; the Redis needs one per connection
_POLL_S = 0.2
_SHOWN = ("state", "pid", "last exit code", "spawn type")


class Launchd:
    """Installs, removes and shows jobs of this user."""

    def __init__(self, run: Run = run_program, home: Path | None = None) -> None:
        self._run = run
        self._home = home or Path.home()
        self._domain = f"gui/{os.getuid()}"

    def path(self, name: str) -> Path:
        """The file that launchd reads at each login."""
        return self._home / "Library" / "LaunchAgents" / f"{_label(name)}.plist"

    def content(self, spec: ServiceSpec) -> str:
        """The file as text, an XML property list."""
        log = str(self._log(spec.name))
        files = {"NumberOfFiles": _NUM_FILES}
        job = {
            "Label": _label(spec.name),
            "ProgramArguments": list(spec.command),
            "WorkingDirectory": str(spec.folder),
            "EnvironmentVariables": dict(spec.environment),
            "RunAtLoad": True,
            "KeepAlive": True,
            # Any other type, the default too, is throttled: a tenth of the tokens per second.
            "ProcessType": "Interactive",
            "ExitTimeOut": spec.stop_s,
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "SoftResourceLimits": files,
            "HardResourceLimits": files,
        }
        return plistlib.dumps(job, sort_keys=False).decode()

    def install(self, spec: ServiceSpec) -> list[str]:
        """Write the file and start the job, anew if it runs. What the user should know."""
        if self._run("launchctl", "print", self._domain).status != 0:
            raise CliError(
                "nobody is logged in at this Mac's screen, so there is no launchd for the user: "
                "log in there (for a Mac without a screen: automatic login), then try again"
            )
        path, target = self.path(spec.name), self._target(spec.name)
        write_file(path, self.content(spec))
        self._log(spec.name).parent.mkdir(parents=True, exist_ok=True)
        self._boot_out(spec.name, spec.stop_s)
        demand(self._run, "launchctl", "enable", target)
        demand(self._run, "launchctl", "bootstrap", self._domain, str(path))
        return [f"output goes to {self._log(spec.name)}"]

    def uninstall(self, name: str, stop_s: int) -> None:
        self._boot_out(name, stop_s)
        self.path(name).unlink(missing_ok=True)

    def status(self, name: str) -> bool:
        """Print the job's state. False when it is not loaded."""
        said = self._run("launchctl", "print", self._target(name))
        for line in said.output.splitlines() if said.status == 0 else ():
            if line.strip().partition(" = ")[0] in _SHOWN:
                print(line.strip())
        return said.status == 0

    def logs(self, name: str) -> None:
        """Show the output up to now and what comes, until Ctrl-C."""
        if not self._log(name).exists():
            raise CliError(f"{self._log(name)} is not there: the service has not run yet")
        self._run("tail", "-n", "100", "-F", str(self._log(name)), is_shown=True)

    def _boot_out(self, name: str, stop_s: int) -> None:
        """Stop the job. launchctl returns before it has ended, and a new one would be refused."""
        target = self._target(name)
        if self._run("launchctl", "print", target).status != 0:
            return
        self._run("launchctl", "bootout", target)
        deadline = time.monotonic() + stop_s + 5
        while self._run("launchctl", "print", target).status == 0:
            if time.monotonic() > deadline:
                raise CliError(f"{target} does not stop: see `launchctl print {target}`")
            time.sleep(_POLL_S)

    def _target(self, name: str) -> str:
        return f"{self._domain}/{_label(name)}"

    def _log(self, name: str) -> Path:
        return self._home / "Library" / "Logs" / "mgs" / f"{name}.log"


def _label(name: str) -> str:
    return f"local.{name}"
