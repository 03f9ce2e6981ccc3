"""What engines choose at load where a request leaves it to them; the estimates count with it."""

from __future__ import annotations

DEFAULT_SLOTS = 8
DEFAULT_CONTEXT_LENGTH = 8192  # longer only on request, because of the size of the KV cache
DEFAULT_DRAFTS = 4  # per step of a GGUF model with a draft model
SCORED_ROWS = 32  # GGUF: prompt tokens per step that may output logits: each needs a buffer row
SHARED_CELLS = 16384  # GGUF: KV cells that all slots share, unless one context alone is longer
CELLS_UNIT = 256  # llama.cpp rounds numbers of cells up to a multiple; MLX grows by as many tokens
# MLX on a CPU: limit of quantized weights that are kept expanded: all of 30 million parameters.
EXPANDED_BYTES = 128 << 20

_MAX_PROMPT_CACHE_BYTES = 2 << 30
_PROMPT_CACHE_SHARE = {"mlx": 10, "llama-cpp": 16}  # one part in so many of the memory


def context_length(trained: int | None, requested: int | None) -> int:
    """The longest sequence, in tokens; ``trained``: what the model's files say."""
    if requested is not None:
        return requested
    return min(trained or DEFAULT_CONTEXT_LENGTH, DEFAULT_CONTEXT_LENGTH)


def num_shared_cells(length: int, num_slots: int, original_length: int | None) -> int:
    """Number of KV cells of a GGUF model that all slots share.

    ``original_length``: before the model's long-context training, if it has RoPE factors for both.
    """
    num_cells = min(length * num_slots, max(length, SHARED_CELLS))
    # llama.cpp chooses the short or long RoPE factors of a long-context model by the number of
    # all cells: for a short context, stay within the limit for the short factors.
    if original_length is not None and length <= original_length:
        num_cells = min(num_cells, original_length)
    return num_cells


def prompt_cache_bytes(backend: str, requested: int | None, memory_bytes: int) -> int:
    """Size limit of the prompt cache, on a machine with ``memory_bytes``."""
    if requested is not None:
        return requested
    return min(_MAX_PROMPT_CACHE_BYTES, memory_bytes // _PROMPT_CACHE_SHARE[backend])


def num_drafts(requested: int | None, *, has_draft_model: bool) -> int:
    """Tokens to draft per step; 0: no drafting. Of MLX models, only whether there are any."""
    if requested is not None:
        return requested
    return DEFAULT_DRAFTS if has_draft_model else 0
