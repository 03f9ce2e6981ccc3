"""The chat template, and the same text in pieces with a flag for the trained ones.

The template avoids `tojson` for the tools, since engines disagree on its spacing and escapes; for
arguments given as an object it is used, and both engines then write `json.dumps` defaults.
"""

import json
from pathlib import Path

from scripts.demo_model.examples import Message, Tool

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
CONTROL_TOKENS = [END_OF_TEXT, START_OF_TURN, END_OF_TURN]
# Not a special token: engines remove special tokens from the text that they return.
TOOL_TOKENS = ["<tool_call>", "</tool_call>"]

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8").strip()

Piece = tuple[str, bool]  # text, and whether the model is trained to write it


def render(messages: list[Message], tools: list[Tool] | None = None) -> list[Piece]:
    """The text of `CHAT_TEMPLATE` in pieces; answers and their end of turn are trained."""
    pieces: list[Piece] = []
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    else:
        system = ""
    if system or tools:
        pieces.append((f"{START_OF_TURN}system\n{_system(system, tools)}{END_OF_TURN}\n", False))
    for message in messages:
        pieces.append((f"{START_OF_TURN}{message['role']}\n", False))
        pieces.append((_content(message) + END_OF_TURN, message["role"] == "assistant"))
        pieces.append(("\n", False))
    return pieces


def prompt_text(messages: list[Message], tools: list[Tool] | None = None) -> str:
    """The prompt for the next answer, as the template renders it with `add_generation_prompt`."""
    text = "".join(piece for piece, _ in render(messages, tools))
    return f"{text}{START_OF_TURN}assistant\n"


def answer_text(message: Message) -> str:
    """The text of an assistant message as the model generates it, without the end of turn."""
    return _content(message)


def _system(text: str, tools: list[Tool] | None) -> str:
    if not tools:
        return text
    lines = [text, "Tools:"] if text else ["Tools:"]
    for tool in tools:
        function = tool["function"]
        parameters = ", ".join(function["parameters"]["properties"])
        lines.append(f"- {function['name']}({parameters}): {function['description']}")
    return "\n".join(lines)


def _content(message: Message) -> str:
    parts = [message["content"]] if message["content"] else []
    for call in message.get("tool_calls", []):
        function = call["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        body = f'{{"name": "{function["name"]}", "arguments": {arguments}}}'
        parts.append(f"<tool_call>\n{body}\n</tool_call>")
    return "\n".join(parts)
