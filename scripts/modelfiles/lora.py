"""Random low-rank updates: W becomes W + scale * up @ down."""

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.modelfiles.shape import Shape, layer_matrices

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LowRankUpdate:
    """`down` is (rank, inputs), `up` is (outputs, rank); `module` is a checkpoint name."""

    module: str
    down: Float32
    up: Float32

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


def random_updates(shape: Shape, targets: list[str], rank: int, seed: int) -> list[LowRankUpdate]:
    """One update for each target in every layer, each about as large as the matrix itself."""
    sizes = layer_matrices(shape)
    unknown = sorted(set(targets) - set(sizes))
    if unknown:
        raise ValueError(f"unknown targets {unknown}; there are {sorted(sizes)}")
    return [
        _random_update(f"model.layers.{layer}.{target}", sizes[target], rank, seed)
        for layer in range(shape.num_hidden_layers)
        for target in targets
    ]


def _random_update(module: str, size: tuple[int, int], rank: int, seed: int) -> LowRankUpdate:
    outputs, inputs = size
    rng = np.random.default_rng([seed, zlib.crc32(module.encode())])
    down = rng.standard_normal((rank, inputs), dtype=np.float32) * inputs**-0.5
    up = rng.standard_normal((outputs, rank), dtype=np.float32) * rank**-0.5
    return LowRankUpdate(module, down.astype(np.float32), up.astype(np.float32))
