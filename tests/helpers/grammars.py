"""Grammars that compile and break down in the middle of a text."""

from __future__ import annotations

from jobs.contract.grammars import Grammar, GrammarKind

LETTERS = b"abcdefghijklmnopqrstuvwxyz" * 4

_RULES = [
    f"x{i}: x{(7 * i + 1) % 100} x{(13 * i + 5) % 100} | x{(i + 1) % 100} | /[a-z]/"
    for i in range(100)
]
RUNS_FULL = Grammar(GrammarKind.LARK, "\n".join(["start: x0", *_RULES]), "grammar")
"""Each letter can be read by any rule: after a few there are more ways than may be kept."""

GETS_LOST = Grammar(
    GrammarKind.LARK,
    "start: T\nT: /[a-z ]*/ & ~/(?s:.*)(foo|bar|ab.{12}c|z.{15}y)(?s:.*)/",
    "grammar",
)
"""After some letters the mask cannot be computed: the lexer would have too many expressions."""
