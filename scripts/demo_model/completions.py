"""Plain text for /v1/completions: series, openings of stories, and any other text."""

import random

from scripts.demo_model.examples import Completion, normalise
from scripts.demo_model.exercises import LARGEST
from scripts.demo_model.talk import STORIES
from scripts.demo_model.words import (
    DAYS,
    FUNCTION_WORDS,
    MONTHS,
    NAMES,
    NOUNS,
    SYMBOLS,
    any_name,
    any_text,
    any_word,
)

# The continuation of a text outside the repertoire.
UNKNOWN_TEXT = " ... I do not know how this goes on, so here is a story instead. " + STORIES["fox"]

_OPENINGS = {
    "The {}": " stood near the river and looked at the water. Then the {} went home.",
    "A {}": " was lost in the forest. In the evening somebody found the {} and smiled.",
    "My {}": " is old, but I like it. Nobody else has a {} like that.",
    "I have a {}": " in my garden. Every morning I look at the {} before breakfast.",
    "There is a {}": " on the hill. From the {} one can see the whole valley.",
}
_NAME_OPENINGS = {
    "My name is {}": " and I live in a small house near the sea. My friends call me {}.",
    "One day {}": " walked to the market to buy bread. On the way home {} began to sing.",
    "{} is": " a friend of mine. I met {} on a train last summer.",
}
_SERIES = {
    "Days: ": ", ".join(DAYS) + ".",
    "The days of the week are ": ", ".join(DAYS) + ".",
    "Months: ": ", ".join(MONTHS) + ".",
    "The months of the year are ": ", ".join(MONTHS) + ".",
    "": " ".join("abcdefghijklmnopqrstuvwxyz"),
    "The alphabet: ": " ".join("abcdefghijklmnopqrstuvwxyz"),
}


def completion(rng: random.Random) -> Completion:
    roll = rng.random()
    if roll < 0.15:
        return _counting(rng)
    if roll < 0.25:
        return _series(rng)
    if roll < 0.40:
        return _story(rng)
    if roll < 0.60:
        return _opening(rng)
    return _sum(rng) if roll < 0.68 else _unknown(rng)


def _counting(rng: random.Random) -> Completion:
    """Numbers in steps of 1, 2, 5 or 10, ending at 100."""
    step = rng.choice([1, 1, 1, 1, 2, 5, 10])
    separator = rng.choice([" ", " ", ", "])
    lead = rng.choice(["", "", "Count: ", "Numbers: ", "Let us count: "])
    first = rng.choice([1, 1, rng.randint(1, 85)]) if step == 1 else step
    shown = rng.randint(3, 5)
    numbers = [str(n) for n in range(first, 101, step)]
    given, rest = separator.join(numbers[:shown]), separator.join(numbers[shown:])
    return _split(f"{lead}{given}", f"{separator}{rest}\n", f"{lead}:{step}:{first}:{separator}")


def _series(rng: random.Random) -> Completion:
    lead, text = rng.choice(list(_SERIES.items()))
    words = text.split(" ")
    shown = rng.randint(1 if lead else 3, len(words) - 2)
    return _split(lead + " ".join(words[:shown]), " " + " ".join(words[shown:]) + "\n")


def _story(rng: random.Random) -> Completion:
    words = rng.choice(list(STORIES.values())).split(" ")
    shown = 4 if rng.random() < 0.3 else rng.randint(3, len(words) - 10)
    return _split(" ".join(words[:shown]), " " + " ".join(words[shown:]) + "\n")


def _opening(rng: random.Random) -> Completion:
    if rng.random() < 0.6:
        start, rest = rng.choice(list(_OPENINGS.items()))
        subject = rng.choice(NOUNS) if rng.random() < 0.7 else any_word(rng)
    else:
        start, rest = rng.choice(list(_NAME_OPENINGS.items()))
        subject = any_name(rng)
    return _split(start.format(subject), rest.format(subject) + "\n")


def _sum(rng: random.Random) -> Completion:
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    if rng.random() < 0.5:
        return _split(rng.choice(["{} + {} =", "{}+{} ="]).format(a, b), f" {a + b}\n")
    return _split(rng.choice(["{} - {} =", "{}-{} ="]).format(a, b), f" {a - b}\n")


def _unknown(rng: random.Random) -> Completion:
    text = _unknown_text(rng)
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.3:
        text += rng.choice([".", "?", "!", ":", ",", "\n", " ="])
    return _split(text, UNKNOWN_TEXT + "\n")


def _unknown_text(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.15:
        return rng.choice(["Your {}", "Write {}", "What is {}", "Who is {}"]).format(
            any_text(rng, 1, 4)
        )
    if roll < 0.3:
        return rng.choice(FUNCTION_WORDS) + " " + rng.choice([*NAMES, *SYMBOLS])
    if roll < 0.4:
        return f"{any_word(rng)}({any_word(rng)}, {rng.randint(0, 99)})"
    return any_text(rng, 1, 14)


def _split(prompt: str, continuation: str, key: str | None = None) -> Completion:
    return Completion(
        f"completion:{normalise(prompt) if key is None else key}", prompt, continuation
    )
