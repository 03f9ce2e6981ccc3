"""The embedded Redis' password, needed once it listens on a loopback port too."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path


def embedded_password(state_dir: Path) -> str:
    """The password kept in the state folder, drawn by whichever process asks first.

    Processes start in no order, so the file is written aside and linked: a reader sees all of it
    or none, and the first writer wins.
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
        pass  # Another process was first: its password counts.
    finally:
        os.unlink(draft)
