"""Caches of long prompts on disk: what ``shared.spill`` keeps, as MLX's arrays."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np

from workers.engines.mlx.cache import kv
from workers.engines.mlx.cache.prompt_cache import Entry, Match
from workers.engines.mlx.library import PromptCache
from workers.engines.shared.spill import Pack, Spill, StateLostError
from workers.engines.shared.spill_file import PackedState, SpillHeader
from workers.engines.shared.token_key import num_tokens

MIN_SPILLED = 256

log = logging.getLogger(__name__)


class PromptSpill:
    """The spilled caches of one model, ``identity``, in a folder."""

    def __init__(self, folder: Path, identity: str, **options: Any) -> None:
        """Raises ``ModelLoadError`` when the folder cannot be used."""
        self._identity = identity
        self._spill = Spill(folder, identity, MIN_SPILLED, **options)

    def find(self, key: bytes, max_tokens: int, num_cached: int) -> Match | None:
        """The longest beginning of ``key`` on disk, if worth reading beyond ``num_cached``."""
        found = self._spill.find(self._identity, key, max_tokens, num_cached)
        if found is None:
            return None
        header, num = found
        return Match(num, lambda: kv.prefix(self._take(header), num))

    def put(self, entry: Entry) -> None:
        """Write a cache soon, unless it is short, there already, or the disk is behind."""
        self._spill.put(*self._packing(entry))

    def close(self, entries: Iterable[Entry]) -> None:
        """Write these too, in this order, as far as the time allows, and end."""
        self._spill.close(map(self._packing, entries))

    def _packing(self, entry: Entry) -> tuple[SpillHeader, Pack]:
        header = SpillHeader(self._identity, entry.key, entry.can_trim)
        return header, lambda: pack(kv.prefix(entry.state, num_tokens(entry.key)))

    def _take(self, header: SpillHeader) -> PromptCache:
        state = self._spill.read(header)
        try:
            return unpack(state)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            self._spill.discard(header, repr(error))
            raise StateLostError from error


def pack(cache: PromptCache) -> PackedState | None:
    """A copy of the state; waits for the device. ``None`` for one that JSON cannot hold."""
    arrays: list[mx.array] = []
    try:
        layers = [[type(layer).__name__, _flatten(layer.state, arrays)] for layer in cache]
    except TypeError as error:  # a model's cache that is not like the others
        log.warning("prompt cannot be spilled", extra={"why": repr(error)})
        return None
    mx.eval(arrays)
    kinds = [[str(array.dtype).removeprefix("mlx.core."), list(array.shape)] for array in arrays]
    parts = [np.array(array.reshape(-1).view(mx.uint8)) for array in arrays]
    return PackedState({"layers": layers, "arrays": kinds}, parts)


def unpack(state: PackedState) -> PromptCache:
    """The cache, in memory."""
    kinds = state.facts["arrays"]
    arrays = [
        mx.array(part).view(getattr(mx, kind)).reshape(shape)
        for part, (kind, shape) in zip(state.parts, kinds, strict=True)
    ]
    layers = cast(list[Any], state.facts["layers"])
    cache = [kv.layer_of(name, _unflatten(inner, arrays)) for name, inner in layers]
    mx.eval(kv.arrays(cache))
    return cache


def _flatten(state: Any, arrays: list[mx.array]) -> Any:
    """The state as JSON, with ``{"array": number}`` for each array."""
    if isinstance(state, mx.array):
        arrays.append(state)
        return {"array": len(arrays) - 1}
    if isinstance(state, list | tuple):
        return [_flatten(part, arrays) for part in state]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"a cache holds a {type(state).__name__}")


def _unflatten(state: Any, arrays: list[mx.array]) -> Any:
    if isinstance(state, dict):
        return arrays[state["array"]]
    if isinstance(state, list):
        return [_unflatten(part, arrays) for part in state]
    return state
