"""Grammars as masks over the vocabulary: which tokens may come next.

One implementation for all engines, by llguidance. A grammar that cannot be honoured to the letter
is refused by what it asks for; none is ever loosened in silence.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
import numpy.typing as npt
from llguidance.gbnf_to_lark import gbnf_to_lark

from jobs.errors import InvalidRequestError
from jobs.grammars import Grammar, GrammarKind
from workers.engines.base import Tokenizer
from workers.text.number_guard import DigitTokens, NumberGuard

# One space or line break at most: a small model would wander off in white space.
_WHITESPACE = r"[ \n]?"
_SPECIAL = b"\xff"  # how llguidance marks what is no text
_NUM_KEPT = 64
_LARGEST = 200_000  # characters

Mask = npt.NDArray[np.bool_]


class Constraint:
    """Where one text stands in its grammar; a ``guard`` bounds the numbers of JSON."""

    def __init__(
        self,
        matcher: Any,
        vocab_size: int,
        end_ids: frozenset[int],
        guard: NumberGuard | None = None,
    ) -> None:
        self._guard = guard
        self._matcher = matcher
        self._end_ids = list(end_ids)
        self._vocab_size = vocab_size
        self._bits = llguidance.numpy.allocate_token_bitmask(1, vocab_size)

    def allowed(self) -> Mask:
        """Which tokens may come next, shape (vocab_size,); an end token when nothing else may."""
        if not self._matcher.is_stopped():
            llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits, 0)
            bits = np.unpackbits(self._bits[0].view(np.uint8), bitorder="little")
            mask = bits[: self._vocab_size].astype(np.bool_)
            if mask.any():
                return mask if self._guard is None else self._guard.narrow(mask)
        mask = np.zeros(self._vocab_size, np.bool_)
        mask[self._end_ids] = True
        return mask

    def accept(self, token_id: int) -> None:
        """Go on after a token that was allowed."""
        if self._guard is not None:
            self._guard.accept(token_id)
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)

    def accept_all(self, token_ids: list[int]) -> bool:
        """Go on after these tokens; False, and nothing done, if the grammar forbids one."""
        if self._matcher.validate_tokens(token_ids) != len(token_ids):
            return False
        for token_id in token_ids:
            self.accept(token_id)
        return True

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting() or self._matcher.is_stopped())


class GrammarCompiler:
    """Compiles grammars for one tokenizer; may be used from any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._digits = DigitTokens(tokenizer)
        self._lock = threading.Lock()
        self._vocabulary: Any = None
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()

    def compile(self, grammar: Grammar) -> Constraint:
        """At the grammar's beginning. Raises ``InvalidRequestError`` with what is wrong with it."""
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is None:
                matcher = self._compiled[grammar] = self._new_matcher(grammar)
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > _NUM_KEPT:
                self._compiled.popitem(last=False)
        size = self._tokenizer.vocab_size
        guard = NumberGuard(self._digits) if _holds_json(grammar) else None
        return Constraint(matcher.deep_copy(), size, self._tokenizer.end_ids, guard)

    def _new_matcher(self, grammar: Grammar) -> Any:
        if len(grammar.text) > _LARGEST:
            message = f"{grammar.param}: longer than {_LARGEST} characters"
            raise InvalidRequestError(message, grammar.param)
        if self._vocabulary is None:
            self._vocabulary = _vocabulary(self._tokenizer)
        try:
            source = _source(grammar)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRequestError(f"{grammar.param}: {error}", grammar.param) from error
        matcher = llguidance.LLMatcher(self._vocabulary, source, log_level=0)
        if matcher.is_error():
            reason = matcher.get_error().strip().splitlines()[0][:500]
            raise InvalidRequestError(f"{grammar.param}: {reason}", grammar.param)
        return matcher


def _holds_json(grammar: Grammar) -> bool:
    """A schema's text, or calls, whose arguments are JSON."""
    is_schema = grammar.kind in (GrammarKind.JSON_OBJECT, GrammarKind.JSON_SCHEMA)
    return is_schema or grammar.param in ("tools", "response_format")


def _source(grammar: Grammar) -> str:
    """The grammar in llguidance's own form."""
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return _from_schema({"type": "object"})
        case GrammarKind.JSON_SCHEMA:
            return _from_schema(json.loads(grammar.text))
        case GrammarKind.REGEX:
            return llguidance.LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return llguidance.LLMatcher.grammar_from_lark(grammar.text)
        case GrammarKind.GBNF:
            return llguidance.LLMatcher.grammar_from_lark(_from_gbnf(grammar.text))
        case GrammarKind.CHOICE:
            choices = json.loads(grammar.text)
            return _from_choices(choices)


def _from_gbnf(text: str) -> str:
    try:
        lark: str = gbnf_to_lark(text)
    except Exception as error:  # the converter raises whatever its code happens to
        raise ValueError(str(error)) from error
    return lark


def _from_schema(schema: Any) -> str:
    overrides: Any = {"whitespace_pattern": _WHITESPACE, "whitespace_flexible": True}
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=overrides)


def _from_choices(choices: Any) -> str:
    is_list = isinstance(choices, list) and len(choices) > 0
    if not is_list or not all(isinstance(one, str) and one for one in choices):
        raise ValueError("a list of texts is needed, each with a character at least")
    options = " | ".join(json.dumps(one) for one in choices)
    return llguidance.LLMatcher.grammar_from_lark(f"start: {options}")


class _Vocabulary:
    """Our tokenizer in the shape that llguidance reads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.end_ids, default=0)
        self.bos_token_id = None
        self.tokens = [self._token(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [
            i for i, token in enumerate(self.tokens) if token.startswith(_SPECIAL)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode()
        return self._tokenizer.encode(text, add_special=False, parse_special=False)

    def _token(self, token_id: int) -> bytes:
        return self._tokenizer.piece(token_id) or _SPECIAL + f"<|{token_id}|>".encode()


def _vocabulary(tokenizer: Tokenizer) -> Any:
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer))
    ends = sorted(tokenizer.end_ids) or [0]
    return llguidance.LLTokenizer(wrapper, tokenizer.vocab_size, ends)
