"""The GGUF side: model files of four types and LoRA adapters."""

from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from scripts.modelfiles.lora import LowRankUpdate
from scripts.modelfiles.shape import Shape, Weights
from scripts.modelfiles.vocabulary import (
    END_OF_TEXT,
    END_OF_TURN,
    GGUF_PRE_TOKENIZER,
    TokenKind,
    Vocabulary,
)

ARCHITECTURE = "qwen3"


class GgufType(Enum):
    """Type of the matrices; norms are always f32."""

    F16 = "f16"
    F32 = "f32"
    Q8_0 = "q8_0"
    Q4_0 = "q4_0"


_FILE_TYPES = {
    GgufType.F16: gguf.LlamaFileType.MOSTLY_F16,
    GgufType.F32: gguf.LlamaFileType.ALL_F32,
    GgufType.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    GgufType.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0,
}
_TENSOR_TYPES = {
    GgufType.F16: gguf.GGMLQuantizationType.F16,
    GgufType.F32: gguf.GGMLQuantizationType.F32,
    GgufType.Q8_0: gguf.GGMLQuantizationType.Q8_0,
    GgufType.Q4_0: gguf.GGMLQuantizationType.Q4_0,
}
_TOKEN_TYPES = {
    TokenKind.NORMAL: gguf.TokenType.NORMAL,
    TokenKind.CONTROL: gguf.TokenType.CONTROL,
    TokenKind.USER_DEFINED: gguf.TokenType.USER_DEFINED,
}
TOP_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf_model(
    path: Path,
    name: str,
    shape: Shape,
    weights: Weights,
    vocabulary: Vocabulary | Callable[[gguf.GGUFWriter], None],
    gguf_type: GgufType,
    description: str = "Random weights",
) -> None:
    """Writes a complete model file; an existing one is replaced at once.

    A `vocabulary` of another kind than the demo model's adds itself to the writer.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    writer = gguf.GGUFWriter(temporary, ARCHITECTURE)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_description(description)
    writer.add_size_label(f"{shape.num_parameters / 1e6:.1f}M")
    writer.add_file_type(_FILE_TYPES[gguf_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, shape)
    if isinstance(vocabulary, Vocabulary):
        add_vocabulary(writer, vocabulary)
    else:
        vocabulary(writer)
    for tensor_name, values in weights.items():
        _add_tensor(writer, gguf_name(tensor_name), values, gguf_type)
    finish(writer, temporary, path)


def gguf_name(checkpoint_name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight` in a GGUF file."""
    module = checkpoint_name.removesuffix(".weight")
    if module in TOP_NAMES:
        return f"{TOP_NAMES[module]}.weight"
    _, _, layer, name = module.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[name]}.weight"


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocab_size)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")  # the format's name for byte-level BPE
    writer.add_tokenizer_pre(GGUF_PRE_TOKENIZER)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([_TOKEN_TYPES[kind] for kind in vocabulary.kinds])
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.id_of(END_OF_TURN))
    writer.add_eot_token_id(vocabulary.id_of(END_OF_TURN))
    writer.add_bos_token_id(vocabulary.id_of(END_OF_TEXT))
    writer.add_pad_token_id(vocabulary.id_of(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(vocabulary.chat_template)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, values: npt.NDArray[np.float16], gguf_type: GgufType
) -> None:
    wide = values.astype(np.float32)
    if values.ndim == 1:
        writer.add_tensor(name, wide)
        return
    tensor_type = _TENSOR_TYPES[gguf_type]
    writer.add_tensor(name, gguf.quants.quantize(wide, tensor_type), raw_dtype=tensor_type)


def write_gguf_adapter(
    path: Path,
    name: str,
    updates: Iterable[LowRankUpdate],
    scale: float,
    architecture: str = ARCHITECTURE,
) -> None:
    """llama.cpp multiplies an update by alpha / rank, so alpha is `scale` times the rank."""
    updates = list(updates)
    temporary = path.with_name(f".{path.name}.tmp")
    writer = gguf.GGUFWriter(temporary, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, scale * updates[0].rank)
    for update in updates:
        target = gguf_name(f"{update.module}.weight")
        writer.add_tensor(f"{target}.lora_a", update.down)
        writer.add_tensor(f"{target}.lora_b", update.up)
    finish(writer, temporary, path)


def finish(writer: gguf.GGUFWriter, temporary: Path, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)
