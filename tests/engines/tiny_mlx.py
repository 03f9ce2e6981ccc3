"""Random models of a few thousand parameters, and their tokenizers, for the tests of MLX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, qwen3
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from jobs.contract.sampling import Sampling
from workers.engines.base import EngineOptions, Sequence, Token
from workers.engines.mlx.engine import MlxEngine, open_mlx

VOCAB_SIZE = 300
END_ID, START_ID, TOOL_ID = 256, 257, 258
GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "eos_token_id": [END_ID],
}
QWEN = SIZES | {"model_type": "qwen3", "rope_theta": 1e4, "tie_word_embeddings": True}
GEMMA = SIZES | {"model_type": "gemma3_text", "sliding_window": 16, "sliding_window_pattern": 2}


def byte_tokenizer() -> Tokenizer:
    """Every byte is a token; then two control tokens and one added token with a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|start|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False)])
    return tokenizer


def write_model(folder: Path, module: nn.Module, config: dict[str, Any]) -> Path:
    """A model folder with random weights, large enough to make varied text."""
    folder.mkdir()
    mx.random.seed(7)
    weights = {
        name: (4 * mx.random.normal(w.shape) / w.shape[-1] ** 0.5).astype(mx.float16)
        for name, w in tree_flatten(module.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def write_qwen(folder: Path) -> Path:
    """A dense model with plain KV caches."""
    return write_model(folder, qwen3.Model(qwen3.ModelArgs.from_dict(QWEN)), QWEN)


def write_gemma(folder: Path) -> Path:
    """A model whose layers take turns between a sliding window of 16 tokens and all tokens."""
    return write_model(folder, gemma3_text.Model(gemma3_text.ModelArgs.from_dict(GEMMA)), GEMMA)


def opened(path: Path, **options: Any) -> MlxEngine:
    return open_mlx(path, EngineOptions(**options), lambda fraction: None)


def run(engine: MlxEngine, sequences: list[Sequence]) -> dict[int, list[Token]]:
    """All tokens of the sequences, running together."""
    tokens: dict[int, list[Token]] = {s.sequence_id: [] for s in sequences}
    for sequence in sequences:
        engine.submit(sequence)
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Token):
                tokens[event.sequence_id].append(event)
    return tokens


def ids(tokens: list[Token]) -> list[int]:
    return [token.token_id for token in tokens]
