"""The subcommands of ``mgs service``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Protocol

import typer

from api.cli.client import CliError
from api.cli.serve import project_root
from api.cli.service.spec import ServiceSpec, check_name, make_spec, stop_s_of
from jobs.settings import load_settings

app = typer.Typer(help="Run the server as a service of this user.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="One per server, for several of them.")]
DryRun = Annotated[
    bool, typer.Option("--print", "--dry-run", help="Print the service's file, change nothing.")
]


class Manager(Protocol):
    """launchd or systemd. All methods but ``content`` raise ``CliError`` without its programs."""

    def path(self, name: str) -> Path: ...
    def content(self, spec: ServiceSpec) -> str: ...
    def install(self, spec: ServiceSpec) -> list[str]: ...
    def uninstall(self, name: str, stop_s: int) -> None: ...
    def status(self, name: str) -> bool: ...
    def logs(self, name: str) -> None: ...


def manager() -> Manager:
    """That of this system. Imported here, so that other commands start as fast as before."""
    if sys.platform == "darwin":
        from api.cli.service.launchd import Launchd

        return Launchd()
    from api.cli.service.systemd import Systemd

    return Systemd()


@app.command()
def install(name: Name = "mgs", is_dry: DryRun = False) -> None:
    """Start the server now and at each login; installed again, it starts anew."""
    spec, system = _spec(name), manager()
    if is_dry:
        print(system.content(spec), end="")
        return
    remarks = system.install(spec)
    print(f"{name} is installed ({system.path(name)})")
    copied = ", ".join(spec.environment) or "none"
    print(f"settings from this shell: {copied}; all others from {spec.folder / '.env'}")
    for remark in remarks:
        print(remark)


@app.command()
def uninstall(name: Name = "mgs") -> None:
    """Stop the server and forget the service; data and logs stay."""
    check_name(name)
    system = manager()
    if not system.path(name).exists():
        raise CliError(f"no service {name} is installed ({system.path(name)} is not there)")
    system.uninstall(name, stop_s_of(load_settings()))
    print(f"{name} is uninstalled")


@app.command()
def status(name: Name = "mgs") -> None:
    """Show whether it runs; exit status 1 when it does not."""
    check_name(name)
    if not manager().status(name):
        raise CliError(f"the service {name} does not run (`mgs service install` installs it)")


@app.command()
def logs(name: Name = "mgs") -> None:
    """Show its output, until Ctrl-C."""
    check_name(name)
    manager().logs(name)


def _spec(name: str) -> ServiceSpec:
    from dotenv import dotenv_values

    folder = project_root()
    shell = dict(os.environ)  # noqa: TID251 - chosen from, variable by variable
    return make_spec(name, folder, load_settings(), shell, dotenv_values(folder / ".env"))
