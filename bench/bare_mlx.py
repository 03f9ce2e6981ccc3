"""mlx_lm's continuous batching, ``BatchGenerator``, without a server."""

from __future__ import annotations

import time
from pathlib import Path

from mlx_lm import load
from mlx_lm.generate import BatchGenerator

from bench.bare import Generated
from bench.servers import NUM_SLOTS


class MlxLoop:
    """See ``bench.bare.Loop``."""

    def __init__(self, path: Path) -> None:
        self._model, self._tokenizer = load(str(path))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text))

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generated:
        generator = BatchGenerator(self._model, completion_batch_size=NUM_SLOTS)
        started_at = time.perf_counter()
        ids = generator.insert(prompts, [max_tokens] * len(prompts))
        times: dict[int, list[float]] = {uid: [] for uid in ids}
        while responses := generator.next_generated():
            now = time.perf_counter()
            for response in responses:
                times[response.uid].append(now)
        ended_at = time.perf_counter()
        generator.close()
        return Generated(started_at, ended_at, [times[uid] for uid in ids])
