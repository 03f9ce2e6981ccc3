"""Chats with models that say a script: each part of it, or its beginning, comes back as said."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.world.chats import Answer, Chat, Way
from tests.world.scripted import PENALTY, Script


def make_scripted_chat(rng: random.Random, script: Script) -> Chat:
    """``auto`` or ``required``, cut in the middle or not; the stop string never comes."""
    way = rng.choices(list(Way), (4, 5, 1))[0]
    is_forced = not script.said.content and rng.random() < 0.7
    num_tokens = len(script.tokens)
    is_cut = rng.random() < 0.35
    body: dict[str, Any] = {
        # The penalty counts the last tokens of the prompt too.
        "messages": [{"role": "user", "content": "Look it up." + " Now." * 200}],
        "tools": [script.said.tool],
        "tool_choice": "required" if is_forced else "auto",
        "temperature": 0,
        "frequency_penalty": PENALTY,
        "repetition_context_size": num_tokens + 20,
        "parallel_tool_calls": rng.random() < 0.5,
        "max_tokens": rng.randint(1, num_tokens) if is_cut else num_tokens + 20,
        "stop": ["Observation:"],
        "stream": way is not Way.WHOLE,
    }
    return Chat(body, way, is_forced, is_cut, rng.randint(1, num_tokens))


def differences(
    script: Script, on_lost: Callable[[], None], chat: Chat, answer: Answer
) -> list[str]:
    """What the answer has otherwise than the script; one that was cut may have less.

    ``on_lost`` is called for a model that a grammar has led away from its script.
    """
    if not script.is_kept_to(answer.token_ids):
        on_lost()
        return []
    said = script.said
    expected = {"thought": said.thought, "content": said.content}
    got = {"thought": answer.reasoning, "content": answer.content}
    is_whole = answer.finish_reason == "tool_calls"
    is_right = is_whole or (chat.is_cut and answer.finish_reason == "length")
    found = [] if is_right or answer.finish_reason is None else [f"ended by {answer.finish_reason}"]
    for part, text in got.items():
        if not (text == expected[part] if is_whole else _begins(text, expected[part])):
            found.append(f"{part} {text!r} instead of {expected[part]!r}")
    if not _are_right(answer.calls, said.arguments, is_whole=is_whole):
        found.append(f"calls {answer.calls} instead of {said.arguments}")
    return [f"{one}; said {''.join(script.tokens)!r}" for one in found]


def _begins(text: str, whole: str) -> bool:
    """Whether it is a beginning of the whole; one letter of a marker may be text."""
    return whole.startswith(text) or whole.startswith(text[:-1].rstrip())


def _are_right(calls: list[tuple[str, str]], arguments: Any, *, is_whole: bool) -> bool:
    if not is_whole and not calls:
        return True
    if [name for name, _ in calls] != ["f"]:
        return False
    text = calls[0][1]
    try:
        return bool(_exact(text) == _exact(json.dumps(arguments)))
    except ValueError:
        return not is_whole


def _exact(text: str) -> Any:
    return json.loads(text, parse_float=str)
