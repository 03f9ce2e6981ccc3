"""Finds the fill-in-the-middle control tokens of a vocabulary."""

from __future__ import annotations

from collections.abc import Callable

from workers.engines.base import FimTokens

# Prefix, suffix, middle, as the authors of the models spell them (their tokenizer files).
_SPELLINGS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek  # noqa: RUF001
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    ("<PRE>", "<SUF>", "<MID>"),
    ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM
)


def find_fim_tokens(id_of: Callable[[str], int | None]) -> FimTokens | None:
    """The first set of which all tokens exist; ``id_of(text)`` is ``None`` for an unknown token."""
    for spelling in _SPELLINGS:
        prefix, suffix, middle = (id_of(text) for text in spelling)
        if prefix is not None and suffix is not None and middle is not None:
            return FimTokens(prefix, suffix, middle)
    return None
