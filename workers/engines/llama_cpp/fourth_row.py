"""A fourth row for every three: on a CPU it makes a call faster.

llama.cpp lays 4-bit weights out anew ("repack") for kernels that take four rows at a time. What is
left over goes through one by one, and three of those take longer than four together: milliseconds
of a call with 2, 3, 4, 7, 8, 15 and 16 short sequences (0.47 B, 2 cores, x86):

    Q4_0    32  40  29  60  53  105   83
    Q4_K_M  32  42  36  63  63  103   80
    IQ4_NL  34  41  33  63  60  110   85
    Q8_0    49  58  61  87  87  142  142  (as they are in the file)
    Q6_K    42  54  68  94 110  109  108  (as they are in the file)
"""

from __future__ import annotations

from jobs.catalog.gguf_header import GgufHeader
from workers.engines.llama_cpp.binding import lib

_ROWS = 4
_LEFT_OVER = (0.0, 2.3, 4.2, 4.0)  # rows that make no four; three get a fourth
_LAID_OUT_ANEW = ("Q4_0", "Q4_K", "IQ4_NL")
_NEEDED = (b"AVX2 = 1", b"NEON = 1")  # either has such kernels


def is_fourth_row_welcome(header: GgufHeader) -> bool:
    """Whether a model that computes on this machine's CPU has such weights.

    Not one of experts: another row may ask for weights that nobody else needs.
    """
    system: bytes = lib.llama_print_system_info()
    return (
        header.quantization.startswith(_LAID_OUT_ANEW)
        and not header.count(f"{header.architecture}.expert_count")
        and b"REPACK = 1" in system
        and any(kernels in system for kernels in _NEEDED)
    )


def num_missing_rows(num_rows: int) -> int:
    """1 where one row would make another four, else 0: two would cost more than they save."""
    return int(num_rows % _ROWS == _ROWS - 1)


def relative_time(num_rows: int, *, has_fours: bool) -> float:
    """Of a call with so many short sequences; 1 is a row of a full four. From the table above."""
    if has_fours:
        return num_rows // _ROWS * _ROWS + _LEFT_OVER[num_rows % _ROWS]
    return num_rows + _ROWS  # without such kernels the weights are most of it
