"""Prompts of a given length: random words, reproducible, and not cached by any server."""

from __future__ import annotations

import random
from collections.abc import Callable

_WORDS = (
    "about above after again air all along also always animal answer around ask away back base "
    "become before began begin being below between big bird black blue boat body book both box "
    "bring build busy call came car care carry change check child city class clear close cold "
    "color come common complete contain correct could country course cover cross dark day decide "
    "deep develop differ direct distant door down draw drive each early earth east easy eight "
    "enough equate even ever every example face fact fall family farm fast father feel field "
    "figure final find fire fish five fly follow food foot force form found four free friend full "
    "game gave girl give glass gold good govern great green ground group grow half hand happen "
    "hard have head hear heat heavy help here high hold home horse hot hour house hundred idea "
    "inch interest island just keep kind king know land language large last late laugh lay lead "
    "learn leave left less letter life light like line list listen little live long look love"
).split()
_SAMPLE_WORDS = 500

CountTokens = Callable[[str], int]


class Texts:
    """Texts for one model; equal keys give equal texts, different keys unrelated texts."""

    def __init__(self, tokens_per_word: float) -> None:
        self._tokens_per_word = tokens_per_word

    @classmethod
    def measured(cls, count_tokens: CountTokens) -> Texts:
        """Texts that use the measured number of tokens per word of a model's tokenizer."""
        return cls(count_tokens(_words("sample", _SAMPLE_WORDS)) / _SAMPLE_WORDS)

    def words(self, key: str, count: int) -> str:
        """``count`` random words."""
        return _words(key, count)

    def tokens(self, key: str, count: int) -> str:
        """Random words of about ``count`` tokens."""
        return _words(key, max(1, round(count / self._tokens_per_word)))


def _words(key: str, count: int) -> str:
    return " ".join(random.Random(key).choices(_WORDS, k=count))
