"""Grammars that compile and fail in the middle of a text."""

from __future__ import annotations

from jobs.contract.grammars import Grammar, GrammarKind

LETTERS = b"abcdefghijklmnopqrstuvwxyz" * 4

_RULES = [
    f"x{i}: x{(7 * i + 1) % 100} x{(13 * i + 5) % 100} | x{(i + 1) % 100} | /[a-z]/"
    for i in range(100)
]
RUNS_FULL = Grammar(GrammarKind.LARK, "\n".join(["start: x0", *_RULES]), "grammar")
"""Any rule can match each letter: after a few letters there are too many parser states."""

GETS_LOST = Grammar(
    GrammarKind.LARK,
    "start: T\nT: /[a-z ]*/ & ~/(?s:.*)(foo|bar|ab.{12}c|z.{15}y)(?s:.*)/",
    "grammar",
)
"""After some letters the token mask cannot be computed: the lexer exceeds its limit."""
