"""Rows of no use after a short piece of a prompt: with them the CPU's attention takes it as a tile.

It computes tiles where a call has at least so many rows of a sequence, else each row by itself.
Milliseconds for so many rows after so many tokens (0.5 B, 2 cores):

    rows            16    24    32    48    63    64   128
    after   200    100   162   210   311   432   350   651
    after   500    163   246   312   521   668   366   766
    after 1,000    299   524   686   989  1123   450   887
    after 1,500    386   573   745  1099  1488   527  1032
"""

from __future__ import annotations

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.binding import Pointer, lib

# In units of what the weights cost per row, which grows with their number.
_CELL = 25.0  # times the width of attention per weight: a row's pass over one cell
_TILED_WEIGHTS = 1.16
_TILED_CELL = 0.18


class TilePadding:
    """For tiles of ``num_rows`` rows."""

    def __init__(self, header: GgufHeader, model: Pointer, num_rows: int) -> None:
        self._num_rows = num_rows
        num_heads: int = lib.llama_model_n_head(model)
        length = header.count(f"{header.architecture}.attention.key_length")
        width = num_heads * length if length else lib.llama_model_n_embd(model)
        num_weights: int = lib.llama_model_n_params(model)
        self._cell = _CELL * lib.llama_model_n_layer(model) * width / num_weights

    def num_missing(self, num_rows: int, num_before: int) -> int:
        """How many rows to add to these, which stand after ``num_before`` tokens; often 0."""
        if num_rows >= self._num_rows:
            return 0
        passes = self._cell * (num_before + num_rows)
        tiled = self._num_rows * (_TILED_WEIGHTS + _TILED_CELL * passes)
        return self._num_rows - num_rows if num_rows * (1 + passes) > tiled else 0
