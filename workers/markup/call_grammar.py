"""Grammars of tool calls: names from the request's tools, arguments by their schemas.

Written in llguidance's Lark, for the most common dialects. A model with another dialect is forced
to write calls as JSON, as in the first of them, between its own markers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from jobs.contract.errors import InvalidRequestError
from jobs.contract.grammars import Grammar, GrammarKind
from workers.engines.base import Tokenizer
from workers.markup.dialects import Dialect
from workers.markup.parsers import Parser

JSON_KINDS = (GrammarKind.JSON_OBJECT, GrammarKind.JSON_SCHEMA)

Tool = dict[str, Any]
Schema = dict[str, Any]

# At most one space or line break: a small model might write white space without end.
_GUIDANCE = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]?"}
_BLANK = r"_w: /[ \n]{0,2}/"
_ANY_OBJECT = '{"type": "object"}'
_TEXT_TYPES = ("string", None)


def forced_dialect(dialect: Dialect) -> Dialect:
    """The dialect in which the model can be forced to write calls."""
    parser = dialect.parser
    if parser is None or parser.name in _WRITERS:
        return dialect
    as_json = Parser("json", parser.start, parser.end, lambda text, _: json.loads(text))
    return Dialect(as_json, dialect.thinking)


def forced_calls(
    parser: Parser, tools: Sequence[Tool], tokenizer: Tokenizer, content: Grammar | None = None
) -> Grammar:
    """Grammar of one or more calls, or, if given, of ``content``: a JSON schema of the answer."""
    start, end = marker(parser.start, tokenizer), marker(parser.end, tokenizer)
    other = " | content" if content is not None else ""
    lines = [f"start: calls{other}", f"calls: (_w {start} call {end})+"]
    if content is not None:
        lines.append(_content(content))
    return _grammar([*lines, *_rules(parser, tools, tokenizer)])


def with_opening(content: Grammar, opening: str, tokenizer: Tokenizer) -> Grammar:
    """JSON after ``opening`` and the blank lines that models write; other grammars unchanged."""
    if content.kind not in JSON_KINDS:
        return content
    lines = [f"start: {marker(opening, tokenizer)} _w content", _content(content), _BLANK]
    return Grammar(GrammarKind.LARK, "\n".join(lines), content.param)


def call_rest(parser: Parser, tools: Sequence[Tool], tokenizer: Tokenizer) -> Grammar | None:
    """Grammar of a call after its start marker; ``None`` for a dialect without a grammar."""
    if parser.name not in _WRITERS:
        return None
    end = marker(parser.end, tokenizer)
    return _grammar([f"start: call {end}", *_rules(parser, tools, tokenizer)])


def marker(text: str, tokenizer: Tokenizer) -> str:
    """The marker in Lark: text as strings, control tokens by their ids."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    parts: list[str] = []
    for token_ids, is_text in _runs(ids, tokenizer):
        if is_text:
            string = b"".join(map(tokenizer.piece, token_ids)).decode(errors="replace")
            parts.append(json.dumps(string, ensure_ascii=False))
        else:
            parts += [f"<|{token_id}|>" for token_id in token_ids]
    return " ".join(parts)


def _runs(ids: list[int], tokenizer: Tokenizer) -> Iterator[tuple[list[int], bool]]:
    """Consecutive tokens of the same kind, and whether they have a text."""
    for is_text, run in groupby(ids, lambda token_id: bool(tokenizer.piece(token_id))):
        yield list(run), is_text


def _content(content: Grammar) -> str:
    schema = json.loads(content.text or _ANY_OBJECT)
    return f"content: %json {json.dumps(_guided(schema))}"


def _grammar(lines: list[str]) -> Grammar:
    return Grammar(GrammarKind.LARK, "\n".join([*lines, _BLANK]), "tools")


def _rules(parser: Parser, tools: Sequence[Tool], tokenizer: Tokenizer) -> list[str]:
    write = _WRITERS.get(parser.name, _json_call)
    names = " | ".join(f"call_{index}" for index in range(len(tools)))
    lines = [f"call: {names}"]
    for index, tool in enumerate(tools):
        function = tool["function"]
        lines += write(index, function["name"], _parameters(function, index), tokenizer)
    return lines


def _parameters(function: dict[str, Any], index: int) -> Schema:
    schema = function.get("parameters") or {}
    place = f"tools[{index}].function.parameters"
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise InvalidRequestError(f"{place}: must be the schema of an object", place)
    return {**schema, "type": "object"}


def _guided(schema: Schema) -> Schema:
    return {**schema, "x-guidance": _GUIDANCE}


def _json_call(index: int, name: str, parameters: Schema, _: Tokenizer) -> list[str]:
    return _object_call(index, name, parameters, "arguments")


def _llama_call(index: int, name: str, parameters: Schema, _: Tokenizer) -> list[str]:
    return _object_call(index, name, parameters, "parameters")


def _object_call(index: int, name: str, parameters: Schema, field: str) -> list[str]:
    key = json.dumps(json.dumps(name, ensure_ascii=False) + ",", ensure_ascii=False)
    begin = rf'_w "{{" _w "\"name\":" _w {key} _w "\"{field}\":" _w'
    return [
        f'call_{index}: {begin} args_{index} _w "}}" _w',
        f"args_{index}: %json {json.dumps(_guided(parameters))}",
    ]


def _harmony_call(index: int, name: str, parameters: Schema, tokenizer: Tokenizer) -> list[str]:
    """gpt-oss: the name ends the address of a message that contains the arguments."""
    head = json.dumps(name, ensure_ascii=False)
    channel = marker("<|channel|>commentary json<|message|>", tokenizer)
    return [
        f"call_{index}: {head} {channel} args_{index}",
        f"args_{index}: %json {json.dumps(_guided(parameters))}",
    ]


def _xml_call(index: int, name: str, parameters: Schema, _: Tokenizer) -> list[str]:
    """Qwen3-Coder: one tag per parameter; strings as plain text, other values as JSON."""
    properties: dict[str, Schema] = parameters.get("properties") or {}
    required = parameters.get("required") or []
    values = [
        f"value_{index}_{n}" + ("" if key in required else "?") for n, key in enumerate(properties)
    ]
    head = json.dumps(f"<function={name}>\n", ensure_ascii=False)
    lines = [f'call_{index}: _w {head} {" ".join(values)} "</function>" _w']
    for n, (key, schema) in enumerate(properties.items()):
        lines += _xml_value(f"{index}_{n}", key, schema, parameters)
    return lines


def _xml_value(place: str, key: str, schema: Schema, root: Schema) -> list[str]:
    begin = json.dumps(f"<parameter={key}>\n", ensure_ascii=False)
    end = r'"\n</parameter>\n"'
    if schema.get("type") in _TEXT_TYPES and not schema.keys() & {"enum", "const", "anyOf", "$ref"}:
        text = rf"text_{place}[suffix={end}]: /(?s:.*)/"
        return [f"value_{place}: {begin} text_{place}", text]
    if choices := _texts(schema):
        options = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
        return [f"value_{place}: {begin} ({options}) {end}"]
    whole = {key: root[key] for key in ("$defs", "definitions") if key in root} | schema
    return [
        f"value_{place}: {begin} json_{place} {end}",
        f"json_{place}: %json {json.dumps(_guided(whole))}",
    ]


def _texts(schema: Schema) -> list[str]:
    """The strings that a schema allows, if it lists only strings; else empty."""
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return choices if all(isinstance(choice, str) for choice in choices) else []


_WRITERS: dict[str, Callable[[int, str, Schema, Tokenizer], list[str]]] = {
    "json_tools": _json_call,
    "llama_json": _llama_call,
    "qwen3_coder": _xml_call,
    "harmony": _harmony_call,
}
