"""``mgs chat``: in a terminal a conversation, else the answer to what is on standard input."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from api.cli.chat.conversation import Conversation
from api.cli.chat.screen import Screen
from api.cli.chat.talk import Talk, answer_once
from api.cli.client import Server
from api.cli.tables import text_console
from jobs.settings import Settings

_HISTORY = "chat_history"


def converse(
    settings: Settings,
    server: Server,
    name: str,
    prompt: str,
    system: str,
    options: dict[str, Any],
    folder: Path | None,
) -> None:
    """Talk until the user ends it, or answer once. ``folder``: where the user is."""
    talk = Conversation(name, system, options=options)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_terminal and not prompt:
        run = Talk(server, talk, Screen(text_console()), folder or Path.cwd())
        run.run(settings.state_dir / _HISTORY)
        return
    given = "" if sys.stdin.isatty() else sys.stdin.read()
    question = "\n\n".join(part for part in (prompt, given.strip("\n")) if part)
    try:
        answer_once(server, talk, question, sys.stdout)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
