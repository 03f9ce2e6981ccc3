"""Tiny GGUF files with random weights in F32, of the architectures that llama.cpp knows.

Only their metadata is written here; llama.cpp says which tensors follow from it.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from scripts.modelfiles.gguf_file import add_vocabulary, finish
from scripts.modelfiles.tensor_shapes import Shape, tensor_shapes
from scripts.modelfiles.vocabulary import TokenKind, Vocabulary

Fact = int | float | bool | str | list[int]
Facts = dict[str, Fact]

WIDTH, HEADS, KV_HEADS, HEAD, FF, CONTEXT = 64, 4, 2, 16, 128, 4096
WINDOW = 32
_KV_RANK, _ROPE, _NOPE, _VALUE = 32, 8, 16, 16
_EPSILON = 1e-6

_BASE: Facts = {
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "block_count": 4,
    "feed_forward_length": FF,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": _EPSILON,
    "attention.layer_norm_epsilon": _EPSILON,
    "logit_scale": 1.0,
}
_WINDOW: Facts = {"attention.sliding_window": WINDOW}
_ALTERNATING: Facts = {**_WINDOW, "attention.sliding_window_pattern": [1, 0, 1, 0]}
_ROUTED: Facts = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_count": 1,
    "expert_shared_feed_forward_length": 64,
    "expert_weights_scale": 1.0,
    "expert_gating_func": 2,
    "leading_dense_block_count": 1,
    "interleave_moe_layer_step": 2,
}
_SECTIONS: Facts = {"rope.dimension_sections": [4, 2, 2, 0]}
_LATENT: Facts = {
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": WIDTH,
    "attention.kv_lora_rank": _KV_RANK,
    "attention.key_length": _KV_RANK + _ROPE,
    "attention.value_length": _KV_RANK,
    "attention.key_length_mla": _NOPE + _ROPE,
    "attention.value_length_mla": _VALUE,
    "rope.dimension_count": _ROPE,
}
_DIRECT_LATENT: Facts = {  # the latent is expanded before it is cached
    "attention.q_lora_rank": WIDTH,
    "attention.kv_lora_rank": _KV_RANK,
    "attention.head_count_kv": HEADS,
    "attention.key_length": _NOPE + _ROPE,
    "attention.value_length": _VALUE,
    "rope.dimension_count": _ROPE,
}
_STATE: Facts = {
    "ssm.inner_size": 2 * WIDTH,
    "ssm.conv_kernel": 4,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 8,
    "ssm.group_count": 1,
}
_ALTERNATING_STATE: Facts = {**_STATE, "attention.head_count_kv": [0, KV_HEADS, 0, KV_HEADS]}
_NEMOTRON_STATE: Facts = {
    **_STATE,
    "attention.head_count_kv": [0, KV_HEADS, 0, 0],
    "feed_forward_length": [0, 0, FF, 0],
}
_CONVOLUTION: Facts = {
    "attention.head_count_kv": [0, KV_HEADS, 0, KV_HEADS],
    "shortconv.l_cache": 3,
}
_RWKV: Facts = {
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "wkv.head_size": WIDTH,  # llama.cpp reads 32 values at once, whatever is given here
    "token_shift_count": 2,
    "time_mix_extra_dim": 8,
    "time_decay_extra_dim": 8,
    **{
        f"attention.{name}_lora_rank": 8 for name in ("decay", "iclr", "value_residual_mix", "gate")
    },
}
_ENCODER: Facts = {
    "attention.head_count_kv": HEADS,
    "attention.causal": False,
    "pooling_type": int(gguf.PoolingType.MEAN),
}
_BUCKETS: Facts = {"attention.head_count_kv": HEADS, "attention.relative_buckets_count": 32}


def _all(names: str, facts: Facts | None = None) -> dict[str, Facts]:
    return dict.fromkeys(names.split(), facts or {})


ARCHITECTURES: dict[str, Facts] = {
    **_all(
        "llama deci falcon gpt2 mpt baichuan starcoder refact bloom stablelm qwen qwen2 qwen3 phi2"
        " phi3 plamo codeshell orion internlm2 minicpm gemma starcoder2 xverse command-r olmo olmo2"
        " openelm chatglm glm4 bitnet jais jais2 nemotron exaone granite arcee ernie4_5"
        " hunyuan-dense smollm3 seed_oss pangu-embedded mistral3 maincoder talkie nanbeige"
    ),
    **_all("gptneox", {"use_parallel_residual": False}),
    **_all("minicpm3", _DIRECT_LATENT),
    **_all("qwen2vl qwen3vl paddleocr hunyuan_vl", _SECTIONS),
    **_all("gemma2 exaone4 plamo3", _WINDOW),
    **_all("gemma3", {**_WINDOW, "block_count": 6}),
    **_all("gemma3n", _WINDOW),
    **_all("cohere2 spark2_5 granite_swa muse-glimmer", _ALTERNATING),
    **_all(
        "gemma4",
        {
            **_ALTERNATING,
            "embedding_length_per_layer_input": 16,
            "attention.key_length_swa": HEAD,
            "attention.value_length_swa": HEAD,
            "attention.shared_kv_layers": 0,
        },
    ),
    **_all(
        "qwen2moe qwen3moe phimoe arctic deepseek glm4moe bailingmoe bailingmoe2"
        " ernie4_5-moe hunyuan-moe hy_v3 minimax-m2 llama4 grok granitemoe mellum",
        _ROUTED,
    ),
    **_all("olmoe dots1", {**_ROUTED, "attention.head_count_kv": HEADS}),
    **_all("dbrx", {**_ROUTED, "attention.clamp_kqv": 8.0}),
    **_all("qwen3vlmoe", {**_ROUTED, **_SECTIONS}),
    **_all("grovemoe", {**_ROUTED, "expert_group_scale": 1.0, "experts_per_group": 1}),
    **_all("gpt-oss afmoe smallthinker laguna", {**_ROUTED, **_WINDOW}),
    **_all("mimo2 step35 cohere2moe exaone-moe", {**_ROUTED, **_ALTERNATING}),
    **_all("maple", {**_ROUTED, **_ALTERNATING, "swiglu_clamp_exp": 7.0}),
    **_all("deepseek2 mistral4", {**_ROUTED, **_LATENT}),
    **_all("mamba mamba2", _STATE),
    **_all("rwkv6 rwkv7", _RWKV),
    **_all("arwkv7", {**_RWKV, "token_shift_count": 1}),
    **_all("jamba granitehybrid", _ALTERNATING_STATE),
    **_all("plamo2", {**_ALTERNATING_STATE, "ssm.group_count": 0}),
    **_all("falcon-h1", _STATE),
    **_all("qwen35", {**_STATE, **_SECTIONS}),
    **_all("qwen3next", {**_ROUTED, **_STATE}),
    **_all("qwen35moe", {**_ROUTED, **_STATE, **_SECTIONS}),
    **_all("nemotron_h", _NEMOTRON_STATE),
    **_all("nemotron_h_moe", {**_ROUTED, **_NEMOTRON_STATE}),
    **_all("lfm2", _CONVOLUTION),
    **_all("lfm2moe", {**_ROUTED, **_CONVOLUTION}),
    **_all(
        "minimax-01",
        {**_ROUTED, **_STATE, "residual_scale": 1.0, "full_attention_interval": 2},
    ),
    **_all("bert nomic-bert neo-bert jina-bert-v2 jina-bert-v3 eurobert llama-embed", _ENCODER),
    **_all("modern-bert", {**_ENCODER, **_WINDOW}),
    **_all("gemma-embedding", {**_ENCODER, **_WINDOW, "block_count": 6}),
    **_all("nomic-bert-moe", {**_ENCODER, **_ROUTED, "moe_every_n_layers": 2}),
    **_all("t5 t5encoder", _BUCKETS),
    **_all("dream llada"),
    **_all("llada-moe rnd1", _ROUTED),
}
"""Metadata below the name, over ``_BASE``, by llama.cpp's name."""


def write_architecture(path: Path, name: str, vocabulary: Vocabulary, seed: int = 0) -> Path:
    """Write a file of this architecture; the same arguments give the same file."""
    temporary = path.with_name(f".{path.name}.tmp")
    finish(_writer(temporary, name, vocabulary), temporary, path)
    shapes = tensor_shapes(path)
    writer = _writer(temporary, name, vocabulary)
    control = [kind is TokenKind.CONTROL for kind in vocabulary.kinds]
    for tensor, shape in shapes.items():
        if tensor.endswith("scale"):  # of quantized tensors
            continue
        values = _values(tensor, shape, seed)
        if tensor in ("output.weight", "token_embd.weight"):
            values[control] = 0  # so that greedy text runs to its limit
        writer.add_tensor(tensor, values)
    finish(writer, temporary, path)
    return path


def _writer(path: Path, name: str, vocabulary: Vocabulary) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, fact in {**_BASE, **ARCHITECTURES[name]}.items():
        _add_fact(writer, f"{name}.{key}", fact)
    add_vocabulary(writer, vocabulary)
    writer.add_token_type_count(2)
    return writer


def _values(name: str, shape: Shape, seed: int) -> npt.NDArray[np.float32]:
    """Norms near 1, mixes in 0 to 1, decays below 0, matrices that keep the size of their input."""
    draws = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.startswith("rope_"):
        values = np.ones(shape)
    elif name.endswith("ssm_a"):
        values = -np.exp(draws)
    elif "lerp" in name:
        values = 1 / (1 + np.exp(-draws))
    elif "norm" in name and name.endswith("weight"):
        values = 1 + 0.1 * draws
    elif len(shape) == 1:
        values = 0.5 * draws
    elif name == "token_embd.weight":
        values = draws
    else:
        values = draws * shape[-1] ** -0.5
    return values.astype(np.float32)


def _add_fact(writer: gguf.GGUFWriter, key: str, fact: Fact) -> None:
    if isinstance(fact, bool):
        writer.add_bool(key, fact)
    elif isinstance(fact, int):
        writer.add_uint32(key, fact)
    elif isinstance(fact, float):
        writer.add_float32(key, fact)
    elif isinstance(fact, str):
        writer.add_string(key, fact)
    else:
        writer.add_array(key, fact)
