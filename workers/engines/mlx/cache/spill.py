"""Spills the KV caches of long prompts to disk: ``shared.spill`` for MLX arrays."""

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

MIN_SPILLED = 256  # tokens

log = logging.getLogger(__name__)


class PromptSpill:
    """The spilled caches of the model with this ``identity``, in a folder."""

    def __init__(self, folder: Path, identity: str, **options: Any) -> None:
        """Raises ``ModelLoadError`` if the folder cannot be used."""
        self._identity = identity
        self._spill = Spill(folder, identity, MIN_SPILLED, **options)

    def find(self, key: bytes, max_tokens: int, num_cached: int) -> Match | None:
        """The longest prefix of ``key`` on disk, if it is enough longer than ``num_cached``."""
        found = self._spill.find(self._identity, key, max_tokens, num_cached)
        if found is None:
            return None
        header, num = found
        return Match(num, lambda: kv.prefix(self._take(header), num))

    def put(self, entry: Entry) -> None:
        """Queue a cache for writing, see ``Spill.put``."""
        self._spill.put(*self._packing(entry))

    def close(self, entries: Iterable[Entry]) -> None:
        """Write these too and end, see ``Spill.close``."""
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
    """A copy of the state as bytes; waits for the device. ``None`` if JSON cannot hold it."""
    arrays: list[mx.array] = []
    try:
        layers = [[type(layer).__name__, _flatten(layer.state, arrays)] for layer in cache]
    except TypeError as error:  # a model with a cache class of its own
        log.warning("prompt cannot be spilled", extra={"why": repr(error)})
        return None
    mx.eval(arrays)
    kinds = [[str(array.dtype).removeprefix("mlx.core."), list(array.shape)] for array in arrays]
    parts = [np.array(array.reshape(-1).view(mx.uint8)) for array in arrays]
    return PackedState({"layers": layers, "arrays": kinds}, parts)


def unpack(state: PackedState) -> PromptCache:
    """The cache of a packed state, computed."""
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
    """The state as JSON, with ``{"array": index}`` for each array, which goes into ``arrays``."""
    if isinstance(state, mx.array):
        arrays.append(state)
        return {"array": len(arrays) - 1}
    if isinstance(state, list | tuple):
        return [_flatten(part, arrays) for part in state]
    if state is None or isinstance(state, bool | int | float | str):
        return state
    raise TypeError(f"a cache contains a {type(state).__name__}")


def _unflatten(state: Any, arrays: list[mx.array]) -> Any:
    if isinstance(state, dict):
        return arrays[state["array"]]
    if isinstance(state, list):
        return [_unflatten(part, arrays) for part in state]
    return state
