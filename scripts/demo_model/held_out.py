"""The held-out prompts (200 of chat, 12 plain), and typical first prompts of users.

`python -m scripts.demo_model.held_out` writes tests/data/demo_prompts.jsonl again (same seed,
same file).
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.demo_model import corpus as training
from scripts.demo_model import exercises, recall, talk, tool_use
from scripts.demo_model.completions import completion
from scripts.demo_model.examples import Completion, Example, Message, normalise
from scripts.demo_model.template import END_OF_TURN, START_OF_TURN, answer_text

ROOT = Path(__file__).parents[2]
HELD_OUT_FILE = ROOT / "tests" / "data" / "demo_prompts.jsonl"
HUMAN_FILE = Path(__file__).with_name("human_prompts.jsonl")
SEED = 20261123

Maker = Callable[[random.Random], Example | Completion]
# (kind as written, maker, number of messages before the answer or None for all but the last, count)
_KINDS: list[tuple[str, Maker, int | None, int]] = [
    ("greeting", talk.greeting, None, 10),
    ("who", talk.who, None, 8),
    ("can", talk.can, None, 8),
    ("story", talk.story, None, 8),
    ("fallback", talk.fallback, None, 14),
    ("no_tool", talk.no_tool, None, 8),
    ("sum", exercises.sum_, None, 12),
    ("difference", exercises.difference, None, 12),
    ("count", exercises.count, None, 12),
    ("repeat", exercises.repeat, None, 12),
    ("spell", exercises.spell, None, 12),
    ("list", exercises.list_, None, 12),
    ("json", exercises.json_, None, 12),
    ("recall", recall.recall, None, 12),
    ("nothing_to_recall", recall.nothing_to_recall, None, 4),
    ("add_call", tool_use.add_call, 1, 7),
    ("add_answer", tool_use.add_call, 3, 6),
    ("time_call", tool_use.time_call, 1, 6),
    ("time_answer", tool_use.time_call, 3, 5),
    ("weather_call", tool_use.weather_call, 1, 5),
    ("weather_answer", tool_use.weather_call, 3, 5),
    ("other_with_tools", tool_use.other_request, None, 10),
    ("completion", completion, None, 12),
]

Item = dict[str, Any]


def items_and_keys() -> tuple[list[Item], frozenset[str]]:
    """The held-out items as written to the file, and the keys excluded from training."""
    rng, keys, items = random.Random(SEED), set[str](), list[Item]()
    human = {normalise(str(line["prompt"])) for line in read_lines(HUMAN_FILE)}
    for kind, make, cut, count in _KINDS:
        while count:
            example = make(rng)
            if example.key in keys or _is_common(example, human):
                continue
            keys.add(example.key)
            items.append(_item(rng, kind, example, cut))
            count -= 1
    return items, frozenset(keys)


def unseen_items() -> list[Item]:
    """The held-out items; those whose question is in the training corpus are replaced.

    The keys exclude an example from its own kind only; its question may be a turn of another kind,
    such as an exchange between the two halves of recall.
    """
    items, keys = items_and_keys()
    asked = questions_in_training(keys)
    taken = asked | {_question(item) for item in items}
    rng = random.Random(SEED + 1)
    return [_unseen(rng, item, taken, asked) for item in items]


def questions_in_training(keys: frozenset[str]) -> set[str | None]:
    """All user messages and beginnings of plain texts in the training corpus."""
    corpus, asked = training.Corpus(training.SEED, keys), set[str | None]()
    for _ in range(training.NUM_DOCUMENTS):
        texts = [text for text, _ in corpus.document()]
        is_user = [False, *(text == f"{START_OF_TURN}user\n" for text in texts)]
        asked |= {t.removesuffix(END_OF_TURN) for t, u in zip(texts, is_user, strict=False) if u}
        asked.add(texts[0])
    return asked


def _unseen(rng: random.Random, item: Item, taken: set[str | None], asked: set[str | None]) -> Item:
    """The item, or another of its kind if its question is in `asked`, which is extended."""
    if _question(item) not in asked:
        return item
    make, cut = next((make, cut) for kind, make, cut, _ in _KINDS if kind == item["kind"])
    human = {normalise(str(line["prompt"])) for line in read_lines(HUMAN_FILE)}
    while True:
        example = make(rng)
        new = _item(rng, item["kind"], example, cut)
        if _question(new) not in taken and not _is_common(example, human):
            taken.add(_question(new))
            return new


def _question(item: Item) -> str | None:
    """The question to compare; None where tools or earlier turns make the prompt unseen."""
    if not item["messages"]:
        return str(item["prompt"])
    turns = [m for m in item["messages"] if m["role"] != "system"]
    return turns[0]["content"] if len(turns) == 1 and not item["tools"] else None


def _is_common(example: Example | Completion, human: set[str]) -> bool:
    """True for common questions of users and tests, which are trained, not held out."""
    if isinstance(example, Completion):
        return normalise(example.prompt) in human or len(example.continuation) < 3
    question = normalise(example.messages[-2]["content"])
    if example.kind == "nothing_to_recall":
        return len(example.messages) == 2
    is_long_count = example.kind == "count" and len(example.messages[-1]["content"]) > 160
    return question in human or is_long_count or example.key in _COMMON_COUNTS


_COMMON_COUNTS = {f"count:1:{n}" for n in (3, 5, 10, 20, 30, 50, 100)} | {"count:10:1"}


def _item(rng: random.Random, kind: str, example: Example | Completion, cut: int | None) -> Item:
    if isinstance(example, Completion):
        prompt, answer = example.prompt, _opening(example.continuation)
        return {"kind": kind, "prompt": prompt, "messages": [], "tools": None, "answer": answer}
    position = len(example.messages) - 1 if cut is None else cut
    system: list[Message] = []
    if rng.random() < 0.5:
        system = [{"role": "system", "content": rng.choice(training.SYSTEM_PROMPTS)}]
    return {
        "kind": kind,
        "messages": [*system, *example.messages[:position]],
        "tools": example.tools,
        "answer": answer_text(example.messages[position]),
    }


def _opening(continuation: str) -> str:
    """The first words: a completion is correct if it starts with them."""
    return continuation[:60].rsplit(" ", 1)[0] if len(continuation) > 60 else continuation.rstrip()


def read_lines(path: Path) -> list[Item]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    items = unseen_items()
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    HELD_OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    HELD_OUT_FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(items)} prompts in {HELD_OUT_FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
