"""Chat templates of the world, one per idiom, in our own words, and what each is known to want."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from workers.text.templates.traits import TemplateTraits

_FOLDER = Path(__file__).parent / "templates"
_USUAL = TemplateTraits()
_AS_TEXT = TemplateTraits(reads_text_arguments=True)
_NO_SYSTEM = TemplateTraits(has_system=False)
_FULL_TOOLS = TemplateTraits(needs_full_tools=True)
_SHORT_IDS = TemplateTraits(needs_short_ids=True)

# What looks like a control token in a template's source, beside those that it is listed with.
_MARK = re.compile(r"<\|[^|<>' ]+\|>|<｜[^｜<> ]+｜>|\[/?[A-Z_]{3,}\]")


@dataclass(frozen=True, slots=True)
class Idiom:
    """A template, what it wants, and the control tokens of a vocabulary that goes with it."""

    name: str
    traits: TemplateTraits = _USUAL
    control: tuple[str, ...] = ()
    """Those that its source does not spell: composed ones, and BOS and EOS."""
    bos: str = ""
    eos: str = ""

    @property
    def source(self) -> str:
        return (_FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")

    @property
    def control_tokens(self) -> list[str]:
        """At least one."""
        return sorted({*_MARK.findall(self.source), *self.control} | {self.bos, self.eos} - {""})


IDIOMS = {
    idiom.name: idiom
    for idiom in (
        Idiom("chatml"),
        Idiom("chatml_thoughts"),
        Idiom("inst_system_inside", control=("[INST]",), bos="<s>", eos="</s>"),
        Idiom("headers", bos="<|begin_of_text|>", eos="<|eot_id|>"),
        Idiom("inst_tools", _SHORT_IDS, bos="<s>", eos="</s>"),
        Idiom("inst_call_ids", bos="<s>", eos="</s>"),
        Idiom(
            "turns_without_system",
            _NO_SYSTEM,
            ("<start_of_turn>", "<end_of_turn>"),
            bos="<bos>",
            eos="<eos>",
        ),
        Idiom("composed_role", control=("<|user|>", "<|system|>"), eos="<|endoftext|>"),
        Idiom("named_default", bos="<BOS_TOKEN>"),
        Idiom("named_tool_use", _FULL_TOOLS, bos="<BOS_TOKEN>"),
        Idiom("named_rag", bos="<BOS_TOKEN>"),
        Idiom("roles_and_documents"),
        Idiom("parts_only", TemplateTraits(reads_parts=True)),
        Idiom("first_part", TemplateTraits(reads_parts=True, has_system=False), bos="<s>"),
        Idiom("text_or_parts"),
        Idiom("xml_tools"),
        Idiom("arg_keys", control=("[gMASK]", "<sop>")),
        Idiom("wide_bars", _AS_TEXT, bos="<｜begin▁of▁sentence｜>"),
        Idiom("typescript_macros"),
        Idiom("recipients", _AS_TEXT, bos="<|begin_of_text|>"),
        Idiom("described_tools", _FULL_TOOLS, bos="<s>"),
        Idiom("toolcall_list", control=("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>")),
        Idiom("strict_turns", eos="</s>"),
        Idiom("counting"),
        Idiom("generation_tags"),
        Idiom("dated", bos="<s>"),
        Idiom("indented_json"),
        Idiom("argument_items", _FULL_TOOLS, ("<|user|>", "<|tool|>", "<|system|>")),
        Idiom("raw_arguments", _AS_TEXT),
        Idiom("blocks", control=("<|user|>", "<|/user|>", "<|system|>", "<|assistant|>")),
        Idiom("tests_of_values", control=("<|user|>", "<|tool|>")),
        Idiom("loop_controls", control=("<|u|>", "<|t|>")),
        Idiom("plain_words", eos="</s>"),
        Idiom(
            "bare_keys",
            control=(
                "<|turn>",
                "<turn|>",
                "<|tool>",
                "<tool|>",
                "<|tool_call>",
                "<tool_call|>",
                "<|channel>",
                "<channel|>",
            ),
            bos="<bos>",
        ),
        Idiom("list_of_calls", bos="<s>"),
        Idiom("dict_of_roles", control=("]~b]", "[e~["), bos="]~!b["),
    )
}
