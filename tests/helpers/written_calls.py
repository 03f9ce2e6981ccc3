"""Random tools and arguments, and their calls in each markup format."""

from __future__ import annotations

import json
import random
from typing import Any

from workers.markup.arguments.schema_types import Document
from workers.markup.arguments.values import Kind, dumps, kind_of, write_value
from workers.markup.calls.format import CallFormat
from workers.markup.calls.gemma_calls import GemmaCalls
from workers.markup.calls.headed_calls import HeadedCalls
from workers.markup.calls.json_calls import JsonCalls
from workers.markup.calls.python_calls import PythonCalls
from workers.markup.calls.tagged_calls import TaggedCalls

Tool = dict[str, Any]

_WORDS = [
    "null", "None", "true", "12", "-1.5", '"', '"x"', '"null"', "\\", "\n", " ", "a", "é", "😀",
    "<think>", "</think>", "</tool_call>", "<tool_call>", "</parameter>", "<function=f>", "[1]",
    "</function>", "{", "}", "</arg_value>", "<|im_end|>", "[TOOL_CALLS]", "'", ",", "(", "&",
    "]]>",
]  # fmt: skip
_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_SCHEMAS: list[Any] = [
    _STRING,
    _INTEGER,
    {"type": "number"},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    {"type": ["string", "null"]},
    {"oneOf": [_STRING, _INTEGER]},
    {"type": "array", "items": _STRING},
    {"anyOf": [_STRING, {"type": "array", "items": _INTEGER}]},
    {"$ref": "#/$defs/point"},
    {"enum": ["null", "a b", None, 7, "x\ny"]},
    {"const": 12345678901234567890123},
    {"$ref": "#/properties/p0"},
]
_POINT = {
    "type": "object",
    "properties": {"x": _INTEGER, "note": _STRING},
    "required": ["x", "note"],
    "additionalProperties": False,
}


def random_call(rng: random.Random) -> tuple[Tool, dict[str, Any]]:
    """A tool, and arguments that match its schema."""
    properties = {f"p{n}": rng.choice(_SCHEMAS[: -1 if n == 0 else None]) for n in range(3)}
    required = [key for key in properties if rng.random() < 0.5]
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "$defs": {"point": _POINT},
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    document = Document(parameters)
    given = {
        key: _value(rng, document.resolved(schema))
        for key, schema in properties.items()
        if key in required or rng.random() < 0.7
    }
    return tool, given


def _value(rng: random.Random, schema: Any) -> Any:
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    if found := schema.get("anyOf") or schema.get("oneOf"):
        return _value(rng, rng.choice(found))
    name = schema["type"]
    if isinstance(name, list):
        return _value(rng, {**schema, "type": rng.choice(name)})
    if name == "object":
        return {key: _value(rng, one) for key, one in schema["properties"].items()}
    if name == "array":
        return [_value(rng, schema["items"]) for _ in range(rng.randint(0, 3))]
    return {
        "string": lambda: "".join(rng.choices(_WORDS, k=rng.randint(0, 5))),
        "integer": lambda: rng.choice([0, -3, 1 << 53, 1234567890123456789, 10**30 + 7]),
        "number": lambda: rng.choice([0, 2.5, -1e-7, 10**20]),
        "boolean": lambda: rng.random() < 0.5,
        "null": lambda: None,
    }[name]()


def written(form: CallFormat, tool: Tool, arguments: dict[str, Any]) -> str | None:
    """The text after the format's start marker; ``None`` if the format cannot express the call."""
    name = tool["function"]["name"]
    if isinstance(form, JsonCalls):
        return _json(form, name, arguments)
    if isinstance(form, HeadedCalls):
        return _headed(form, name, arguments)
    if isinstance(form, TaggedCalls):
        return _tagged(form, tool, arguments)
    if isinstance(form, PythonCalls):
        inner = ", ".join(f"{key}={dumps(value)}" for key, value in arguments.items())
        return f"[{name}({inner})]{form.end}"
    assert isinstance(form, GemmaCalls)
    if form.mark in dumps(arguments).replace('\\"', '"'):
        return None
    inner = ",".join(f"{key}:{_gemma(form.mark, value)}" for key, value in arguments.items())
    return f"call:{name}{{{inner}}}{form.end}"


def _json(form: JsonCalls, name: str, arguments: dict[str, Any]) -> str:
    own_id = {form.id_key: "1"} if form.id_key else {}
    call = {**own_id, form.name_key: name, form.arguments_key: arguments}
    text = dumps({name: arguments} if form.is_keyed else call)
    return (f"[{text}]" if form.is_list else text) + form.end


def _headed(form: HeadedCalls, name: str, arguments: dict[str, Any]) -> str:
    head = f"functions.{name}:0" if form.is_numbered else name
    before = f"ab12{form.id_before}" if form.id_before else ""
    own_id = f"{form.id_mark}abcdefghi" if form.id_mark else ""
    body = f"{head}{own_id}{form.middles[0]}{dumps(arguments)}"
    return f"{form.begin}{before}{body}{form.close}{form.end}"


def _tagged(form: TaggedCalls, tool: Tool, arguments: dict[str, Any]) -> str | None:
    document = Document(tool["function"]["parameters"])
    quote = '"' if form.is_quoted else ""
    text = f"{form.call}{quote}{tool['function']['name']}{quote}{form.name_end}"
    for key, value in arguments.items():
        schema = document.resolved(document.properties[key])
        end = form.value_end.replace("{key}", key)
        is_text = isinstance(value, str)
        shown = value if is_text and form.json_key_end else write_value(document, schema, value)
        if kind_of(document, schema) is not Kind.JSON and is_text:
            if end.strip() in shown or (form.has_cdata and "]]>" in shown):
                return None
            is_listed = "enum" in schema or "const" in schema
            shown = f"<![CDATA[{value}]]>" if form.has_cdata and not is_listed else shown
        key_end = form.json_key_end if form.json_key_end and not is_text else form.key_end
        text += f"{form.key}{quote}{key}{quote}{key_end}{form.value_start}{shown}{end}"
    return f"{text}{form.call_end}{form.end}"


def _gemma(mark: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{mark}{value}{mark}"
    if isinstance(value, list):
        return f"[{','.join(_gemma(mark, one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_gemma(mark, one)}' for key, one in value.items())}}}"
    return json.dumps(value)
