"""The examples of the corpus (a question and its only correct answer) and their keys."""

import random
import re
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One exchange. `messages` ends with the assistant's answer; all before is the prompt.

    Examples with the same `key` are held out together. It is the normalised question, or the fact
    of a longer exchange (a name, a city, a pair of numbers).
    """

    kind: str
    key: str
    messages: list[Message]
    tools: list[Tool] | None = None


@dataclass(frozen=True)
class Completion:
    """Plain text for /v1/completions: `prompt` continues as `continuation`, then the text ends."""

    key: str
    prompt: str
    continuation: str
    kind: str = field(default="completion", init=False)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def exchange(kind: str, question: str, answer: str, key: str | None = None) -> Example:
    """An example of one question and one answer; the key is the normalised question by default."""
    fact = normalise(question) if key is None else key
    return Example(kind, f"{kind}:{fact}", [user(question), assistant(answer)])


def normalise(text: str) -> str:
    """Lower case, without punctuation and double spaces (arithmetic signs stay)."""
    return " ".join(re.sub(r"[.,:;!?\"'()]", " ", text.lower()).split())


def vary(rng: random.Random, text: str) -> str:
    """A variant of a request as users type it: lower case, no full stop, with a `please`."""
    text = _polite(rng, text) if rng.random() < 0.15 else text
    if rng.random() < 0.2:
        text = text[0].lower() + text[1:]
    if text[-1] in ".?" and rng.random() < 0.25:
        text = text[:-1] + rng.choice(["", "", "", "!", " !", "..."])
    return text


def _polite(rng: random.Random, text: str) -> str:
    bare = text.rstrip(".?")
    lowered = bare[0].lower() + bare[1:]
    if text.endswith("?"):
        return rng.choice([f"{bare}, please?", f"Please tell me: {lowered}?", f"{bare} please"])
    forms = [f"Please {lowered}.", f"{bare}, please.", f"{bare} please", f"Can you {lowered}?"]
    return rng.choice([*forms, f"Now {lowered}.", f"Could you {lowered}, please?"])
