"""Fill in the middle: the control tokens that tell a model where a text has its gap."""

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
    """The first set of which the vocabulary has all three; ``id_of`` is ``None`` for no token."""
    for spelling in _SPELLINGS:
        prefix, suffix, middle = (id_of(text) for text in spelling)
        if prefix is not None and suffix is not None and middle is not None:
            return FimTokens(prefix, suffix, middle)
    return None
