"""What an engine is: one loaded model that runs a continuous batch of sequences.

An engine knows no Redis, no HTTP and no OpenAI. It is driven by one thread, which alone calls
``submit``, ``abort``, ``step`` and ``close``; ``interrupt`` and the tokenizer may be used from any
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jobs.contract.errors import EngineError, ErrorInfo, JobError
from jobs.contract.requests import KvLayout
from jobs.contract.sampling import Sampling


class FinishReason(StrEnum):
    """Why an engine ended a sequence by itself."""

    STOP = "stop"  # an end-of-generation token was drawn
    LENGTH = "length"  # max_tokens reached, or the context is full


class Constraint(Protocol):
    """A grammar that a text has to follow, and where the text stands in it.

    What its methods raise ends its sequence, and no other (``SequenceFailure``).
    """

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Which tokens may come next, shape (vocab_size,), at least one; ``None``: any."""
        ...

    def accept(self, token_id: int) -> None:
        """The engine has drawn this token, one of those allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Sequence:
    """A prompt to continue: one choice of one job.

    ``prompt`` holds token ids, at least one, fewer than the context length. ``max_tokens`` >= 1 is
    the number of tokens to generate beyond the prompt.
    """

    sequence_id: int
    prompt: ListLike[int]
    max_tokens: int
    sampling: Sampling
    num_prompt_logprobs: int | None = None
    """Also report the prompt's own log-probabilities, each with so many of the likeliest."""
    mirostat_mu: float | None = None
    """Where mirostat stood when an earlier attempt was cut; ``None``: at its beginning."""
    adapter: str | None = None
    """Name of the LoRA adapter for this sequence; ``None``: what the model was loaded with."""
    constraint: Constraint | None = None
    """What the text has to look like, at the place where the prompt ends; it is this sequence's."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. With ``finish`` set it is the sequence's last, and the slot is free.

    ``is_end`` marks an end-of-generation token, which has no text (``finish`` is then ``STOP``,
    unless the sequence ignores the end). ``logprob`` and ``top_logprobs`` (token id, natural
    logarithm; most likely first) come from the raw logits, and only for who asked.
    """

    sequence_id: int
    token_id: int
    finish: FinishReason | None = None
    is_end: bool = False
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    mirostat_mu: float | None = None


@dataclass(frozen=True, slots=True)
class Prefill:
    """Progress of one prompt: ``num_done`` of ``num_total`` tokens are in the KV cache.

    ``num_cached`` of them were there already. One event per chunk, the last with done == total.
    """

    sequence_id: int
    num_done: int
    num_total: int
    num_cached: int = 0


@dataclass(frozen=True, slots=True)
class SequenceFailure:
    """A sequence that the engine had to give up; its slot is free and its neighbours run on.

    ``code`` and ``param`` are those of a ``JobError``.
    """

    sequence_id: int
    message: str
    code: str = EngineError.code
    param: str | None = None

    def to_error(self) -> JobError:
        return JobError.from_info(ErrorInfo(self.code, self.message, self.param))


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log-probabilities of a prompt's tokens, for a sequence that asked; before its first token.

    One entry per prompt token but the first, which nothing predicts: (log-probability of the
    token, the likeliest at its place as (token id, log-probability)).
    """

    sequence_id: int
    entries: tuple[tuple[float, tuple[tuple[int, float], ...]], ...]


StepEvent = Token | Prefill | PromptLogprobs | SequenceFailure


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Facts about a loaded model. ``context_length`` is the longest sequence, in tokens."""

    backend: str
    context_length: int
    num_slots: int
    vocab_size: int
    architecture: str = ""
    quantization: str = ""
    num_parameters: int | None = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Load options that concern the engine; ``None`` lets the engine choose."""

    context_length: int | None = None
    num_slots: int | None = None
    num_threads: int | None = None
    num_gpu_layers: int | None = None
    is_remote_code_trusted: bool = False
    adapters_dir: Path | None = None
    """Where LoRA adapters lie; their names are its entries."""
    adapter: str | None = None
    """Name of the adapter to apply to every sequence that names none."""
    prompt_cache_bytes: int | None = None
    """Room for kept KV state of ended sequences; 0: keep none."""
    prompt_cache_dir: Path | None = None
    """Where long prefixes are spilled, to outlive the process; ``None``: nowhere."""
    draft_path: Path | None = None
    """A smaller model of the same vocabulary that drafts tokens."""
    num_draft_tokens: int | None = None
    """Tokens drafted per step; with no ``draft_path`` they are looked up in the prompt."""
    step_budget_s: float = 0.25
    """About how long a step may read prompts while others decode."""
    kv_bits: int | None = None
    """Quantize the KV cache to so many bits; ``None``: keep it as it is."""
    kv_layout: KvLayout | None = None
    """Whether slots share the KV cells (``None``: they do) or each has its own."""
    is_cpu_tuned: bool = True
    """On a CPU, compute in ways made for it."""


@dataclass(frozen=True, slots=True)
class FimTokens:
    """Control tokens of a model that fills gaps, put before the text ahead of the gap, before the
    text behind it, and last, where the model goes on with what belongs between them."""

    prefix: int
    suffix: int
    middle: int


class Tokenizer(Protocol):
    """Text to token ids and back; every method may be called from any thread."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a generation."""
        ...

    @property
    def bos_token(self) -> str:
        """Text of the beginning-of-sequence token, "" when the model has none (for templates)."""
        ...

    @property
    def eos_token(self) -> str: ...

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """The model's own Jinja chat templates by name (``default``, ``tool_use``, ``rag``)."""
        ...

    @property
    def fim_tokens(self) -> FimTokens | None:
        """How the model is told of a gap in a text; ``None``: it cannot fill one."""
        ...

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds what the model wants around a text (BOS); ``parse_special`` reads the
        text of control tokens (``<|im_end|>``) as those tokens. A user's plain text is encoded
        with ``parse_special=False``, a rendered chat template with ``True``.
        """
        ...

    def piece(self, token_id: int) -> bytes:
        """UTF-8 bytes of one token, possibly a part of a character; b"" for control tokens."""
        ...

    def control_text(self, token_id: int) -> str:
        """The text that stands for a control token, "" for every other token."""
        ...


class Engine(Protocol):
    """One loaded model and its running batch."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def has_work(self) -> bool:
        """True while any submitted sequence has neither finished nor been aborted."""
        ...

    def check(self, sampling: Sampling) -> None:
        """Raise ``UnsupportedParameterError`` for what this engine cannot honour."""
        ...

    def submit(self, sequence: Sequence) -> None:
        """Take a sequence; it starts when a slot and room in the KV cache are free, in order."""
        ...

    def abort(self, sequence_id: int) -> None:
        """Forget a sequence, waiting or running, at once; unknown ids are ignored."""
        ...

    def interrupt(self, sequence_id: int) -> None:
        """The sequence is about to be aborted: a step that reads its prompt may break that off.

        Any thread may call it, for any id. What was broken off is read again, if it is wanted.
        """
        ...

    def step(self) -> list[StepEvent]:
        """Advance the batch: at most one token per running sequence, plus a chunk of prefill.

        Bounded in time (prefill in chunks of about ``step_budget_s``). Returns [] without work.
        """
        ...

    def embed(self, inputs: list[list[int]], pooling: Pooling | None) -> list[list[float]]:
        """One normalised vector per input of token ids; ``None``: the model's own pooling.

        Raises ``jobs.contract.errors.InvalidRequestError`` for an input beyond the context.
        """
        ...

    @property
    def cache_bytes(self) -> int:
        """Memory that the backend has freed but keeps for reuse; from any thread."""
        ...

    def limit_cache(self, num_bytes: int) -> None:
        """Keep no more than that; from any thread.

        Raises ``jobs.contract.errors.UnsupportedParameterError`` where the backend keeps none.
        """
        ...

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""
        ...


OnProgress = Callable[[float], None]
"""Called with the loaded fraction, 0.0 to 1.0, while a model loads."""
