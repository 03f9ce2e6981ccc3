"""Grammars as masks over the vocabulary: which tokens may come next.

One implementation for all engines, by llguidance. A grammar that cannot be honoured to the letter
is refused by what it asks for; of JSON schemas, keywords that only narrow are left out, which the
API says beside the answer.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark

from jobs.contract.errors import GrammarError, InvalidRequestError
from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.schemas import loosen
from workers.engines.base import Tokenizer
from workers.text.matcher import SCHEMA_LIMITS, TEXT_LIMITS, Mask, Matcher, reason_of
from workers.text.number_guard import DigitTokens, NumberGuard

# At most one space or line break: a small model might write white space without end.
_WHITESPACE = r"[ \n]?"
_SPECIAL = b"\xff"  # llguidance's prefix for special tokens
_BEFORE = "\x02"  # no token continues it
_NUM_KEPT = 64
_MAX_LENGTH = 200_000  # characters


class Constraint:
    """A grammar with the parse state of one text; ``guard`` limits the length of JSON numbers.

    Every method raises ``GrammarError`` if the grammar fails, and in every later call.
    """

    def __init__(
        self,
        matcher: Matcher,
        vocab_size: int,
        end_ids: frozenset[int],
        guard: NumberGuard | None = None,
    ) -> None:
        self._guard = guard
        self._matcher = matcher
        self._end_ids = list(end_ids)
        self._vocab_size = vocab_size

    def allowed(self) -> Mask:
        """See ``engines.base.Constraint``; at the end of the grammar, the end tokens."""
        mask = self._matcher.mask()
        if mask is not None:
            return mask if self._guard is None else self._guard.narrow(mask)
        mask = np.zeros(self._vocab_size, np.bool_)
        mask[self._end_ids] = True
        return mask

    def accept(self, token_id: int) -> None:
        """Advance by a token that was allowed."""
        if self._guard is not None:
            self._guard.accept(token_id)
        self._matcher.accept(token_id)

    def accept_all(self, token_ids: list[int]) -> bool:
        """Advance by all these tokens; False, with nothing changed, if one is not allowed."""
        matcher = self._matcher.copy_after(token_ids)
        if matcher is None:
            return False
        self._matcher = matcher
        if self._guard is not None:
            for token_id in token_ids:
                self._guard.accept(token_id)
        return True

    def error(self, reason: str) -> GrammarError:
        """The error for a text that cannot continue with this grammar."""
        return self._matcher.error(reason)

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.may_end


ConstraintMaker = Callable[[], Constraint]


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the last ones; any thread may use it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._digits = DigitTokens(tokenizer)
        self._lock = threading.Lock()
        self._vocabulary: Any = None
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()

    def compile(self, grammar: Grammar) -> Constraint:
        """A constraint in its initial state. Raises ``InvalidRequestError`` with the reason."""
        return self.prepare(grammar)()

    def prepare(self, grammar: Grammar) -> ConstraintMaker:
        """Compile now; the result makes constraints in their initial state, fast, on any thread.

        Raises ``InvalidRequestError`` with the reason.
        """
        native = self._compiled_matcher(grammar)
        size, end_ids = self._tokenizer.vocab_size, self._tokenizer.end_ids

        def new_constraint() -> Constraint:
            guard = NumberGuard(self._digits) if _contains_json(grammar) else None
            matcher = Matcher(native.deep_copy(), grammar.param, size)
            return Constraint(matcher, size, end_ids, guard)

        return new_constraint

    def _compiled_matcher(self, grammar: Grammar) -> Any:
        """llguidance's matcher in its initial state; callers copy it."""
        with self._lock:
            native = self._compiled.get(grammar)
            if native is None:
                native = self._compiled[grammar] = self._new_matcher(grammar)
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > _NUM_KEPT:
                self._compiled.popitem(last=False)
        return native

    def _new_matcher(self, grammar: Grammar) -> Any:
        if len(grammar.text) > _MAX_LENGTH:
            message = f"{grammar.param}: longer than {_MAX_LENGTH} characters"
            raise InvalidRequestError(message, grammar.param)
        if self._vocabulary is None:
            self._vocabulary = _vocabulary(self._tokenizer)
            self._digits.find()
        try:
            source = _source(grammar)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidRequestError(f"{grammar.param}: {error}", grammar.param) from error
        limits = SCHEMA_LIMITS if _contains_json(grammar) else TEXT_LIMITS
        matcher = llguidance.LLMatcher(self._vocabulary, source, log_level=0, limits=limits)
        if matcher.is_error():
            raise InvalidRequestError(f"{grammar.param}: {reason_of(matcher)}", grammar.param)
        return matcher


def _contains_json(grammar: Grammar) -> bool:
    """Whether the text contains JSON: the text of a schema, or tool calls with arguments."""
    is_schema = grammar.kind in (GrammarKind.JSON_OBJECT, GrammarKind.JSON_SCHEMA)
    return is_schema or grammar.param in ("tools", "response_format")


def _source(grammar: Grammar) -> str:
    """The grammar in llguidance's format."""
    match grammar.kind:
        case GrammarKind.JSON_OBJECT:
            return _from_schema({"type": "object"})
        case GrammarKind.JSON_SCHEMA:
            return _from_schema(loosen(json.loads(grammar.text)).schema)
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
    except Exception as error:  # the converter may raise anything
        raise ValueError(str(error)) from error
    return lark


def _from_schema(schema: Any) -> str:
    overrides: Any = {
        "whitespace_pattern": _WHITESPACE,
        "whitespace_flexible": True,
        "coerce_one_of": True,
    }
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=overrides)


def _from_choices(choices: Any) -> str:
    is_list = isinstance(choices, list) and len(choices) > 0
    if not is_list or not all(isinstance(one, str) and one for one in choices):
        raise ValueError("must be a list of texts that are not empty")
    options = " | ".join(json.dumps(one) for one in choices)
    return llguidance.LLMatcher.grammar_from_lark(f"start: {options}")


class _Vocabulary:
    """Our tokenizer with the interface that llguidance needs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.end_ids, default=0)
        self.bos_token_id = None
        self.tokens = [self._token(i) for i in range(tokenizer.vocab_size)]
        self.special_token_ids = [
            i for i, token in enumerate(self.tokens) if token.startswith(_SPECIAL)
        ]

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of ``text``; their bytes joined are the text, as llguidance requires.

        SentencePiece tokenizers add a space at the beginning of a text, which must not be here.
        """
        data = text if isinstance(text, bytes) else text.encode()
        ids = self._encode(data.decode())
        if self._bytes(ids) == data:
            return ids
        before = self._encode(_BEFORE)
        behind = self._encode(_BEFORE + data.decode())
        rest = behind[len(before) :]
        is_found = behind[: len(before)] == before and self._bytes(rest) == data
        return rest if is_found else self._longest_first(data)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=False)

    def _bytes(self, ids: list[int]) -> bytes:
        return b"".join(map(self._tokenizer.piece, ids))

    def _longest_first(self, data: bytes) -> list[int]:
        """Tokens of the bytes, the longest each time, up to the first byte without a token."""
        ids: list[int] = []
        place = 0
        while place < len(data):
            ends = range(min(len(data), place + self._longest), place, -1)
            end = next((end for end in ends if data[place:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[data[place:end]])
            place = end
        return ids

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: i for i, token in enumerate(self.tokens) if not token.startswith(_SPECIAL)}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=0)

    def _token(self, token_id: int) -> bytes:
        return self._tokenizer.piece(token_id) or _SPECIAL + f"<|{token_id}|>".encode()


def _vocabulary(tokenizer: Tokenizer) -> Any:
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer))
    ends = sorted(tokenizer.end_ids) or [0]
    return llguidance.LLTokenizer(wrapper, tokenizer.vocab_size, ends)
