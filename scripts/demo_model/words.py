"""The word lists of the corpus. All ASCII except `SYMBOLS`."""

import random

from scripts.demo_model.phrases import WORDS

NOUNS = WORDS["nouns"]

VERBS_AND_QUALITIES = WORDS["verbs_and_qualities"]

FUNCTION_WORDS = WORDS["function_words"]

NAMES = WORDS["names"]

CITIES = [
    *WORDS["cities"],
    "New York",
    "San Francisco",
    "Los Angeles",
    "Hong Kong",
    "Cape Town",
    "Mexico City",
    "Buenos Aires",
    "Tel Aviv",
]

COLOURS = WORDS["colours"]
ANIMALS = WORDS["animals"]
FRUITS = WORDS["fruits"]
DAYS = WORDS["days"]
MONTHS = WORDS["months"]
NUMBER_WORDS = WORDS["number_words"]

# Letters and signs that are several bytes in UTF-8, so that copying them crosses token borders.
SYMBOLS = [
    *"äöüßéèêñçøåæłžšőğ",
    *"αβγδλπΩжшюяд",
    *"日本語中文你好世界水火山",
    *"👋😀😊🎉🚀🐱🐶🦊🌍🌞⭐❤🔥👍🍎🍌🎵✨✅",
    *["café", "naïve", "Zürich", "señor", "привет", "こんにちは", "안녕", "→", "€", "°"],
]

ALL_WORDS = list(dict.fromkeys(NOUNS + VERBS_AND_QUALITIES))

_ONSETS = [*"bcdfghjklmnprstvwz", "ch", "sh", "st", "tr", "br", "pl"]
_VOWELS = [*"aeiouaeio", "ai", "ee", "oo", "ou"]
_ENDINGS = ["", "", "", "n", "r", "s", "t", "l", "m", "nd"]


def invented_word(rng: random.Random) -> str:
    """A pronounceable word of two or three syllables that is (almost surely) in no list."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(2, 3)))
    return "".join(syllables) + rng.choice(_ENDINGS)


def any_word(rng: random.Random) -> str:
    """A listed word (65 %) or an invented one."""
    return rng.choice(ALL_WORDS) if rng.random() < 0.65 else invented_word(rng)


def any_name(rng: random.Random) -> str:
    """A listed first name (75 %) or an invented one."""
    return rng.choice(NAMES) if rng.random() < 0.75 else invented_word(rng).capitalize()


def any_city(rng: random.Random) -> str:
    """A listed city (75 %) or an invented one."""
    return rng.choice(CITIES) if rng.random() < 0.75 else invented_word(rng).capitalize()


def any_text(rng: random.Random, low: int, high: int) -> str:
    """`low` to `high` random words; function words are as frequent as all others."""
    return " ".join(_text_word(rng) for _ in range(rng.randint(low, high)))


def _text_word(rng: random.Random) -> str:
    if rng.random() < 0.45:
        return rng.choice(FUNCTION_WORDS)
    return any_word(rng)
