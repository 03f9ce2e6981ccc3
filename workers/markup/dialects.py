"""Finds out from chat template and vocabulary which markup a model writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workers.engines.base import Tokenizer
from workers.markup.calls.format import CallFormat, Tools
from workers.markup.calls.formats import FORMATS, GENERIC
from workers.markup.markers import Marker

# (texts, name of the format): the first entry of which the template contains all texts.
_SIGNS: list[tuple[tuple[str, ...], str]] = [
    (("]<]minimax[>[",), "minimax_m3"),
    (("<minimax:tool_call>",), "minimax_m2"),
    (("<|tool_call>", "<tool_call|>"), "gemma4"),
    (("<start_function_call>",), "function_gemma"),
    (("<longcat_arg_key>",), "longcat"),
    (("<longcat_tool_call>",), "longcat_json"),
    (("<|open|>", "<|sep|>", "tools"), "kimi_k3"),
    (("<tool_sep:opensource>",), "hy3_opensource"),
    (("<tool_calls:opensource>",), "hy3_opensource"),
    (("<tool_sep>",), "hy3"),
    (("<arg_key>",), "glm47"),
    (("<|tool_list_start|>",), "pythonic"),
    (("<|tool_call_start|>",), "pythonic"),
    (("<seed:tool_call>",), "seed_oss"),
    (("<function=",), "qwen3_coder"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("<function name=", "<param name="), "minicpm5"),
    (("[TOOL_CALLS]", "[CALL_ID]"), "mistral_id"),
    (("[TOOL_CALLS]", "[ARGS]"), "mistral_args"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<atem:function_calls>",), "muse_spark"),
    (("｜DSML｜", "tool_calls"), "deepseek_v4"),
    (("｜DSML｜",), "deepseek_v32"),
    (("<|tool_calls|>", "<|tool_call:begin|>"), "solar"),
    (("<|tools_prefix|>",), "apertus"),
    (("<|START_ACTION|>",), "cohere"),
    (("Action: ```json",), "command_r"),
    (("Action:", "```json", "tool_name"), "command_r"),
    (("<TOOLCALL>",), "nemotron"),
    (("<tool_calls>[",), "apriel"),
    (("<tool_calls>",), "minimax_m1"),
    (("<tool_call>",), "json_tools"),
    (("<|start|>", "<|channel|>", "<|message|>"), "harmony"),
    (("<｜tool▁calls▁begin｜>", "```json"), "deepseek"),
    (("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"), "deepseek_v31"),
    (("<｜tool▁calls▁begin｜>",), "deepseek"),
    (("<|tool_call|>",), "granite"),
    (("<|function_call|>",), "gigachat35"),
    (("function call", "<|role_sep|>"), "gigachat"),
    ((">>>", "recipient"), "functionary"),
    (("<|python_tag|>",), "llama_json"),
    (('"parameters": dictionary of argument name',), "llama_json"),
]
# (text, name of the format): if no sign is in the template, the first text that is one token.
_TOKENS: list[tuple[str, str]] = [
    ("<|tool_call_start|>", "pythonic"),
    ("<|tools_prefix|>", "apertus"),
    ("<|START_ACTION|>", "cohere"),
    ("<TOOLCALL>", "nemotron"),
    ("<｜DSML｜", "deepseek_v32"),
    ("<|function_call|>", "gigachat35"),
]
# Formats whose start also opens content, then under the name "all".
_HEADS = {"functionary": ">>>{}\n"}
# Some models leave out the outer markers.
_BARE = {"qwen3_coder": "qwen3_coder_bare"}
# An answer that begins with one of these is a call.
_OBJECTS = ('{"name":', '{"name" :', '{ "name":', '{\n"name":', '{\n  "name":')
_HAVE_OBJECTS = ("llama_json", GENERIC)
_HARMONY = Marker("<|channel|>analysis<|message|>", "<|end|>")
_SOLAR = Marker("<|think|>", "<|end|>")
_K3 = Marker("<|open|>think<|sep|>", "<|close|>think<|sep|>")
_COHERE = Marker("<|START_THINKING|>", "<|END_THINKING|>")
_THINKING = [
    Marker("<think>", "</think>"),
    Marker("[THINK]", "[/THINK]"),
    Marker("<longcat_think>", "</longcat_think>"),
    Marker("<seed:think>", "</seed:think>"),
    Marker("<think:opensource>", "</think:opensource>"),
    Marker("<mm:think>", "</mm:think>"),
    Marker("<|think:start|>", "<|think:end|>"),
    Marker("<|inner_prefix|>", "<|inner_suffix|>"),
    Marker("<|channel>thought", "<channel|>"),
    _COHERE,
    _K3,
    _SOLAR,
    _HARMONY,
]
# Signs of reasoning where its end marker is none: other models end turns with it, or the template
# composes it from parts.
_SIGN_OF = {_HARMONY: "<|channel|>", _SOLAR: "<|think|>", _K3: "<|close|>"}
# Markers around content, which are dropped.
_DROPPED = {
    _HARMONY: (
        "<|start|>assistant",
        "<|channel|>final",
        "<|channel|>commentary",
        "<|message|>",
        "<|end|>",
    ),
    _SOLAR: ("<|begin|>assistant", "<|content|>", "<|flush|>", "<|calls|>", "<|end|>"),
    _K3: ("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    _COHERE: ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
}
_TOKEN = re.compile(r"<\|[^|<>]+\|>")
_MORE = ("<|constrain|>",)  # comes with them


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a model writes tool calls and reasoning; ``None`` for what it does not write.

    ``tokens``: the parts of ``dropped`` and of the calls' start that are tokens of the vocabulary.
    llama.cpp takes some of them for tokens with a text. ``head``: the text before content where a
    call's start opens it.
    """

    calls: CallFormat | None = None
    thinking: Marker | None = None
    tokens: tuple[str, ...] = ()
    head: str = ""

    @property
    def bare_calls(self) -> CallFormat | None:
        """The format of calls without the outer markers, which some models leave out."""
        name = _BARE.get(self.calls.name) if self.calls else None
        return FORMATS[name] if name else None

    @property
    def objects(self) -> tuple[str, ...]:
        """Texts that start a call at the beginning of an answer."""
        return _OBJECTS if self.calls and self.calls.name in _HAVE_OBJECTS else ()

    def call_starts(self, tools: Tools) -> list[str]:
        """The texts that start a section of calls.

        A start that opens content too is no token, so it counts only before a tool's name.
        """
        assert self.calls is not None
        if not self.head:
            return [self.calls.start]
        names = (tool["function"]["name"] for tool in tools)
        return [_HEADS[self.calls.name].format(name) for name in names]

    @property
    def opening(self) -> str:
        """The text before content; "" if there is none."""
        return "<|channel|>final<|message|>" if self.thinking == _HARMONY else self.head

    @property
    def dropped(self) -> tuple[str, ...]:
        """Texts that are dropped between the parts of an answer."""
        heads = (self.head,) if self.head else ()
        return (*heads, *(_DROPPED.get(self.thinking, ()) if self.thinking else ()))

    @property
    def is_interleaved(self) -> bool:
        """Whether reasoning may also come after calls and content."""
        return self.thinking in (_HARMONY, _SOLAR)

    @classmethod
    def of(cls, template: str, tokenizer: Tokenizer) -> Dialect:
        """The dialect of the model with this chat template."""
        thinking = _thinking(template, tokenizer)
        dropped = _DROPPED.get(thinking, ()) if thinking else ()
        texts = " ".join((*dropped, *_MORE, *(thinking or ()))) if dropped else ""
        calls = _calls(template, tokenizer)
        texts += f" {calls.start}" if calls is not None else ""
        tokens = {one for one in _TOKEN.findall(texts) if _is_token(one, tokenizer)}
        if calls is not None and _is_control(calls.start, tokenizer):
            tokens.add(calls.start)
        head = _HEADS.get(calls.name, "").format("all") if calls is not None else ""
        return cls(calls, thinking, tuple(sorted(tokens)), head)


def _calls(template: str, tokenizer: Tokenizer) -> CallFormat | None:
    """The format by the template's signs; if they are unknown but it has tools, by a token."""
    for signs, name in _SIGNS:
        if all(sign in template for sign in signs):
            return FORMATS[name]
    if "tools" not in template:
        return None
    known = (name for text, name in _TOKENS if _is_token(text, tokenizer))
    return FORMATS[next(known, GENERIC)]


def _thinking(template: str, tokenizer: Tokenizer) -> Marker | None:
    """The markers whose sign is in the template, or is a token of the vocabulary."""
    for marker in _THINKING:
        sign = _SIGN_OF.get(marker, marker.end)
        if sign in template or _is_token(sign, tokenizer):
            return marker
    return None


def _is_control(text: str, tokenizer: Tokenizer) -> bool:
    """Whether the text is one token that has no text of its own."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    return len(ids) == 1 and not tokenizer.piece(ids[0])


def _is_token(text: str, tokenizer: Tokenizer) -> bool:
    return len(tokenizer.encode(text, add_special=False, parse_special=True)) == 1
