"""The conversation: its model, its system text, its turns, and how these are kept in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.cli.client import CliError

Json = dict[str, Any]

_ROLES = ("user", "assistant")


@dataclass
class Conversation:
    """``model`` is "" for the server's own choice; ``options`` are parameters of each request."""

    model: str = ""
    system: str = ""
    turns: list[Json] = field(default_factory=list)
    options: Json = field(default_factory=dict)

    @property
    def messages(self) -> list[Json]:
        """What the model reads."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns]

    def named(self, **fields: Any) -> Json:
        """A body with these fields, and the model if one was chosen."""
        return {**({"model": self.model} if self.model else {}), **fields}

    def ask(self, text: str) -> Json:
        """Add the user's turn; returns the body that asks for the next."""
        self.turns.append({"role": "user", "content": text})
        usage = {"include_usage": True}
        return self.named(messages=self.messages, stream=True, stream_options=usage, **self.options)

    def answer(self, text: str) -> None:
        """Add what the model said. Without a word of it, the question is as if never asked."""
        if text:
            self.turns.append({"role": "assistant", "content": text})
        else:
            self.turns.pop()

    def save(self, file: Path) -> None:
        """Write it as JSON. Raises ``CliError``."""
        kept = {"model": self.model, "system": self.system, "messages": self.turns}
        try:
            file.write_text(json.dumps(kept, ensure_ascii=False, indent=2) + "\n", "utf-8")
        except OSError as error:
            raise CliError(f"{file} cannot be written: {error.strerror}") from None

    def load(self, file: Path) -> None:
        """Go on with a saved one, with the model of now. Raises ``CliError``."""
        try:
            kept = json.loads(file.read_text("utf-8"))
            system, turns = kept["system"], [_turn(turn) for turn in kept["messages"]]
        except OSError as error:
            raise CliError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CliError(f"{file} is no saved conversation") from None
        self.system, self.turns = str(system), turns


def _turn(given: Any) -> Json:
    role, content = given["role"], given["content"]
    if role not in _ROLES or not isinstance(content, str):
        raise ValueError
    return {"role": role, "content": content}
