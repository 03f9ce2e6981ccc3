"""Finds out from the chat template which markup a model writes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from workers.engines.base import Tokenizer
from workers.markup.parsers import Parser, load_parser

# (texts, name of the parser): the first entry of which the template contains all texts.
_SIGNS: list[tuple[tuple[str, ...], str]] = [
    (("<minimax:tool_call>",), "minimax_m2"),
    (("<|tool_call>", "<tool_call|>"), "gemma4"),
    (("<start_function_call>",), "function_gemma"),
    (("<longcat_tool_call>",), "longcat"),
    (("<|open|>tools",), "kimi_k3"),
    (("<arg_key>",), "glm47"),
    (("<|tool_list_start|>",), "pythonic"),
    (("<|tool_call_start|>",), "pythonic"),
    (("<function=",), "qwen3_coder"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (('<function name="', '<param name="'), "minicpm5"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<atem:function_calls>",), "muse_spark"),
    (("<tool_call>",), "json_tools"),
    (("<|start|>", "<|channel|>", "<|message|>"), "harmony"),
    (("<｜tool▁calls▁begin｜>",), "deepseek"),
    (("<|python_tag|>",), "llama_json"),
    (('"parameters": dictionary of argument name',), "llama_json"),
]


class Marker(NamedTuple):
    """The texts around a segment of an answer.

    ``is_kept``: the texts are a part of the segment. ``is_first``: ``start`` counts only before any
    content.
    """

    start: str
    end: str
    is_kept: bool = False
    is_first: bool = False


_HARMONY = Marker("<|channel|>analysis<|message|>", "<|end|>")
_THINKING = [
    Marker("<think>", "</think>"),
    Marker("[THINK]", "[/THINK]"),
    Marker("<longcat_think>", "</longcat_think>"),
    Marker("<seed:think>", "</seed:think>"),
    Marker("<|think:start|>", "<|think:end|>"),
    Marker("<|channel>thought", "<channel|>"),
    Marker("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    _HARMONY,
]
# The end marker of Harmony's reasoning is no sign of Harmony: other models end turns with it.
_SIGN_OF = {_HARMONY: "<|channel|>"}
_BARE = {
    # Some models leave out the outer markers (mlx-lm#1616).
    "qwen3_coder": Marker("<function=", "</function>", is_kept=True),
    "llama_json": Marker('{"name":', "", is_kept=True, is_first=True),
}
# Harmony's markers around content, which are dropped.
_DROPPED = (
    "<|start|>assistant",
    "<|channel|>final",
    "<|channel|>commentary",
    "<|message|>",
    "<|end|>",
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model writes tool calls and reasoning; ``None`` for what it does not write."""

    parser: Parser | None = None
    thinking: Marker | None = None

    @property
    def calls(self) -> list[Marker]:
        """The markers around calls."""
        if self.parser is None:
            return []
        bare = _BARE.get(self.parser.name)
        return [Marker(self.parser.start, self.parser.end), *([bare] if bare else [])]

    @property
    def opening(self) -> str:
        """The text before content; "" if there is none."""
        return "<|channel|>final<|message|>" if self.thinking == _HARMONY else ""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Texts that are dropped between the parts of an answer."""
        return _DROPPED if self.thinking == _HARMONY else ()

    @classmethod
    def of(cls, template: str, tokenizer: Tokenizer) -> Dialect:
        """The dialect of the model with this chat template."""
        name = next((name for signs, name in _SIGNS if all(s in template for s in signs)), None)
        return cls(_parser(name) if name else None, _thinking(template, tokenizer))


@cache
def _parser(name: str) -> Parser:
    return load_parser(name)


def _thinking(template: str, tokenizer: Tokenizer) -> Marker | None:
    """The markers whose sign is in the template, or is a token of the vocabulary."""
    for marker in _THINKING:
        sign = _SIGN_OF.get(marker, marker.end)
        if sign in template or _is_token(sign, tokenizer):
            return marker
    return None


def _is_token(text: str, tokenizer: Tokenizer) -> bool:
    return len(tokenizer.encode(text, add_special=False, parse_special=True)) == 1
