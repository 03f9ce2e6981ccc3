"""The shape of a qwen3-like model, its tensors, and random weights for it."""

import json
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Float16 = npt.NDArray[np.float16]
Weights = dict[str, Float16]  # name as in a Hugging Face checkpoint -> (rows, columns) or (size,)


@dataclass(frozen=True)
class Shape:
    """Sizes in the names that a qwen3 config.json uses. Embeddings are tied."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} heads do not divide into "
                f"{self.num_key_value_heads} groups"
            )
        if self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {self.head_dim}")

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(size)) for size in tensor_sizes(self).values())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_config(cls, path: Path) -> "Shape":
        """The shape that a config.json describes; other keys are left alone."""
        config = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in names})


PRESETS = {
    "tiny": Shape(128, 6, 4, 2, 32, 384, 1024),
    "small": Shape(512, 12, 8, 4, 64, 2048, 8192, 4096),
    "half": Shape(1024, 28, 16, 8, 128, 3072, 32768, 8192, 1_000_000.0),
}


def layer_matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """(rows, columns) = (outputs, inputs) of each matrix of one layer, by its name there."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def tensor_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by its checkpoint name."""
    sizes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size),
        "model.norm.weight": (shape.hidden_size,),
    }
    per_layer: dict[str, tuple[int, ...]] = {
        **layer_matrices(shape),
        "self_attn.q_norm": (shape.head_dim,),
        "self_attn.k_norm": (shape.head_dim,),
        "input_layernorm": (shape.hidden_size,),
        "post_attention_layernorm": (shape.hidden_size,),
    }
    for layer in range(shape.num_hidden_layers):
        for name, size in per_layer.items():
            sizes[f"model.layers.{layer}.{name}.weight"] = size
    return sizes


def random_weights(shape: Shape, seed: int, silent_tokens: list[int]) -> Weights:
    """Fan-in scaled normal weights; norms are one.

    The rows of `silent_tokens` (the end tokens) are zero: their logit is then 0, which is never
    the largest of many, so greedy text runs to its token limit.
    """
    weights = {name: _random(name, size, seed) for name, size in tensor_sizes(shape).items()}
    weights["model.embed_tokens.weight"][silent_tokens] = 0
    return weights


def _random(name: str, size: tuple[int, ...], seed: int) -> Float16:
    """Each tensor has its own stream, so its values do not depend on the other tensors."""
    if len(size) == 1:
        return np.ones(size, np.float16)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(size, dtype=np.float32)
    values *= size[1] ** -0.5
    return values.astype(np.float16)
