"""The embedded Redis' password, which it needs when it also listens on a loopback port."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from pathlib import Path


def embedded_password(state_dir: Path) -> str:
    """The password in the state folder. The first process that asks creates it.

    Processes start in any order. So the file is written under another name and then renamed, by one
    process at a time: readers see the whole file or none, and the first writer wins.
    """
    path = state_dir / "redis.password"
    if not path.exists():
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (state_dir / "redis.password.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():  # Another process may have been first.
                _draw(path)
    return path.read_text().strip()


def _draw(path: Path) -> None:
    handle, draft = tempfile.mkstemp(prefix=".redis.password.", dir=path.parent)  # 0600
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    os.replace(draft, path)
