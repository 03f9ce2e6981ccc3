"""Padding rows after a short chunk of a prompt, so that the CPU's attention computes it as a tile.

The CPU computes a tile if a decode pass has enough rows of a sequence, else each row by itself.
Milliseconds by number of rows and number of tokens before them (0.5 B, 2 cores):

    rows            16    24    32    48    63    64   128
    after   200    100   162   210   311   432   350   651
    after   500    163   246   312   521   668   366   766
    after 1,000    299   524   686   989  1123   450   887
    after 1,500    386   573   745  1099  1488   527  1032
"""

from __future__ import annotations

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.binding import Pointer, lib

# Costs, in units of one row's cost of the weights, which is proportional to their number.
_CELL = 25.0  # a row's pass over one cell, times width of attention per weight
_TILED_WEIGHTS = 1.16
_TILED_CELL = 0.18


class TilePadding:
    """Decides on padding to a tile of ``num_rows`` rows."""

    def __init__(self, header: GgufHeader, model: Pointer, num_rows: int) -> None:
        self._num_rows = num_rows
        num_heads: int = lib.llama_model_n_head(model)
        length = header.count(f"{header.architecture}.attention.key_length")
        width = num_heads * length if length else lib.llama_model_n_embd(model)
        num_weights: int = lib.llama_model_n_params(model)
        self._cell = _CELL * lib.llama_model_n_layer(model) * width / num_weights

    def num_missing(self, num_rows: int, num_before: int) -> int:
        """Rows to add to ``num_rows`` rows after ``num_before`` tokens; 0 if that is faster."""
        if num_rows >= self._num_rows:
            return 0
        passes = self._cell * (num_before + num_rows)
        tiled = self._num_rows * (_TILED_WEIGHTS + _TILED_CELL * passes)
        return self._num_rows - num_rows if num_rows * (1 + passes) > tiled else 0
