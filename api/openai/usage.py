"""Usage and timings as answers show them. Pure."""

from __future__ import annotations

from typing import Any

from jobs.events import Timings, Usage


def usage_object(usage: Usage | None) -> dict[str, Any]:
    """OpenAI's ``usage``."""
    counts = usage or Usage()
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.total_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
    }


def timings_object(timings: Timings | None) -> dict[str, float]:
    """Where the time went, in milliseconds, and the rates in tokens per second."""
    times = timings or Timings()
    return {
        "queue_ms": times.queue_ms,
        "prefill_ms": times.prefill_ms,
        "ttft_ms": times.ttft_ms,
        "decode_ms": times.decode_ms,
        "prefill_tokens_per_s": times.prefill_tokens_per_s,
        "decode_tokens_per_s": times.decode_tokens_per_s,
    }
