"""``mgs redis-cli``: redis-cli with the connection settings of the server."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from api.cli.client import CliError
from jobs.embedded_redis.binary import find_redis_cli
from jobs.embedded_redis.password import embedded_password
from jobs.settings import Settings


def open_redis(settings: Settings, arguments: Sequence[str]) -> None:
    """Print the equivalent command, then replace this process by redis-cli."""
    program = find_redis_cli()
    if program is None:
        raise CliError(
            "no redis-cli found (macOS: brew install valkey; Debian or Ubuntu: sudo apt-get "
            "install redis-tools)"
        )
    target, password = _target(settings)
    command = [str(program), *target]
    print(f"$ {shlex.join(command)}", file=sys.stderr, flush=True)
    environment = dict(os.environ)  # noqa: TID251
    if password:  # Not as an option: `ps` shows options to all users.
        environment["REDISCLI_AUTH"] = password
    os.execve(program, [*command, *arguments], environment)


def _target(settings: Settings) -> tuple[list[str], str | None]:
    """Where to connect, as options of redis-cli, and the password."""
    if settings.redis_url is None:
        if not settings.redis_socket.exists():
            raise CliError("the embedded Redis does not run: start it with `mgs serve`")
        password = embedded_password(settings.state_dir) if settings.redis_port else None
        return ["-s", str(settings.redis_socket)], password
    url = urlsplit(settings.redis_url)
    query = parse_qs(url.query)
    database = query.get("db", [url.path.strip("/") if url.scheme != "unix" else ""])[0]
    options = ["-n", database] if database.isdigit() else []
    if url.username:
        options += ["--user", url.username]
    if url.scheme == "unix":
        return ["-s", url.path, *options], url.password or query.get("password", [None])[0]
    if url.scheme == "rediss":
        options.append("--tls")
    return ["-h", url.hostname or "127.0.0.1", "-p", str(url.port or 6379), *options], url.password
