"""llama.cpp without a server: one ``llama_decode`` per step, greedy, through ctypes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as _llama_cpp
import numpy as np

from bench.bare import Generated
from bench.measurement import BenchError
from bench.servers import LLAMA_SERVER_CELLS, NUM_SLOTS

lib: Any = _llama_cpp  # its type hints are partial
_BATCH_TOKENS = 2048
# Discards llama.cpp's log. llama.cpp keeps the pointer, so the callback must not be collected.
_silence = lib.llama_log_callback(lambda level, text, data: None)


class LlamaCppLoop:
    """See ``bench.bare.Loop``."""

    def __init__(self, path: Path, threads: int) -> None:
        lib.llama_backend_init()
        lib.llama_log_set(_silence, None)
        model_params = lib.llama_model_default_params()
        model_params.n_gpu_layers = -1
        self._model = lib.llama_model_load_from_file(os.fsencode(path), model_params)
        if not self._model:
            raise BenchError(f"llama.cpp cannot load {path.name}")
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._num_words = lib.llama_vocab_n_tokens(self._vocab)
        self._context = lib.llama_init_from_model(self._model, _context_params(threads))
        self._batch = lib.llama_batch_init(_BATCH_TOKENS, 0, 1)

    def encode(self, text: str) -> list[int]:
        data = text.encode()
        tokens = (lib.llama_token * (len(data) + 8))()
        count = lib.llama_tokenize(self._vocab, data, len(data), tokens, len(tokens), True, True)
        return list(tokens[:count])

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generated:
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        started_at = time.perf_counter()
        last = self._prefill(prompts)
        times = [[time.perf_counter()] for _ in prompts]
        for step in range(max_tokens - 1):
            rows = [
                (token, len(prompt) + step, lane)
                for lane, (token, prompt) in enumerate(zip(last, prompts, strict=True))
            ]
            last = self._decode(rows, range(len(rows)))
            now = time.perf_counter()
            for each in times:
                each.append(now)
        return Generated(started_at, time.perf_counter(), times)

    def _prefill(self, prompts: list[list[int]]) -> list[int]:
        """Decode all prompts in full batches; returns the first token of each."""
        rows = [
            (token, position, lane)
            for lane, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        first: list[int] = []
        for start in range(0, len(rows), _BATCH_TOKENS):
            part = rows[start : start + _BATCH_TOKENS]
            is_end = [position == len(prompts[lane]) - 1 for _, position, lane in part]
            first += self._decode(part, [row for row, ends in enumerate(is_end) if ends])
        return first

    def _decode(self, rows: list[tuple[int, int, int]], wanted: Any) -> list[int]:
        """Decode (token, position, sequence) rows; the likeliest next token of each wanted row."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, position, lane) in enumerate(rows):
            batch.token[row], batch.pos[row] = token, position
            batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, lane, 0
        for row in wanted:
            batch.logits[row] = 1
        if lib.llama_decode(self._context, batch) != 0:
            raise BenchError("llama_decode failed")
        return [self._likeliest(row) for row in wanted]

    def _likeliest(self, row: int) -> int:
        logits = lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._num_words,)).argmax())


def _context_params(threads: int) -> Any:
    params = lib.llama_context_default_params()
    params.n_ctx = LLAMA_SERVER_CELLS
    params.n_batch = _BATCH_TOKENS
    params.n_seq_max = NUM_SLOTS
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    return params
