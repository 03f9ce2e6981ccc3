"""All that a CPU computes in another way, behind one switch."""

from __future__ import annotations

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.batch.step_tuning import StepTuning
from workers.engines.llama_cpp.binding import Pointer
from workers.engines.llama_cpp.cpu.abort import Abort
from workers.engines.llama_cpp.cpu.tile_padding import TilePadding

# The CPU's attention takes so many rows or more as tiles. Fewer read all of the past each by
# itself: after 1,500 tokens, 32 took 910 ms and 64 took 590 ms.
_TILE = 64


def tune(header: GgufHeader, model: Pointer, *, can_forget: bool) -> StepTuning:
    """``can_forget``: the model's memory forgets rows as if they had never been there."""
    return StepTuning(
        tile=_TILE,
        padding=TilePadding(header, model, _TILE) if can_forget else None,
        # Attention in tiles is computed for all cells that any row of a tile looks at: in a pass of
        # both every row pays for every sequence's cells (64 + 14 rows: 700 ms; apart: 250 ms).
        is_interleaved=True,
        abort=Abort() if can_forget else None,
    )
