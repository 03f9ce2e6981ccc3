"""A generation job in a worker: the text of its choices, its usage and timings."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from jobs.contract.events import PromptUsage, Timings, TokenLogprob, Usage
from jobs.contract.records import JobClass
from jobs.contract.requests import GenerateRequest
from workers.engines.base import (
    FinishReason,
    Prefill,
    PromptLogprobs,
    Sequence,
    Token,
    Tokenizer,
)
from workers.generation.echo import Echo, EchoChunk, to_logprob
from workers.generation.ends import Ends
from workers.generation.outbox import Outbox
from workers.markup.reader import Delta, PlainReader, Reader
from workers.text.detokenizer import Detokenizer

TOOL_CALLS = "tool_calls"
"""The finish_reason of an answer that ended with tool calls."""


class Choice:
    """Turns the tokens of one sequence into text, and cuts the text at stop strings.

    ``reader`` splits the text into content, reasoning and tool calls (``None``: all is content, up
    to one of ``stop``). ``echo``: the prompt, if its log-probabilities are to be sent. A choice
    that ``is_only_echoed`` ends with its first token, which is not shown. ``ends``: what else ends
    it, if anything does.
    """

    def __init__(
        self,
        index: int,
        sequence: Sequence,
        stop: list[str],
        tokenizer: Tokenizer,
        echo: Echo | None = None,
        is_only_echoed: bool = False,
        reader: Reader | None = None,
        ends: Ends | None = None,
    ):
        self.index = index
        self.sequence = sequence
        self.is_only_echoed = is_only_echoed
        self.num_tokens = 0
        self.num_reasoning = 0
        self._tokenizer = tokenizer
        self._echo = echo
        self._stop = frozenset(stop)
        self._ends = Ends() if ends is None else ends
        self._detokenizer = Detokenizer()
        self._reader = PlainReader(stop) if reader is None else reader

    def feed(self, token: Token) -> tuple[Delta, str | None]:
        """What the token adds to the answer, and the finish_reason if the choice ends with it."""
        is_stop = self._ends.is_stop(token.token_id, self.num_tokens)
        text = self._text(token.token_id, is_end=token.is_end or is_stop)
        finish = FinishReason.STOP if is_stop else token.finish
        if finish is None:
            text, finish = self._ends.cut(text, self.num_tokens)
        else:
            text += self._detokenizer.finish()
        delta = self._reader.feed(text)
        if finish is not None and not delta.is_over:
            _add(delta, self._reader.finish(is_cut=finish is FinishReason.LENGTH))
        self._count(delta)
        return delta, self._finish_reason(finish, delta)

    @property
    def stop(self) -> str | None:
        """The stop string that ended the choice, if any."""
        return self._reader.stop

    def replay(self, token_ids: Iterable[int]) -> None:
        """Restore the text state from an earlier attempt's tokens; their text has been sent."""
        for token_id in token_ids:
            text = self._text(token_id, is_end=False)
            self._ends.cut(text, self.num_tokens)
            self._count(self._reader.feed(text))

    def _text(self, token_id: int, *, is_end: bool) -> str:
        """What the token adds to the text: only complete characters."""
        self._reader.heed_stops(self._is_long_enough)
        piece = b"" if is_end else self._tokenizer.piece(token_id)
        if piece:
            self._reader.note_piece(piece)
        return self._detokenizer.feed(piece or self._control_piece(token_id, is_end=is_end))

    def _control_piece(self, token_id: int, *, is_end: bool) -> bytes:
        """The text of a control token that is a stop string or markup; b"" for others."""
        if self._stop and self._is_long_enough and not self._reader.is_reasoning:
            text = self._tokenizer.control_text(token_id)
            if text in self._stop:
                return text.encode()
        return self._reader.control_piece(token_id, is_end=is_end)

    @property
    def _is_long_enough(self) -> bool:
        """Whether the next token may end the choice."""
        return self.num_tokens >= self._ends.min_tokens

    def _count(self, delta: Delta) -> None:
        self.num_tokens += 1
        self.num_reasoning += bool(delta.reasoning) or self._reader.is_reasoning

    def _finish_reason(self, finish: FinishReason | None, delta: Delta) -> str | None:
        if finish is FinishReason.LENGTH and not delta.is_over:
            return finish.value
        if finish is None and not delta.is_over:
            return None
        is_called = self._reader.has_calls and self._reader.stop is None
        return TOOL_CALLS if is_called else FinishReason.STOP.value

    def logprob(self, token: Token) -> TokenLogprob | None:
        """The token's log-probability in the form of events; ``None`` if not requested."""
        if token.logprob is None:
            return None
        return to_logprob(self._tokenizer, token.token_id, token.logprob, token.top_logprobs)

    def echo(self, scored: PromptLogprobs) -> list[EchoChunk]:
        """The chunks of the echoed prompt that have not been sent."""
        return self._echo.chunks(scored, self._tokenizer) if self._echo is not None else []


def _add(delta: Delta, more: Delta) -> None:
    delta.reasoning += more.reasoning
    delta.text += more.text
    delta.calls += more.calls
    delta.is_over = more.is_over


@dataclass(slots=True)
class GenerationJob:
    """A running job: its open ``choices`` by sequence id, and the times of its phases.

    Times are ``time.monotonic`` seconds. ``queued_s``: wait in the queue. ``prompt_lengths``:
    number of tokens of each prompt. ``num_generated`` includes the ``num_logged`` tokens of earlier
    attempts. A batch job that ``is_pinned`` does not give way to others.
    """

    job_id: str
    request: GenerateRequest
    outbox: Outbox
    choices: dict[int, Choice]
    prompt_lengths: list[int]
    queued_s: float
    deadline: float
    job_class: JobClass = "interactive"
    caller: str = ""
    weight: float = 1.0
    num_yields: int = 0
    is_pinned: bool = False
    admitted_at: float = field(default_factory=time.monotonic)
    prefilled_at: float | None = None
    first_token_at: float | None = None
    num_generated: int = 0
    num_reasoning: int = 0
    num_logged: int = 0
    _cached_of: dict[int, int] = field(default_factory=dict)  # by prompt
    _prefilled_of: dict[int, int] = field(default_factory=dict)  # by prompt

    @property
    def sequence_ids(self) -> Iterable[int]:
        return tuple(self.choices)

    def note_prefill(self, choice: int, progress: Prefill) -> None:
        """Note the progress of a choice's prefill; at its end, the number of cached tokens.

        Only a prompt's first choice counts: the others find the first one's state in the cache. A
        later attempt may find more than the prompt: also the answer so far.
        """
        prompt = choice // self.request.num_choices
        self._prefilled_of[prompt] = min(progress.num_done, self.prompt_lengths[prompt])
        if progress.num_done == progress.num_total:
            self.prefilled_at = time.monotonic()
            cached = min(progress.num_cached, self.prompt_lengths[prompt])
            self._cached_of.setdefault(prompt, cached)

    @property
    def num_sequences(self) -> int:
        return len(self.choices)

    @property
    def is_reading(self) -> bool:
        """Whether its prompt is being read, or waits for that."""
        return self.first_token_at is None

    @property
    def num_since_start(self) -> int:
        """Tokens of this attempt."""
        return self.num_generated - self.num_logged

    @property
    def num_read(self) -> int:
        """Prompt tokens that had to be read; all of them, as long as that is unknown."""
        if self.prefilled_at is None:
            return self.num_prompt_tokens
        return max(self.num_prefilled - self.num_cached, 0)

    @property
    def num_prompt_tokens(self) -> int:
        return sum(self.prompt_lengths)

    @property
    def num_cached(self) -> int:
        return sum(list(self._cached_of.values()))  # a list at once: other threads read it, too

    @property
    def num_prefilled(self) -> int:
        """Prompt tokens that were read or found in the prompt cache so far."""
        return sum(list(self._prefilled_of.values()))

    def show(self, choice: Choice, token: Token) -> str | None:
        """Add the token to the outbox; returns the finish_reason if the choice ends with it."""
        if choice.is_only_echoed:
            finish_reason: str | None = FinishReason.LENGTH.value
            self.outbox.chunk(choice.index, None, "", finish_reason=finish_reason)
            return finish_reason
        self._note_token()
        num_reasoning = choice.num_reasoning
        delta, finish_reason = choice.feed(token)
        self.num_reasoning += choice.num_reasoning - num_reasoning
        self.outbox.chunk(
            choice.index,
            token.token_id,
            delta.text,
            choice.logprob(token),
            finish_reason,
            token.mirostat_mu,
            choice.stop,
            delta.reasoning,
            delta.calls,
        )
        return finish_reason

    def _note_token(self) -> None:
        self.num_generated += 1
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()

    @property
    def usage(self) -> Usage:
        return Usage(
            self.num_prompt_tokens,
            self.num_generated,
            self.num_cached,
            self.num_reasoning,
            self._prompt_usages() if len(self.prompt_lengths) > 1 else [],
        )

    def _prompt_usages(self) -> list[PromptUsage]:
        return [
            PromptUsage(length, self._cached_of.get(prompt, 0))
            for prompt, length in enumerate(self.prompt_lengths)
        ]

    def timings(self) -> Timings:
        now = time.monotonic()
        first = self.first_token_at or now
        prefill_s = (self.prefilled_at or first) - self.admitted_at
        decode_s = now - first
        return Timings(
            queue_ms=round(self.queued_s * 1000, 3),
            prefill_ms=round(prefill_s * 1000, 3),
            ttft_ms=round((self.queued_s + first - self.admitted_at) * 1000, 3),
            decode_ms=round(decode_s * 1000, 3),
            prefill_tokens_per_s=_rate(self.num_prompt_tokens - self.num_cached, prefill_s),
            decode_tokens_per_s=_rate(self.num_generated - 1, decode_s),
        )


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else 0.0
