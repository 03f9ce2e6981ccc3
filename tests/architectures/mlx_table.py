"""The rows of the table in docs/architectures.md, from the models themselves.

``python -m tests.architectures.mlx_table`` prints the table.
"""

from __future__ import annotations

from pathlib import Path

from jobs.contract.errors import UnsupportedParameterError
from scripts.modelfiles.mlx_architectures import architectures
from scripts.modelfiles.mlx_special import METAL_ONLY
from tests.architectures.mlx_reference import opened, prompt_of
from workers.engines.mlx import library
from workers.engines.mlx.cache import kv
from workers.engines.mlx.engine import MlxEngine

DOCUMENT = Path(__file__).parents[2] / "docs" / "architectures.md"


def row_of(name: str, engine: MlxEngine) -> str:
    """The row of an architecture: caches, batches, kept states, vectors."""
    cache = library.new_cache(engine._prefill._model)
    caches = ", ".join(sorted({type(layer).__name__ for layer in kv.leaves(cache)}))
    batched = "yes" if engine.info.num_slots > 1 else "one at a time"
    return f"| {name} | {caches} | {batched} | {_kept(engine, cache)} | {_vectors(engine)} |"


def _kept(engine: MlxEngine, cache: library.PromptCache) -> str:
    if not engine._prefill._is_reusing:
        return "none"
    if kv.can_always_trim(cache):
        return "any prefix"
    return "any prefix within the window" if kv.can_trim(cache) else "whole"


def _vectors(engine: MlxEngine) -> str:
    try:
        engine.embed([prompt_of(1, 3)], None)
    except UnsupportedParameterError:
        return "no"
    return "yes"


if __name__ == "__main__":
    for name in architectures():
        if name not in METAL_ONLY:
            engine = opened(name)
            print(row_of(name, engine))
            engine.close()
