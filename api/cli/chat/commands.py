"""The commands of a conversation, which begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from api.cli.chat.conversation import Conversation
from api.cli.chat.screen import Screen
from api.cli.client import CliError, Server

_COUNT_PATH = "/v1/internal/token-count"
_HELP = """\
/model [NAME]   list the models, or talk to another one
/system [TEXT]  show the system text, or set it; - removes it
/clear          forget all turns
/tokens         how many tokens the model reads so far
/save FILE      write the conversation to a file
/load FILE      go on with a saved one
/bye            end (also Ctrl-D)
Text of several lines: between \"\"\" and \"\"\", or with \\ at the end of a line.
A text that begins with a slash: put a blank before it."""


class Commands:
    """What the user says to the program. Files are relative to ``folder``."""

    def __init__(self, server: Server, talk: Conversation, screen: Screen, folder: Path) -> None:
        self._server = server
        self._talk = talk
        self._screen = screen
        self._folder = folder
        self._runs: dict[str, Callable[[str], None]] = {
            "/model": self._model,
            "/system": self._system,
            "/clear": self._clear,
            "/tokens": self._tokens,
            "/save": self._save,
            "/load": self._load,
            "/help": self._help,
            "/bye": self._bye,
        }

    def run(self, line: str) -> None:
        """Run the command of the line. Raises ``CliError``; ``EOFError`` at the end."""
        name, _, argument = line.partition(" ")
        run = self._runs.get(name.strip())
        if run is None:
            raise CliError(f"there is no command {name.strip()}: /help lists them")
        run(argument.strip())

    def prepare(self) -> None:
        """Wait until the model is loaded: an answer needs no more than that. ``CliError``."""
        with self._screen.waiting(f"loading {self._talk.model or 'the model'}"):
            self._count(text=" ")

    def _count(self, **what: object) -> int:
        body = self._talk.named(**what)
        length: int = self._server.post_patiently(_COUNT_PATH, body)["length"]
        return length

    def _model(self, name: str) -> None:
        if not name:
            for entry in self._server.get("/v1/models")["data"]:
                mark = "*" if self._talk.model in (entry["id"], entry["model_id"]) else " "
                self._screen.note(f"{mark} {entry['id']} ({entry['state']})")
            return
        before, self._talk.model = self._talk.model, name
        try:
            self.prepare()
        except BaseException:
            self._talk.model = before
            raise
        self._screen.note(f"now {name}")

    def _system(self, text: str) -> None:
        if text:
            self._talk.system = "" if text == "-" else text
        self._screen.note(self._talk.system or "there is no system text")

    def _clear(self, _argument: str) -> None:
        self._talk.turns.clear()
        self._screen.note("all turns are forgotten")

    def _tokens(self, _argument: str) -> None:
        messages = self._talk.messages
        num_tokens = self._count(messages=messages) if messages else 0
        self._screen.note(f"{num_tokens} tokens{self._of_context()}")

    def _of_context(self) -> str:
        name = quote(self._talk.model or "0", safe="")
        length = self._server.get(f"/v1/models/{name}").get("context_length")
        return f" of {length}" if length else ""

    def _save(self, name: str) -> None:
        file = self._file(name)
        self._talk.save(file)
        self._screen.note(f"saved as {file}")

    def _load(self, name: str) -> None:
        self._talk.load(self._file(name))
        self._screen.note(f"{len(self._talk.turns)} turns")

    def _file(self, name: str) -> Path:
        if not name:
            raise CliError("which file?")
        return self._folder / Path(name).expanduser()

    def _help(self, _argument: str) -> None:
        self._screen.note(_HELP)

    def _bye(self, _argument: str) -> None:
        raise EOFError
