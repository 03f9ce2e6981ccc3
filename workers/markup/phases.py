"""The constraint of an answer with a grammar per part: reasoning, content, tool calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

import numpy as np

from workers.engines.base import Tokenizer
from workers.markup.splitter import Layout
from workers.text.grammar import Constraint, ConstraintMaker
from workers.text.matcher import Mask

_TAIL = 64  # bytes; longer than any marker


@dataclass(frozen=True, slots=True)
class Plan:
    """The constraints of an answer's parts.

    ``budget``: maximum number of tokens of the reasoning. ``then``: the constraint of everything
    after the reasoning. ``call_constraints``: by the start of a format, makes the constraint of the
    call after it.
    ``opened``: the marker that the prompt ends with.
    """

    layout: Layout
    budget: int | None = None
    then: Constraint | None = None
    call_constraints: Mapping[str, ConstraintMaker] = field(default_factory=dict)
    opened: str = ""


class _Phase(Enum):
    FREE = auto()
    THINKING = auto()
    CALL = auto()
    THEN = auto()


class Phases:
    """Follows one answer through its plan, token by token; a ``Constraint`` for engines.

    Raises ``GrammarError`` if a grammar fails, or if the token that ends the reasoning also has
    text that the grammar of the answer does not allow.
    """

    def __init__(self, plan: Plan, tokenizer: Tokenizer) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._tail = b""
        self._length = 0  # bytes of all tokens, of which the last are the tail
        self._tokens = {one.encode() for one in plan.layout.tokens}
        self._token_places: deque[int] = deque(maxlen=_TAIL)  # where they were written
        self._by_token = plan.layout.by_token
        self._num_reasoning = 0
        self._forced: list[int] = []  # the next tokens, which end the reasoning
        self._call: Constraint | None = None
        self._may_think = plan.then is None or plan.layout.is_thinking
        self._phase = _Phase.THINKING if plan.layout.is_thinking else self._after_thinking
        self._watch_budget()
        if plan.opened in plan.call_constraints:
            self._begin_call(plan.call_constraints[plan.opened](), "")

    def allowed(self) -> Mask | None:
        """See ``engines.base.Constraint``."""
        if self._forced:
            mask = np.zeros(self._tokenizer.vocab_size, np.bool_)
            mask[self._forced[0]] = True
            return mask
        if self._phase is _Phase.CALL and self._call is not None:
            return self._call.allowed()
        if self._phase is _Phase.THEN and self._plan.then is not None:
            return self._plan.then.allowed()
        if self._phase is _Phase.THINKING and self._plan.then is not None:
            return self._without_end
        return None

    @cached_property
    def _without_end(self) -> Mask:
        """All tokens but the end tokens: reasoning before a constrained answer must not end it."""
        mask = np.ones(self._tokenizer.vocab_size, np.bool_)
        mask[sorted(self._tokenizer.end_ids)] = False
        return mask

    def accept(self, token_id: int) -> None:
        """See ``engines.base.Constraint``."""
        if self._phase is _Phase.CALL and self._call is not None:
            self._call.accept(token_id)
            if self._call.is_complete:
                self._enter(_Phase.FREE)
        elif self._phase is _Phase.THEN and self._plan.then is not None:
            self._plan.then.accept(token_id)
        else:
            self._accept_free(token_id)

    @property
    def _after_thinking(self) -> _Phase:
        return _Phase.FREE if self._plan.then is None else _Phase.THEN

    def _accept_free(self, token_id: int) -> None:
        self._forced = self._forced[1:]
        piece = self._tokenizer.piece(token_id) or self._tokenizer.control_text(token_id).encode()
        if piece in self._tokens:
            self._token_places.append(self._length)
        self._tail = (self._tail + piece)[-_TAIL:]
        self._length += len(piece)
        if self._phase is _Phase.THINKING:
            self._num_reasoning += 1
            self._watch_budget()
        self._watch_markers()

    def _watch_budget(self) -> None:
        plan = self._plan
        is_spent = plan.budget is not None and self._num_reasoning >= plan.budget
        if (
            self._phase is _Phase.THINKING
            and plan.layout.thinking
            and is_spent
            and not self._forced
        ):
            end = f"\n{plan.layout.thinking.end}"
            self._forced = self._tokenizer.encode(end, add_special=False, parse_special=True)

    def _watch_markers(self) -> None:
        thinking = self._plan.layout.thinking
        if thinking is not None and self._phase is _Phase.THINKING:
            if (rest := self._text_after(thinking.end)) is not None:
                self._enter(self._after_thinking)
                self._may_think = self._plan.layout.is_interleaved
                self._begin_answer(rest)
            return
        for marker in self._plan.layout.calls:
            start = marker.call_format.start
            new_call = None if marker.is_kept else self._plan.call_constraints.get(start)
            if new_call is not None and (rest := self._text_after(marker.text)) is not None:
                self._may_think = self._plan.layout.is_interleaved
                self._begin_call(new_call(), marker.text[len(start) :] + rest)
                return
        if thinking is not None and self._may_think:
            self._watch_thoughts(thinking.start)

    def _watch_thoughts(self, start: str) -> None:
        """Reasoning starts at the beginning of an answer; in some dialects also later."""
        if self._text_after(start) is not None:
            self._enter(_Phase.THINKING)
            self._watch_budget()
        elif not self._plan.layout.is_interleaved:
            written = self._tail.decode(errors="replace").lstrip()
            dropped = self._plan.layout.dropped
            self._may_think = start.startswith(written) or any(
                n.startswith(written) for n in dropped
            )

    def _text_after(self, marker: str) -> str | None:
        """The text after the marker in the last tokens; ``None`` if they do not contain it."""
        wanted = marker.encode()
        found = self._tail.find(wanted)
        while found >= 0 and marker in self._by_token and not self._is_token(found):
            found = self._tail.find(wanted, found + 1)
        return self._tail[found + len(wanted) :].decode(errors="replace") if found >= 0 else None

    def _is_token(self, place: int) -> bool:
        """Whether a token of the markup begins at this place of the tail."""
        return self._length - len(self._tail) + place in self._token_places

    def _begin_answer(self, rest: str) -> None:
        then = self._plan.then
        if then is not None and not self._accept_text(then, rest):
            raise then.error("the last token of the reasoning contains text that is not allowed")

    def _begin_call(self, call: Constraint, rest: str) -> None:
        """Constrain a call, unless its token already has other text: then it becomes content."""
        self._enter(_Phase.CALL)
        self._call = call if self._accept_text(call, rest) else None

    def _accept_text(self, constraint: Constraint, rest: str) -> bool:
        """Whether the constraint could be brought past what a token held of its text already."""
        rest = rest.lstrip()
        ids = self._tokenizer.encode(rest, add_special=False, parse_special=False) if rest else []
        return constraint.accept_all(ids)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._tail, self._forced, self._call = b"", [], None
