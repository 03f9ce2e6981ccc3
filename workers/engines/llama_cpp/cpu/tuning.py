"""The step tuning for a CPU."""

from __future__ import annotations

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.batch.step_tuning import StepTuning
from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.cpu.abort import Abort
from workers.engines.llama_cpp.cpu.tile_padding import TilePadding

# The CPU's attention computes this many rows or more as tiles. With fewer, each row reads the
# whole KV cache by itself: after 1,500 tokens, 32 rows took 910 ms and 64 took 590 ms.
_TILE = 64


def tune(header: GgufHeader, model: Pointer, *, can_forget: bool) -> StepTuning:
    """``can_forget``: rows can be removed from the model's memory without a trace."""
    return StepTuning(
        tile=_TILE,
        padding=TilePadding(header, model, _TILE) if can_forget else None,
        # A tile is computed for all cells that any of its rows needs: in a mixed pass every row
        # pays for the cells of every sequence (64 + 14 rows: 700 ms; separate: 250 ms).
        is_interleaved=True,
        abort=Abort() if can_forget else None,
    )
