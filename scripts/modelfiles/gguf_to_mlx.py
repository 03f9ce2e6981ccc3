"""Converts a GGUF file of the architecture llama with a SmolLM vocabulary to MLX folders.

For tests with real weights: the same model in both formats. ``python -m
scripts.modelfiles.gguf_to_mlx FILE.gguf FOLDER float32|8bit|4bit``
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from scripts.modelfiles.gguf_file import LAYER_NAMES, TOP_NAMES
from scripts.modelfiles.mlx_folder import MlxType, quantization_of, tensors_of, write_folder
from scripts.modelfiles.shape import Shape
from scripts.modelfiles.vocabulary import TokenKind, Vocabulary

Float32 = npt.NDArray[np.float32]

_PRE_TOKENIZER = "smollm"
_CONTROL = 3
_TOPS = {ours: theirs for theirs, ours in TOP_NAMES.items()}
_LAYERS = {ours: theirs for theirs, ours in LAYER_NAMES.items()}
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.weight")


class GgufModel:
    """A file of this kind. Raises ``ValueError`` for others."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)
        known = (self._fact("general.architecture"), self._fact("tokenizer.ggml.pre"))
        if known != ("llama", _PRE_TOKENIZER):
            raise ValueError(f"{path.name}: not of the architecture llama with SmolLM's vocabulary")

    @property
    def shape(self) -> Shape:
        """Its sizes."""
        hidden, heads = self._size("embedding_length"), self._size("attention.head_count")
        return Shape(
            hidden_size=hidden,
            num_hidden_layers=self._size("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=self._size("attention.head_count_kv"),
            head_dim=hidden // heads,
            intermediate_size=self._size("feed_forward_length"),
            vocab_size=len(self._fact("tokenizer.ggml.tokens")),
            max_position_embeddings=self._size("context_length"),
            rope_theta=self._fact("llama.rope.freq_base"),
            rms_norm_eps=self._fact("llama.attention.layer_norm_rms_epsilon"),
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokenizer as Hugging Face's library reads it."""
        tokens, merges = self._fact("tokenizer.ggml.tokens"), self._fact("tokenizer.ggml.merges")
        is_control = [kind == _CONTROL for kind in self._fact("tokenizer.ggml.token_type")]
        kinds = [TokenKind.CONTROL if control else TokenKind.NORMAL for control in is_control]
        added = [_added(number, tokens[number]) for number, yes in enumerate(is_control) if yes]
        template = self._fact("tokenizer.chat_template")
        return Vocabulary(tokens, kinds, merges, template, _tokenizer(tokens, merges, added))

    @property
    def weights(self) -> dict[str, Float32]:
        """The tensors under the names of a checkpoint, in float32."""
        shape = self.shape
        found: dict[str, Float32] = {}
        for tensor in self._reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            name = _checkpoint_name(tensor.name)
            if name.endswith("q_proj.weight"):
                values = _unpermuted(values, shape.num_attention_heads)
            elif name.endswith("k_proj.weight"):
                values = _unpermuted(values, shape.num_key_value_heads)
            found[name] = values
        return found

    def add_vocabulary(self, writer: gguf.GGUFWriter) -> None:
        """Give another file the same tokenizer."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_PRE_TOKENIZER)
        writer.add_token_list(self._fact("tokenizer.ggml.tokens"))
        writer.add_token_types(self._fact("tokenizer.ggml.token_type"))
        writer.add_token_merges(self._fact("tokenizer.ggml.merges"))
        writer.add_bos_token_id(self._fact("tokenizer.ggml.bos_token_id"))
        writer.add_eos_token_id(self._fact("tokenizer.ggml.eos_token_id"))
        writer.add_add_bos_token(False)

    def _size(self, key: str) -> int:
        return int(self._fact(f"llama.{key}"))

    def _fact(self, key: str) -> Any:
        field = self._reader.fields.get(key)
        return None if field is None else field.contents()


def _checkpoint_name(name: str) -> str:
    if found := _LAYER.fullmatch(name):
        return f"model.layers.{found[1]}.{_LAYERS[found[2]]}.weight"
    return f"{_TOPS[name.removesuffix('.weight')]}.weight"


def _unpermuted(values: Float32, num_heads: int) -> Float32:
    """llama.cpp has the two halves of a head's rotary positions interleaved."""
    rows, columns = values.shape
    pairs = values.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def _added(token_id: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"id": token_id, "content": content, "special": True, **flags}


def _tokenizer(tokens: list[str], merges: list[str], added: list[dict[str, Any]]) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE, each digit alone."""
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", **byte_level},
    ]
    vocab = {text: number for number, text in enumerate(tokens)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def convert(path: Path, folder: Path, mlx_type: MlxType) -> None:
    """Writes the model as an MLX folder. Raises ``ValueError`` for a file of another kind."""
    model = GgufModel(path)
    weights, vocabulary = model.weights, model.vocabulary
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **model.shape.to_dict(),
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "bos_token_id": vocabulary.id_of("<|im_start|>"),
        "eos_token_id": vocabulary.end_ids,
        "torch_dtype": "float32",
        **quantization_of(mlx_type),
    }
    write_folder(folder, tensors_of(weights, mlx_type), config, vocabulary)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), MlxType(sys.argv[3]))
