"""llama.cpp's DRY samplers, one for each sequence that asks for it."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from typing import Any

from jobs.contract.sampling import Sampling
from workers.engines.llama_cpp.binding import Pointer, lib

_NUM_KEPT = 4


class DrySamplers:
    """Makes DRY samplers as copies: to search 150,000 tokens for four breakers takes 40 ms."""

    def __init__(self, vocab: Pointer, context_length: int) -> None:
        self._vocab = vocab
        self._context_length = context_length
        self._originals: OrderedDict[tuple[Any, ...], Pointer] = OrderedDict()
        self._lock = threading.Lock()

    def new(self, sampling: Sampling) -> Pointer | None:
        """A sampler without history, owned by the caller; ``None`` without DRY. Thread-safe."""
        if not sampling.has_dry:
            return None
        key = self._settings(sampling)
        with self._lock:
            if key in self._originals:
                self._originals.move_to_end(key)
                return lib.llama_sampler_clone(self._originals[key])
        made = self._make(*key)
        with self._lock:
            self._drop(self._originals.pop(key, None))
            self._originals[key] = made
            if len(self._originals) > _NUM_KEPT:
                self._drop(self._originals.popitem(last=False)[1])
            return lib.llama_sampler_clone(made)

    def prepare(self, sampling: Sampling) -> None:
        """Search the vocabulary now, so that the engine's thread need not."""
        self._drop(self.new(sampling))

    def close(self) -> None:
        """Free the originals."""
        with self._lock:
            while self._originals:
                self._drop(self._originals.popitem()[1])

    def _settings(self, sampling: Sampling) -> tuple[Any, ...]:
        return (
            sampling.dry_sequence_breakers,
            sampling.dry_multiplier,
            sampling.dry_base,
            sampling.dry_allowed_length,
            dry_window(sampling, self._context_length),
        )

    def _make(self, breakers: tuple[str, ...], *settings: float) -> Pointer:
        texts = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))
        return lib.llama_sampler_init_dry(self._vocab, *settings, texts, len(breakers))

    def _drop(self, sampler: Pointer | None) -> None:
        if sampler is not None:
            lib.llama_sampler_free(sampler)


def dry_window(sampling: Sampling, context_length: int) -> int:
    """Number of tokens that DRY looks back at; llama.cpp allocates as many."""
    num = sampling.dry_penalty_last_n
    return context_length if num < 0 else min(num, context_length)
