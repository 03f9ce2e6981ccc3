"""The embedded Redis' password, which it needs when it also listens on a loopback port."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def embedded_password(state_dir: Path) -> str:
    """The password in the state folder. The first process that asks creates it.

    Processes start in any order. So the file is written under another name and then linked: readers
    see the whole file or none, and the first writer wins.
    """
    path = state_dir / "redis.password"
    if not path.exists():
        _draw(path)
    return path.read_text().strip()


def _draw(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".redis.password.", dir=path.parent)  # 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        os.link(draft, path)
    except FileExistsError:
        pass  # Another process was first. Its password is used.
    finally:
        os.unlink(draft)
