"""Answers of the generation routes, as OpenAPI shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length", "tool_calls"]
ServiceTier = Literal["default", "flex", "priority"]


class CachedTokens(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    cached_tokens: int


class ReasoningTokens(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    reasoning_tokens: int


class UsageAnswer(BaseModel):
    """Token counts, summed over prompts and choices; the two times in seconds."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens
    prompt_eval_time: float
    generation_time: float


class TimingsAnswer(BaseModel):
    """Milliseconds and tokens per second; llama-server's names first."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    queue_ms: float
    prefill_ms: float
    ttft_ms: float
    decode_ms: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class LogprobEntry(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobEntry(LogprobEntry):
    """Part of an answer: see OpenAI's reference."""

    top_logprobs: list[LogprobEntry]


class ChatLogprobs(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    content: list[TokenLogprobEntry]
    refusal: str | None


class TextLogprobs(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CalledFunction(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    name: str
    arguments: str


class CallObject(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(BaseModel):
    """Part of an answer: see OpenAI's reference. ``reasoning`` says ``reasoning_content`` again."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallObject] | None = None


class ChatChoice(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class TextChoice(BaseModel):
    """Part of an answer: see OpenAI's reference."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """A whole answer to a chat; ``id`` is the job's."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[ChatChoice]
    usage: UsageAnswer
    timings: TimingsAnswer


class TextCompletion(BaseModel):
    """A whole text completion; ``id`` is the job's."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    service_tier: ServiceTier
    choices: list[TextChoice]
    usage: UsageAnswer
    timings: TimingsAnswer


class JobAccepted(BaseModel):
    """The answer to a request that runs in the background."""

    id: str
    object: Literal["job"]
    status: Literal["queued"]
