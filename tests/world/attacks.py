"""A control token at each place of a chat that a client fills, and a tokenizer that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.world.catalog import Idiom
from tests.world.shapes import TOOLS, Message, Shape, calls, result, said, system, user
from workers.engines.base import FimTokens

FIRST_CONTROL = 1 << 21  # ids of characters are their code points
_HARMLESS = "ø"  # a letter, so that words stay words


class CharacterTokenizer:
    """Every character is a token, and so is each control token of an idiom."""

    fim_tokens: FimTokens | None = None
    end_ids: frozenset[int] = frozenset()
    num_characters = FIRST_CONTROL

    def __init__(self, idiom: Idiom) -> None:
        self.control = dict(enumerate(idiom.control_tokens))
        self.bos_token, self.eos_token = idiom.bos, idiom.eos
        self.chat_templates: Mapping[str, str] = {"default": idiom.source}
        # Control tokens come first, so that asking for each token's text is quick.
        self.vocab_size = len(self.control)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        ids, place = [], 0
        longest_first = sorted(self.control.items(), key=lambda item: -len(item[1]))
        while place < len(text):
            found = (i for i, token in longest_first if text.startswith(token, place))
            token_id = next(found, None) if parse_special else None
            ids.append(FIRST_CONTROL + ord(text[place]) if token_id is None else token_id)
            place += 1 if token_id is None else len(self.control[token_id])
        return ids

    def piece(self, token_id: int) -> bytes:
        return chr(token_id - FIRST_CONTROL).encode() if token_id >= FIRST_CONTROL else b""

    def control_text(self, token_id: int) -> str:
        return self.control.get(token_id, "")

    def show(self, ids: list[int]) -> list[str]:
        """Characters and control tokens, the latter in «»."""
        return [
            f"«{self.control[i]}»" if i < FIRST_CONTROL else chr(i - FIRST_CONTROL) for i in ids
        ]


def harmless(token: str) -> str:
    """A text as long as ``token`` that is none, alike at its ends: it sorts and trims as that."""
    middle = len(token) // 2
    return token[:middle] + _HARMLESS + token[middle + 1 :]


def is_alike(found: list[str], expected: list[str]) -> bool:
    """Whether two prompts differ only where the harmless one has its mark."""
    return len(found) == len(expected) and all(
        one == other or other in (_HARMLESS, *_HARMLESS.upper())
        for one, other in zip(found, expected, strict=True)
    )


def _tool(**changes: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {**TOOLS[0]["function"], **changes}}]


def _schema(name: str, **field: Any) -> list[dict[str, Any]]:
    properties = {"city": {"type": "string"}, name: field}
    return _tool(parameters={"type": "object", "properties": properties, "required": [name]})


def _with_call(call: Message, answer: Message) -> list[Message]:
    return [user("Weather?"), call, answer, said("Grey."), user("And now?")]


def _called(
    call_id: str = "c1", name: str = "get_weather", given: dict[str, Any] | None = None
) -> Shape:
    call = calls((call_id, name, {"city": "Rom"} if given is None else given))
    return Shape(_with_call(call, result(call_id, "sun")), TOOLS)


def _answered(text: str, **more: Any) -> Shape:
    call = calls(("c1", "get_weather", {"city": "Rom"}))
    return Shape(_with_call(call, result("c1", text, **more)), TOOLS)


def _option(name: str) -> Callable[[str], Shape]:
    return lambda x: Shape([user("a")], TOOLS, {name: f"b{x}"})


_OPTIONS = (
    "date_string", "date", "flavour", "controls", "rules", "model_identity", "reasoning_effort"
)  # fmt: skip
PLACES: dict[str, Callable[[str], Shape]] = {
    "user": lambda x: Shape([user(f"a {x} b"), said("c"), user("d")]),
    "user alone": lambda x: Shape([user(x)]),
    "user at the end": lambda x: Shape([user(f"b\n{x}")]),
    "system": lambda x: Shape([system(f"{x}Obey."), user("a")]),
    "assistant": lambda x: Shape([user("a"), said(f"b{x}"), user("c")]),
    "thoughts inside": lambda x: Shape(
        [user("a"), said(f"<think>\nb {x}\n</think>\n\n{x}c"), user("d")]
    ),
    "thoughts beside": lambda x: Shape(
        [user("a"), calls(("c1", "now", {}), reasoning_content=f"b{x}"), result("c1", "d")], TOOLS
    ),
    "continued": lambda x: Shape([user("a"), said(f"b {x} c")], is_continued=True),
    "result": lambda x: _answered(f'{{"sky": "{x}"}}'),
    "name of a result": lambda x: _answered("sun", name=x),
    "name of a user": lambda x: Shape([{**user("a"), "name": x}]),
    "id of a call": lambda x: _called(call_id=x),
    "name of a call": lambda x: _called(name=f"f{x}"),
    "key of an argument": lambda x: _called(given={"city": "Rom", f"z{x}": 1}),
    "value of an argument": lambda x: _called(given={"city": x}),
    "within an argument": lambda x: _called(given={"a": [{"b": [x, 1]}], "c": {x: None}}),
    "name of a tool": lambda x: Shape([user("a")], _tool(name=f"f{x}")),
    "description of a tool": lambda x: Shape([user("a")], _tool(description=f"b\n{x}\nc")),
    "name of a parameter": lambda x: Shape([user("a")], _schema(f"z{x}", type="string")),
    "description of a parameter": lambda x: Shape(
        [user("a")], _schema("z", type="string", description=x)
    ),
    "enum": lambda x: Shape([user("a")], _schema("z", type="string", enum=[x, "b"])),
    "default": lambda x: Shape([user("a")], _schema("z", type="string", default=x)),
    "type": lambda x: Shape([user("a")], _schema("z", type=x)),
    "list of types": lambda x: Shape([user("a")], _schema("z", type=["string", x])),
    "unknown key of a schema": lambda x: Shape([user("a")], _schema("z", **{f"x{x}": [x]})),
    "document": lambda x: Shape(
        [user("a")], None, {"documents": [{"title": x, "text": f"b {x}", f"z{x}": "c"}]}
    ),
    **{f"option {name}": _option(name) for name in _OPTIONS},
}


def places(token: str) -> Iterator[tuple[str, Shape, Shape]]:
    """Each place's name, with the token there and with a harmless text."""
    for name, made in PLACES.items():
        yield name, made(token), made(harmless(token))
