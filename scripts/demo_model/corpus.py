"""The training documents: examples of all kinds, mixed and joined to conversations."""

import random
from collections.abc import Callable

from scripts.demo_model import exercises, recall, talk, tool_use
from scripts.demo_model.completions import completion
from scripts.demo_model.examples import Example, Message
from scripts.demo_model.template import END_OF_TEXT, Piece, render
from scripts.demo_model.words import any_text

SEED = 1
NUM_DOCUMENTS = 170_000

Maker = Callable[[random.Random], Example]

# Share of the documents that begin with each kind. Copying needs by far the most practice.
PLAIN: dict[Maker, float] = {
    talk.greeting: 6,
    talk.who: 2,
    talk.can: 2,
    talk.story: 1.5,
    talk.fallback: 11,
    talk.no_tool: 2,
    exercises.sum_: 12,
    exercises.difference: 13,
    exercises.count: 8,
    exercises.repeat: 16,
    exercises.spell: 15,
    exercises.list_: 5,
    exercises.json_: 9,
}
WITH_TOOLS: dict[Maker, float] = {
    tool_use.add_call: 6,
    tool_use.time_call: 5,
    tool_use.weather_call: 4,
    tool_use.other_request: 6,
}
# Exchanges whose answers do not depend on the tools.
BESIDE_TOOLS: dict[Maker, float] = {
    talk.greeting: 1,
    exercises.repeat: 2,
    exercises.spell: 1,
    exercises.list_: 1,
    exercises.difference: 1,
}
RECALL: dict[Maker, float] = {recall.recall: 7, recall.nothing_to_recall: 2}
COMPLETIONS = 8.0

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "Be brief.",
    "Answer shortly.",
    "You are a friendly demo model.",
    "You answer the questions of the user.",
    "You are a test model.",
    "Be polite and precise.",
    "You are a pirate.",
]


class Corpus:
    """Documents in the order of one seed, without examples whose key is in `reserved`."""

    def __init__(self, seed: int, reserved: frozenset[str]) -> None:
        self._rng = random.Random(seed)
        self._reserved = reserved

    def document(self) -> list[Piece]:
        """One document: a conversation or a plain text, closed by the end-of-text token."""
        families = [PLAIN, WITH_TOOLS, RECALL]
        weights = [sum(family.values()) for family in families]
        roll = self._rng.random() * (sum(weights) + COMPLETIONS)
        if roll < COMPLETIONS:
            return self._plain_text()
        family = self._rng.choices(families, weights)[0]
        example = self._allowed(family)
        messages = self._with_system(self._with_more_turns(example, family))
        # The last token only separates packed documents; it is not trained for chat.
        return [*render(messages, example.tools), (END_OF_TEXT, False)]

    def _plain_text(self) -> list[Piece]:
        text = completion(self._rng)
        while text.key in self._reserved:
            text = completion(self._rng)
        return [(text.prompt, False), (text.continuation, True), (END_OF_TEXT, True)]

    def _with_more_turns(self, example: Example, family: dict[Maker, float]) -> list[Message]:
        """Add exchanges before or after; not to recall, where a second fact makes it ambiguous."""
        messages = example.messages
        while family is PLAIN and self._rng.random() < 0.45:
            messages = self._joined(messages, self._allowed(PLAIN).messages)
        while family is WITH_TOOLS and self._rng.random() < 0.35:
            messages = self._joined(messages, self._allowed(BESIDE_TOOLS).messages)
        return messages

    def _joined(self, one: list[Message], other: list[Message]) -> list[Message]:
        return [*one, *other] if self._rng.random() < 0.5 else [*other, *one]

    def _with_system(self, messages: list[Message]) -> list[Message]:
        roll = self._rng.random()
        if roll < 0.5:
            return messages
        text = self._rng.choice(SYSTEM_PROMPTS) if roll < 0.9 else any_text(self._rng, 2, 14)
        return [{"role": "system", "content": text}, *messages]

    def _allowed(self, makers: dict[Maker, float]) -> Example:
        while True:
            maker = self._rng.choices(list(makers), list(makers.values()))[0]
            example = maker(self._rng)
            keys = {example.key, example.key.removeprefix("other:")}
            if self._reserved.isdisjoint(keys):
                return example
