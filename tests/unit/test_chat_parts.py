"""Parts of ``mgs chat``: what is kept of a conversation, and how an answer is shown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from api.cli.chat.conversation import Conversation
from api.cli.chat.screen import Screen
from api.cli.chat.talk import read_chunk
from api.cli.client import CliError


def shown(*deltas: dict[str, str], note: str = "") -> str:
    output = io.StringIO()
    screen = Screen(Console(file=output, force_terminal=True, color_system="standard"))
    for delta in deltas:
        screen.show(delta)
    screen.end(note)
    return output.getvalue()


def test_thoughts_are_dimmed_and_apart_from_the_answer() -> None:
    text = shown({"reasoning_content": "Hm."}, {"content": "# **Yes**"}, note="stopped")
    assert text == "\x1b[2mHm.\x1b[0m\n\n# **Yes**\x1b[2m [stopped]\x1b[0m\n\n"


def test_no_text_of_a_model_controls_the_terminal() -> None:
    assert shown({"content": "a\x1b]0;x\x07b\x9bc\td\r\n"}) == "a]0;xbc\td\n\n\n"


def test_a_question_without_an_answer_is_as_if_never_asked() -> None:
    talk = Conversation("demo", "Be brief.", options={"temperature": 0})
    body = talk.ask("Hello!")
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert (body["model"], body["temperature"], body["stream"]) == ("demo", 0, True)
    talk.answer("")
    assert talk.turns == []
    assert "model" not in Conversation().ask("Hello!")


def test_a_saved_conversation_comes_back(tmp_path: Path) -> None:
    talk = Conversation("demo", "Be brief.")
    talk.ask("Hello!")
    talk.answer("Grüße 👋")
    talk.save(tmp_path / "talk.json")
    again = Conversation("other")
    again.load(tmp_path / "talk.json")
    assert (again.model, again.messages) == ("other", talk.messages)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"system": "", "messages": [{"role": "king", "content": "x"}]}',
     '{"system": "", "messages": [{"role": "user", "content": 5}]}'],
)  # fmt: skip
def test_what_is_no_conversation_changes_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "talk.json").write_text(text)
    talk = Conversation(system="Be brief.")
    with pytest.raises(CliError, match="no saved conversation"):
        talk.load(tmp_path / "talk.json")
    with pytest.raises(CliError, match="cannot be read"):
        talk.load(tmp_path / "missing.json")
    with pytest.raises(CliError, match="cannot be written"):
        talk.save(tmp_path / "missing" / "talk.json")
    assert talk.system == "Be brief."


def test_an_error_in_a_stream_is_one() -> None:
    with pytest.raises(CliError, match="it died"):
        list(read_chunk({"error": {"message": "it died"}}))
