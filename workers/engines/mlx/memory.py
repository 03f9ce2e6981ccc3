"""The memory of MLX in this process: a worker's share, or what its GPU has; and what fits into it.

MLX counts weights, states and passes together (``get_active_memory``), and what it has freed but
keeps for reuse, the pool. Its own limit only lets it give back the pool sooner: what does not fit
must not be computed.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass

import mlx.core as mx

from jobs.contract.errors import InsufficientMemoryError
from workers.engines.mlx import device, library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.state_size import StateSize
from workers.engines.mlx.library import Model
from workers.engines.shared.memory_text import to_text

_LARGEST_POOL = 2 << 30
_POOL_SHARE = 16  # the pool is at most this part of the limit
_FIRST_PASS, _SECOND_PASS = 32, 96  # tokens of the measured passes
_SMALLEST_PIECE = 32  # tokens; a piece of a prompt is not made smaller for memory
_CAUTION = 1.5  # other lengths take other kernels
# A batch is copied when rows join and leave it; a state alone grows layer by layer.
_COPIES, _COPIES_ALONE = 2.0, 1.25
_BYTES_PER_LOGIT = 32  # of a row that is drawn: float32, sorted, with indices


class Memory:
    """The limit of this process; ``limit_bytes`` ``None``: MLX's own, on a CPU without a share."""

    def __init__(self, share_bytes: int | None = None) -> None:
        """Sets MLX's limits. ``share_bytes``: what a model may take, ``None``: all of a GPU."""
        found = [bound for bound in (share_bytes, device.memory_bytes()) if bound]
        self.limit_bytes: int | None = None
        self.pool_bytes = 0
        self.aside_bytes = 0
        if found:
            # Other models of this process do not count; workers have one.
            self.limit_bytes = min(found) + int(mx.get_active_memory())
            self.pool_bytes = min(_LARGEST_POOL, min(found) // _POOL_SHARE)
            self._before = (
                mx.set_memory_limit(self.limit_bytes),
                mx.set_cache_limit(self.pool_bytes),
            )

    @property
    def free_bytes(self) -> int | None:
        """What can be taken besides the pool; ``None``: no limit."""
        if self.limit_bytes is None:
            return None
        return self.limit_bytes - self.pool_bytes - int(mx.get_active_memory())

    def check(self, num_bytes: int, name: str) -> None:
        """Raise ``InsufficientMemoryError`` if the weights of the model ``name`` do not fit."""
        free_bytes = self.free_bytes
        if free_bytes is not None and num_bytes > free_bytes:
            raise InsufficientMemoryError(
                f"{name}: its weights take {to_text(num_bytes)}, {to_text(free_bytes)} are there: "
                "choose a smaller model or quantization, or unload others"
            )

    def set_aside(self, num_bytes: int) -> None:
        """Leave so much of the limit to what is not MLX's."""
        if self.limit_bytes is not None:
            self.limit_bytes -= num_bytes
            self.aside_bytes += num_bytes

    def trim_pool(self) -> None:
        """Give the pool back if it is larger than it may be; without a limit always."""
        if self.limit_bytes is None or mx.get_cache_memory() > self.pool_bytes:
            mx.clear_cache()

    def close(self) -> None:
        """Give back what is free, and undo the limits."""
        if device.is_gpu():
            mx.synchronize()
            mx.set_wired_limit(0)
        mx.clear_cache()
        if self.limit_bytes is not None:
            mx.set_memory_limit(self._before[0])
            mx.set_cache_limit(self._before[1])
            self.limit_bytes = None


@dataclass(frozen=True, slots=True)
class PassCost:
    """Memory that a pass takes besides states: per token, and per pair of it and one before."""

    token_bytes: float
    pair_bytes: float

    def bytes_for(self, num_tokens: int, num_total: int) -> int:
        """Of a pass of ``num_tokens`` after which the state has ``num_total``."""
        return int(num_tokens * (self.token_bytes + self.pair_bytes * num_total))


def measure_pass(model: Model, size: StateSize, context_length: int) -> PassCost:
    """Compute two passes of different lengths, which also prepares a GPU's kernels."""
    cache = library.new_cache(model)
    costs, num_done = [], 0
    for num_tokens in (_FIRST_PASS, _SECOND_PASS):
        num_tokens = min(num_tokens, context_length - num_done)
        if num_tokens <= 0:
            break
        before, held = mx.get_active_memory(), size.bytes_for(num_done)
        mx.reset_peak_memory()
        model(mx.zeros((1, num_tokens), dtype=mx.uint32), cache=cache)
        mx.eval(kv.arrays(cache))
        num_done += num_tokens
        grown = size.bytes_for(num_done) - held
        costs.append(max(mx.get_peak_memory() - before - grown, 0) / num_tokens)
    mx.clear_cache()
    more = max(costs[-1] - costs[0], 0.0) / num_done
    return PassCost(_CAUTION * costs[0], _CAUTION * more)


class StateRoom:
    """What is left for the states of sequences, running and kept."""

    def __init__(
        self,
        memory: Memory,
        size: StateSize,
        cost: PassCost,
        *,
        num_drawn: int,
        vocab_size: int,
        context_length: int,
        draft_size: StateSize | None = None,
    ) -> None:
        """``num_drawn``: rows that are drawn in one step; ``context_length``: the longest one."""
        self._memory = memory
        self._size = size
        self._draft_size = draft_size
        self._cost = cost
        self._logit_bytes = _BYTES_PER_LOGIT * vocab_size
        self._in_flight = 2 if device.is_gpu() else 1  # pieces, see ``batch/prefill.py``
        passes = self._in_flight * cost.bytes_for(_SMALLEST_PIECE, context_length)
        free_bytes = memory.free_bytes
        assert free_bytes is not None, "only a limited memory has room"
        self.num_bytes = free_bytes - passes - num_drawn * self._logit_bytes

    def needed(self, lengths: ListLike[int]) -> int:
        """Memory of a batch of sequences of these lengths: all rows are of the longest."""
        if not lengths:
            return 0
        longest = max(lengths)
        copies = _COPIES * len(lengths) if len(lengths) > 1 else _COPIES_ALONE
        if not self._size.can_trim:  # a copy of the prompt's state is kept from the start
            copies = _COPIES * len(lengths) + 1
        drafts = 0 if self._draft_size is None else self._draft_size.bytes_for(longest)
        return int(copies * self._size.bytes_for(longest)) + drafts

    def left(self, lengths: ListLike[int]) -> int:
        """What kept states may take beside sequences of these lengths; negative if these do not
        fit."""
        return self.num_bytes - self.needed(lengths)

    def longest(self, num_sequences: int, limit: int) -> int:
        """Length at which that many sequences fit, at most ``limit``; 0 if they do not."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.left([middle] * num_sequences) >= 0:
                low = middle
            else:
                high = middle - 1
        return low

    def state_bytes(self, num_tokens: int) -> int:
        """Memory of one state."""
        return self._size.bytes_for(num_tokens)

    def piece(self, num_tokens: int, num_done: int, *, is_scoring: bool = False) -> int:
        """How many of ``num_tokens`` after ``num_done`` a pass may read with what is free now.

        ``is_scoring``: with the logits of all of them.
        """
        free_bytes = (self._memory.free_bytes or 0) // self._in_flight
        more = self._logit_bytes if is_scoring else 0
        while num_tokens > _SMALLEST_PIECE:
            num_total = num_done + num_tokens
            grown = self._size.bytes_for(num_total) - self._size.bytes_for(num_done)
            needed = grown + self._cost.bytes_for(num_tokens, num_total) + more * num_tokens
            if needed <= free_bytes:
                break
            num_tokens //= 2
        return num_tokens
