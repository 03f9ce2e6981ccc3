"""The engine contract: one loaded model that runs a continuous batch of sequences.

An engine knows nothing of Redis, HTTP or OpenAI. One thread drives it: only that thread calls
``submit``, ``abort``, ``step`` and ``close``. Any thread may call ``interrupt`` and the tokenizer.
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
    """Why an engine ended a sequence."""

    STOP = "stop"  # an end-of-generation token was drawn
    LENGTH = "length"  # max_tokens reached, or the context is full


class Constraint(Protocol):
    """A grammar for the generated text of one sequence, with the current parse state.

    An exception from one of its methods ends this sequence only (``SequenceFailure``).
    """

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """Mask of the allowed next tokens, (vocab_size,), never all False; ``None``: all are."""

    def accept(self, token_id: int) -> None:
        """Advance by the token that the engine has drawn, one of those allowed."""


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
    """Also report the log-probabilities of the prompt, with this many top tokens per position."""
    mirostat_mu: float | None = None
    """Mirostat's ``mu`` at the end of an interrupted earlier attempt; ``None``: start anew."""
    adapter: str | None = None
    """Name of the LoRA adapter for this sequence; ``None``: the one given at load, if any."""
    constraint: Constraint | None = None
    """Grammar in its state at the end of the prompt; not shared with other sequences."""
    num_opening: int | None = None
    """Tokens at its end that open the answer, if known; a next turn may leave them out."""


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. If ``finish`` is set, it is the sequence's last and the slot is free.

    ``is_end`` marks an end-of-generation token, which has no text (``finish`` is then ``STOP``,
    unless the sequence ignores the end). ``logprob`` and ``top_logprobs`` (token id, natural
    logarithm; most likely first) come from the raw logits; they are set only on request.
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

    ``num_cached`` of them came from the prompt cache. One event per chunk; the last one has
    ``num_done == num_total``.
    """

    sequence_id: int
    num_done: int
    num_total: int
    num_cached: int = 0


@dataclass(frozen=True, slots=True)
class SequenceFailure:
    """A sequence that failed: its slot is free. ``code`` and ``param`` are a ``JobError``'s."""

    sequence_id: int
    message: str
    code: str = EngineError.code
    param: str | None = None

    def to_error(self) -> JobError:
        return JobError.from_info(ErrorInfo(self.code, self.message, self.param))


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """Log-probabilities of a prompt's tokens, if requested; sent before the first ``Token``.

    One entry per prompt token but the first: (log-probability, top tokens of its position).
    """

    sequence_id: int
    entries: tuple[tuple[float, tuple[tuple[int, float], ...]], ...]


StepEvent = Token | Prefill | PromptLogprobs | SequenceFailure


class Pooling(StrEnum):
    """How the token vectors of a text are combined into one."""

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
    is_on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Load options for the engine; ``None`` lets the engine choose."""

    context_length: int | None = None
    num_slots: int | None = None
    num_threads: int | None = None
    num_gpu_layers: int | None = None
    is_remote_code_trusted: bool = False
    adapters_dir: Path | None = None
    """Folder of the LoRA adapters; the name of an entry is the name of the adapter."""
    adapter: str | None = None
    """Name of the adapter for every sequence that names none."""
    prompt_cache_bytes: int | None = None
    """Size limit of the prompt cache in memory; 0: no prompt cache."""
    prompt_cache_dir: Path | None = None
    """Folder to which long prefixes are spilled, to outlive the process; ``None``: no spill."""
    draft_path: Path | None = None
    """A smaller model with the same vocabulary that drafts tokens."""
    num_draft_tokens: int | None = None
    """Tokens drafted per step; without ``draft_path``, by prompt lookup."""
    step_budget_s: float = 0.2
    """Approximate time for prefill in one step, so that running sequences keep decoding."""
    kv_bits: int | None = None
    """Quantize the KV cache to this many bits; ``None``: no quantization."""
    kv_layout: KvLayout | None = None
    """Whether all slots share the KV cells (also with ``None``) or each slot has its own."""
    is_cpu_tuned: bool = True
    """On a CPU, use the code paths made for it."""
    memory_bytes: int | None = None
    """What the engine may take; ``None``: all that a GPU has, and no limit on a CPU."""


@dataclass(frozen=True, slots=True)
class FimTokens:
    """Fill-in-the-middle control tokens. The prompt is prefix, text before the gap, suffix, text
    after it, middle; the model goes on with the text of the gap."""

    prefix: int
    suffix: int
    middle: int


class Tokenizer(Protocol):
    """Converts text to token ids and back; any thread may call any method."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a generation."""

    @property
    def bos_token(self) -> str:
        """Text of the beginning-of-sequence token for chat templates; "" if there is none."""

    @property
    def eos_token(self) -> str: ...

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """The model's Jinja chat templates, by name: ``default``, ``tool_use``, ``rag``."""

    @property
    def fim_tokens(self) -> FimTokens | None:
        """The fill-in-the-middle control tokens; ``None``: the model has none."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds the model's special tokens around the text (BOS). ``parse_special``
        turns the text of control tokens (``<|im_end|>``) into those tokens: ``False`` for a user's
        plain text, ``True`` for a rendered chat template.
        """

    def piece(self, token_id: int) -> bytes:
        """UTF-8 bytes of a token, possibly only a part of a character; b"" for control tokens."""

    def control_text(self, token_id: int) -> str:
        """Text of a control token; "" for every other token."""


class Engine(Protocol):
    """One loaded model and its running batch."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def has_work(self) -> bool:
        """True while a submitted sequence has not ended."""

    def check(self, sampling: Sampling) -> None:
        """Raise ``UnsupportedParameterError`` for a parameter that this engine does not support."""

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it starts, in order, when a slot and room in the KV cache are free."""

    def abort(self, sequence_id: int) -> None:
        """Remove a waiting or running sequence at once; unknown ids are ignored."""

    def interrupt(self, sequence_id: int) -> None:
        """Announce an ``abort``: a running step may stop the prefill of this sequence early.

        Any thread may call it, for any id. Stopped prefill of other sequences is done again.
        """

    def step(self) -> list[StepEvent]:
        """Advance the batch: one token per running sequence (more with drafts), one prefill chunk.

        A chunk takes about ``step_budget_s``. Returns [] if there is no work.
        """

    def embed(
        self, inputs: list[list[int]], pooling: Pooling | None, on_piece: OnPiece | None = None
    ) -> list[list[float]]:
        """One vector of length 1 per input of token ids; ``None``: the model's own pooling.

        ``on_piece`` is called before each piece of them. Raises ``InvalidRequestError`` for an
        input longer than the context, ``NoRoomError`` while running sequences have the memory.
        """

    @property
    def cache_bytes(self) -> int:
        """Memory that the backend has freed but keeps for reuse; any thread may read it."""

    @property
    def prompt_cache_bytes(self) -> int:
        """Size of the kept prompts in memory; any thread may read it."""

    @property
    def device_bytes(self) -> int:
        """Memory that the library has on a GPU, if it tells, else 0; any thread may read it."""

    def limit_cache(self, num_bytes: int) -> None:
        """Limit ``cache_bytes``; any thread may call it.

        Raises ``jobs.contract.errors.UnsupportedParameterError`` if the backend keeps no memory.
        """

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""


OnPiece = Callable[[], None]
OnProgress = Callable[[float], None]
"""Called while a model loads, with the loaded fraction from 0.0 to 1.0."""
