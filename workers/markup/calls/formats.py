"""The known formats of tool calls, by name, as published by the model makers."""

from __future__ import annotations

from workers.markup.calls.format import CallFormat
from workers.markup.calls.gemma_calls import GemmaCalls
from workers.markup.calls.headed_calls import HeadedCalls
from workers.markup.calls.json_calls import JsonCalls
from workers.markup.calls.python_calls import PythonCalls
from workers.markup.calls.tagged_calls import TaggedCalls

GENERIC = "generic"
_DSML = "｜DSML｜"
_M3 = "]<]minimax[>["


def _qwen_coder(name: str, start: str, end: str) -> TaggedCalls:
    return TaggedCalls(
        name, start, end, "<function=", ">\n", "<parameter=", ">\n", "\n</parameter>\n",
        "</function>",
    )  # fmt: skip


def _arguments(name: str, start: str, end: str, suffix: str = "", **tags: str) -> TaggedCalls:
    """A tag around each key and each value, as in GLM; the tags' names end with ``suffix``."""
    arg = tags.get("arg", "arg")
    call = tags.get("call", "")
    return TaggedCalls(
        name, start, end, call, tags.get("name_end", ""),
        f"<{arg}_key{suffix}>", f"</{arg}_key{suffix}>", f"</{arg}_value{suffix}>",
        tags.get("call_end", ""), value_start=f"<{arg}_value{suffix}>", is_section=bool(call),
    )  # fmt: skip


def _hy3(name: str, suffix: str) -> TaggedCalls:
    return _arguments(
        name, f"<tool_calls{suffix}>", f"</tool_calls{suffix}>", suffix,
        call=f"<tool_call{suffix}>", name_end=f"<tool_sep{suffix}>",
        call_end=f"</tool_call{suffix}>",
    )  # fmt: skip


def _invokes(name: str, start: str, end: str, ns: str = "", **ends: str) -> TaggedCalls:
    """Tags ``invoke`` and ``parameter`` with names as attributes; ``ns`` is the tags' prefix."""
    return TaggedCalls(
        name, start, end, f'<{ns}invoke name="', '">', f'<{ns}parameter name="',
        ends.get("key_end", '">'), f"</{ns}parameter>", f"</{ns}invoke>",
        ends.get("json_key_end", ""), is_section=True,
    )  # fmt: skip


def _dsml(name: str, word: str) -> TaggedCalls:
    return _invokes(
        name, f"<{_DSML}{word}>", f"</{_DSML}{word}>", _DSML,
        key_end='" string="true">', json_key_end='" string="false">',
    )  # fmt: skip


_ALL: list[CallFormat] = [
    JsonCalls("json_tools", "<tool_call>", "</tool_call>"),
    JsonCalls("llama_json", "<|python_tag|>", "", "parameters", needs_arguments=True),
    JsonCalls("apriel", "<tool_calls>", "</tool_calls>", is_list=True),
    JsonCalls("minimax_m1", "<tool_calls>", "</tool_calls>"),
    JsonCalls(
        "cohere", "<|START_ACTION|>", "<|END_ACTION|>", "parameters", "tool_name", "tool_call_id",
        is_list=True,
    ),
    JsonCalls("command_r", "Action: ```json", "```", "parameters", "tool_name", is_list=True),
    JsonCalls("nemotron", "<TOOLCALL>", "</TOOLCALL>", is_list=True),
    JsonCalls("granite", "<|tool_call|>", "", is_list=True),
    JsonCalls("mistral", "[TOOL_CALLS]", "", is_list=True),
    JsonCalls("apertus", "<|tools_prefix|>", "<|tools_suffix|>", is_list=True, is_keyed=True),
    JsonCalls("gigachat", "function call<|role_sep|>\n", ""),
    JsonCalls("gigachat35", "<|function_call|>", ""),
    JsonCalls(GENERIC, "", "", is_known=True, needs_arguments=True),
    HeadedCalls("mistral_args", "[TOOL_CALLS]", "", ("[ARGS]",), id_mark=""),
    HeadedCalls("mistral_id", "[TOOL_CALLS]", "", ("[ARGS]",), id_mark="[CALL_ID]"),
    HeadedCalls(
        "harmony", " to=functions.", "<|call|>",
        ("<|channel|>commentary json<|message|>", " <|constrain|>json<|message|>",
         "<|channel|>commentary <|constrain|>json<|message|>", "<|message|>"),
        is_loose=True,
    ),
    HeadedCalls(
        "deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", ("\n```json\n",),
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```<｜tool▁call▁end｜>", is_section=True,
    ),
    HeadedCalls(
        "deepseek_v31", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", ("<｜tool▁sep｜>",),
        "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", is_section=True,
    ),
    HeadedCalls(
        "kimi_k2", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
        ("<|tool_call_argument_begin|>",), "<|tool_call_begin|>", "<|tool_call_end|>",
        is_numbered=True, is_section=True,
    ),
    HeadedCalls(
        "solar", "<|tool_calls|>", "", ("<|tool_call:args|>",), "<|tool_call:begin|>",
        "<|tool_call:end|>", id_before="<|tool_call:name|>", is_section=True,
    ),
    HeadedCalls("functionary", ">>>", "", ("\n",)),
    _qwen_coder("qwen3_coder", "<tool_call>", "</tool_call>"),
    _qwen_coder("seed_oss", "<seed:tool_call>", "</seed:tool_call>"),
    TaggedCalls(
        "qwen3_coder_bare", "<function=", "", "", ">\n", "<parameter=", ">\n",
        "\n</parameter>\n", "</function>",
    ),
    _arguments("glm47", "<tool_call>", "</tool_call>"),
    _arguments("longcat", "<longcat_tool_call>", "</longcat_tool_call>", arg="longcat_arg"),
    JsonCalls("longcat_json", "<longcat_tool_call>", "</longcat_tool_call>"),
    _hy3("hy3", ""),
    _hy3("hy3_opensource", ":opensource"),
    _invokes("minimax_m2", "<minimax:tool_call>", "</minimax:tool_call>"),
    _invokes("muse_spark", "<atem:function_calls>", "</atem:function_calls>", "atem:"),
    _dsml("deepseek_v32", "function_calls"),
    _dsml("deepseek_v4", "tool_calls"),
    TaggedCalls(
        "minimax_m3", f"{_M3}<tool_call>", f"{_M3}</tool_call>", f'{_M3}<invoke name="', '">',
        f"{_M3}<", ">", f"{_M3}</{{key}}>", f"{_M3}</invoke>", is_section=True,
    ),
    TaggedCalls(
        "minicpm5", "<function name=", "", "", ">", "<param name=", ">", "</param>",
        "</function>", has_cdata=True, is_quoted=True,
    ),
    TaggedCalls(
        "kimi_k3", "<|open|>tools<|sep|>", "<|close|>tools<|sep|>", '<|open|>call tool="',
        '" index="1"<|sep|>', '<|open|>argument key="', '" type="string"<|sep|>',
        "<|close|>argument<|sep|>", "<|close|>call<|sep|>", '" type="object"<|sep|>',
        is_section=True,
    ),
    PythonCalls("pythonic", "<|tool_call_start|>", "<|tool_call_end|>"),
    GemmaCalls("gemma4", "<|tool_call>", "<tool_call|>", '<|"|>'),
    GemmaCalls("function_gemma", "<start_function_call>", "<end_function_call>", "<escape>"),
]  # fmt: skip

FORMATS: dict[str, CallFormat] = {one.name: one for one in _ALL}
