"""Grammar rules in llguidance's Lark, for one request's tools and one vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jobs.contract.errors import InvalidRequestError
from jobs.contract.schemas import is_large, loosen, without_large
from workers.engines.base import Tokenizer
from workers.markup.arguments.schema_types import Document, choices_of, with_document

Tool = dict[str, Any]
Schema = dict[str, Any]

# At most one space or line break: a small model might write white space without end.
GUIDANCE = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]?", "coerce_one_of": True}
BLANK = r"_w: /[ \n]{0,2}/"


def quoted(text: str) -> str:
    """The text as a Lark string."""
    return json.dumps(text, ensure_ascii=False)


def guided(schema: Schema) -> str:
    """The schema as the argument of ``%json``."""
    return json.dumps({**schema, "x-guidance": GUIDANCE})


def marker(text: str, tokenizer: Tokenizer) -> str:
    """The marker in Lark: text as strings, control tokens by their ids."""
    return " ".join(
        quoted(part) if isinstance(part, str) else f"<|{part}|>" for part in _parts(text, tokenizer)
    )


def _parts(text: str, tokenizer: Tokenizer) -> Iterator[str | int]:
    """The parts of a text: strings, and ids of control tokens.

    The strings are the text's own: tokens may have a blank more, or other letters.
    """
    for token_id in tokenizer.encode(text, add_special=False, parse_special=True):
        control = "" if tokenizer.piece(token_id) else tokenizer.control_text(token_id)
        if control and control in text:
            before, _, text = text.partition(control)
            if before:
                yield before
            yield token_id
    if text:
        yield text


class Rules:
    """Collects grammar rules for ``tools`` in ``lines``."""

    def __init__(self, tools: Sequence[Tool], tokenizer: Tokenizer) -> None:
        self.tools = [tool["function"] for tool in tools]
        self.lines: list[str] = []
        self._tokenizer = tokenizer
        self._parameters: dict[int, str] = {}

    def mark(self, text: str) -> str:
        """``marker`` of ``text``."""
        return marker(text, self._tokenizer)

    def add(self, stem: str, body: str, attributes: str = "") -> str:
        """Add a rule; returns its name."""
        name = f"{stem}_{len(self.lines)}"
        self.lines.append(f"{name}{attributes}: {body}")
        return name

    def parameters(self, index: int) -> Schema:
        """The schema of a tool's arguments; unless ``strict``, without what is unsupported."""
        schema = self.tools[index].get("parameters") or {}
        place = f"tools[{index}].function.parameters"
        if not isinstance(schema, dict) or schema.get("type", "object") != "object":
            raise InvalidRequestError(f"{place}: must be the schema of an object", place)
        if not self.tools[index].get("strict"):
            schema = loosen(schema, is_exact=True).schema
        return {**schema, "type": "object"}

    def arguments(self, index: int) -> str:
        """The name of the rule for a tool's arguments as a JSON object."""
        if index not in self._parameters:
            large = self._large_choices(index)
            schema = self.parameters(index)
            name = self._members(schema, large) if large else self.json("args", schema)
            self._parameters[index] = name
        return self._parameters[index]

    def _large_choices(self, index: int) -> dict[str, list[Any]]:
        """By argument, the choices that contain integers which llguidance would round."""
        if self.tools[index].get("strict"):
            return {}
        document = Document(self.parameters(index))
        found = {k: choices_of(document.resolved(v)) for k, v in document.properties.items()}
        return {key: one for key, one in found.items() if one and any(map(is_large, one))}

    def _members(self, schema: Schema, large: dict[str, list[Any]]) -> str:
        """A rule for an object; the choices of the arguments in ``large`` are written exactly."""
        document = Document(schema)
        members: list[tuple[str, bool]] = []
        for key, one in document.properties.items():
            if key in large:
                value = either([quoted(json.dumps(v, ensure_ascii=False)) for v in large[key]])
            else:
                value = self.json(
                    "json", with_document(document, one if isinstance(one, dict) else {})
                )
            head = quoted(json.dumps(key, ensure_ascii=False) + ":")
            members.append((self.add("member", f"{head} _w {value}"), key in document.required))
        return self.add("args", f'"{{" _w {in_order(self, members, ",")} _w "}}"')

    def json(self, stem: str, schema: Schema) -> str:
        return self.add(stem, f"%json {guided(without_large(schema))}")

    def terminal(self, stem: str, body: str) -> str:
        """Add a terminal; returns its name."""
        name = f"{stem}_{len(self.lines)}".upper()
        self.lines.append(f"{name}: {body}")
        return name

    def text(self, stem: str, terminal: str, end: str, unlike: str = "") -> str:
        """A rule for bare text of ``terminal`` that does not contain ``end``, followed by ``end``.

        ``unlike``: a pattern that the whole text must not match.
        """
        parts = list(_parts(end, self._tokenizer))
        is_plain = all(isinstance(part, str) for part in parts)
        lead = parts[0] if parts and isinstance(parts[0], str) and not is_plain else ""
        body = f"{terminal} & ~/{unlike}/" if unlike else terminal
        if lead:
            body = f"({body}) /{escaped(lead)}/"
        held = self.terminal(stem, body)
        outside = f"~/(?s:.*){escaped(end if is_plain else end.strip())}(?s:.*)/"
        whole = self.terminal(stem, f"{held} & {outside}")
        if is_plain:
            return self.add(stem, whole, f"[suffix={quoted(end)}]")
        rest = " ".join(
            quoted(part) if isinstance(part, str) else f"<|{part}|>" for part in parts[bool(lead) :]
        )
        return self.add(stem, f"{whole} {rest}")


def escaped(text: str) -> str:
    """The text, escaped for a regular expression between slashes."""
    return re.escape(text).replace("/", r"\/").replace("\n", "n")


def either(names: Sequence[str]) -> str:
    """Lark for one of these rules."""
    return "(" + " | ".join(names) + ")"


def in_order(rules: Rules, members: list[tuple[str, bool]], separator: str) -> str:
    """A rule for ``members`` (rule, is required) in this order, with separators between them."""
    mark = f"{quoted(separator)} _w" if separator == "," else quoted(separator)
    rest = ""  # rule for the text after a member
    alone = ""  # rule for the text from the first member on
    for name, is_needed in reversed(members):
        begins = f"{name} {rest}".strip()
        follows = f"{mark} {begins}"
        if is_needed:
            rest, alone = rules.add("more", follows), rules.add("first", begins)
        else:
            rest = rules.add("more", f"({follows} | {rest})" if rest else f"({follows})?")
            alone = rules.add("first", f"{begins} | {alone}" if alone else f"({begins})?")
    return alone
