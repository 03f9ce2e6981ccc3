"""Usage and timings as answers show them. Pure."""

from __future__ import annotations

from typing import Any

from jobs.contract.events import Timings, Usage


def usage_object(usage: Usage | None, timings: Timings | None = None) -> dict[str, Any]:
    """OpenAI's ``usage``, with the original server's two times in seconds."""
    counts = usage or Usage()
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
        "prompt_eval_time": (timings or Timings()).prefill_ms / 1000,
        "generation_time": (timings or Timings()).decode_ms / 1000,
    }


def timings_object(timings: Timings | None, usage: Usage | None = None) -> dict[str, float]:
    """Where the time went, in milliseconds, and the rates in tokens per second.

    With ``usage``, also under llama-server's names, which interfaces show.
    """
    times = timings or Timings()
    return {
        **(_native_timings(times, usage) if usage is not None else {}),
        "queue_ms": times.queue_ms,
        "prefill_ms": times.prefill_ms,
        "ttft_ms": times.ttft_ms,
        "decode_ms": times.decode_ms,
        "prefill_tokens_per_s": times.prefill_tokens_per_s,
        "decode_tokens_per_s": times.decode_tokens_per_s,
    }


def _native_timings(times: Timings, usage: Usage) -> dict[str, float]:
    """``prompt_n`` counts what was processed, ``cache_n`` what was not."""
    prompt_n, predicted_n = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens
    num_steps = max(predicted_n - 1, 0)  # the first token comes with the prompt
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": times.prefill_ms,
        "prompt_per_token_ms": times.prefill_ms / prompt_n if prompt_n else 0.0,
        "prompt_per_second": times.prefill_tokens_per_s,
        "predicted_n": predicted_n,
        "predicted_ms": times.decode_ms,
        "predicted_per_token_ms": times.decode_ms / num_steps if num_steps else 0.0,
        "predicted_per_second": times.decode_tokens_per_s,
    }
