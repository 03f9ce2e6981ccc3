"""Real templates against transformers' renderer, on all shapes of chats."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from tests.world.shapes import SHAPES, Message, Shape
from workers.text.templates.chat_template import ChatTemplate
from workers.text.templates.traits import TemplateTraits

_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class Outcome(StrEnum):
    """How our text compares with theirs. ``MEANT``: theirs is the same on messages adapted to the
    template, as its traits say; on those given, it is another one or none."""

    EQUAL = "equal"
    MEANT = "meant"
    REFUSED = "refused"
    ONLY_HERE = "refused only here"
    ONLY_THERE = "refused only there"
    OTHER = "other text"


def print_table(models: Path) -> bool:
    """Whether nothing is wrong; what is, is shown with its reason."""
    total: Counter[Outcome] = Counter()
    complaints: list[str] = []
    print(f"\n{'template':52} " + " ".join(f"{o.value:>10.10}" for o in Outcome) + "  traits")
    for path in sorted((models / "templates").glob("*.jinja")):
        counts, said, traits = _compare(path)
        total += counts
        complaints += said
        numbers = " ".join(f"{counts[o]:10}" for o in Outcome)
        print(f"{path.stem:52.52} {numbers}  {traits}")
    print(f"{'all':52} " + " ".join(f"{total[o]:10}" for o in Outcome))
    print(*complaints, sep="\n")
    return not complaints


def _compare(path: Path) -> tuple[Counter[Outcome], list[str], str]:
    source = path.read_text(encoding="utf-8")
    try:
        ours = ChatTemplate(source, **_TOKENS)
    except ModelLoadError as error:
        return Counter(), [f"{path.stem}: {error}"], "does not load"
    counts: Counter[Outcome] = Counter()
    said = []
    for name, shape in SHAPES.items():
        outcome, reason = _outcome(ours, source, shape)
        counts[outcome] += 1
        if outcome not in (Outcome.EQUAL, Outcome.MEANT, Outcome.REFUSED):
            said.append(f"{path.stem}: {name}: {outcome.value}: {reason}")
    return counts, said, _words(ours.traits)


def _outcome(ours: ChatTemplate, source: str, shape: Shape) -> tuple[Outcome, str]:
    tools = ours.traits.adapt_tools(shape.tools)
    adapted, reason = _theirs(
        source, replace(shape, tools=tools), ours.traits.adapt(shape.messages)
    )
    try:
        texts = {
            ours.render(
                shape.messages,
                shape.tools,
                options=shape.options,
                add_generation_prompt=not shape.is_continued,
                keeps_origin=keeps_origin,
            )
            for keeps_origin in (False, True)
        }
    except InvalidRequestError as error:
        is_both = adapted is None
        return (Outcome.REFUSED if is_both else Outcome.ONLY_HERE), error.message
    if adapted is None:
        return Outcome.ONLY_THERE, reason
    if texts != {adapted}:
        return Outcome.OTHER, _difference(sorted(texts)[-1], adapted)
    plain, _ = _theirs(source, shape, list(map(_with_object_arguments, shape.messages)))
    return (Outcome.EQUAL if plain == adapted else Outcome.MEANT), ""


def _theirs(source: str, shape: Shape, messages: list[Message]) -> tuple[str | None, str]:
    # Imported here: it takes seconds.
    from transformers.utils.chat_template_utils import render_jinja_template

    options = dict(shape.options)
    try:
        rendered, _ = render_jinja_template(
            [messages],
            tools=shape.tools,
            documents=options.pop("documents", None),
            chat_template=source,
            add_generation_prompt=not shape.is_continued,
            **_TOKENS,
            **options,
        )
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return str(rendered[0]), ""


def _with_object_arguments(message: Message) -> Message:
    """As transformers' documentation gives calls."""
    if "tool_calls" not in message:
        return message
    made = [
        {**call, "function": {**call["function"], "arguments": _to_object(call)}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": made}


def _to_object(call: dict[str, Any]) -> Any:
    return json.loads(call["function"]["arguments"])


def _difference(ours: str, theirs: str) -> str:
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((i for i, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    return f"{ours[place - 20 : place + 40]!r} instead of {theirs[place - 20 : place + 40]!r}"


def _words(traits: TemplateTraits) -> str:
    named = {
        "parts": traits.reads_parts,
        "no system": not traits.has_system,
        "text arguments": traits.reads_text_arguments,
        "short ids": traits.needs_short_ids,
        "full tools": traits.needs_full_tools,
    }
    return ", ".join(name for name, holds in named.items() if holds)
