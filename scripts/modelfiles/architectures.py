"""Tiny GGUF files with random weights in F32, one for each kind of memory that llama.cpp has.

Shapes are written as in llama.cpp's sources (``src/models/*.cpp``): the inner dimension first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from scripts.modelfiles.gguf_file import add_vocabulary, finish
from scripts.modelfiles.vocabulary import Vocabulary

Shape = tuple[int, ...]
Tensors = dict[str, Shape]
Fact = int | float | bool | str | list[int]

WIDTH, HEADS, KV_HEADS, HEAD, FF, CONTEXT = 64, 4, 2, 16, 128, 4096
WINDOW = 32
_EXPERTS, _EXPERT_FF = 4, 64
_INNER, _STATE, _KERNEL, _RANK, _GROUPS = 2 * WIDTH, 16, 4, 8, 1
_CONV = _INNER + 2 * _GROUPS * _STATE
_KV_RANK, _ROPE, _NOPE, _VALUE = 32, 8, 16, 16

_BASE: dict[str, Fact] = {
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "feed_forward_length": FF,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-6,
}
_SSM: dict[str, Fact] = {
    "ssm.conv_kernel": _KERNEL,
    "ssm.inner_size": _INNER,
    "ssm.state_size": _STATE,
    "ssm.time_step_rank": _RANK,
}
_GROUPED: dict[str, Fact] = {**_SSM, "ssm.group_count": _GROUPS}
_ROUTED: dict[str, Fact] = {
    "expert_count": _EXPERTS,
    "expert_used_count": 2,
    "expert_feed_forward_length": _EXPERT_FF,
}

_TOP: Tensors = {"output_norm.weight": (WIDTH,)}
_ATTENTION: Tensors = {
    "attn_norm.weight": (WIDTH,),
    "attn_q.weight": (WIDTH, HEADS * HEAD),
    "attn_k.weight": (WIDTH, KV_HEADS * HEAD),
    "attn_v.weight": (WIDTH, KV_HEADS * HEAD),
    "attn_output.weight": (HEADS * HEAD, WIDTH),
}
_QK_NORMS: Tensors = {"attn_q_norm.weight": (HEAD,), "attn_k_norm.weight": (HEAD,)}
_MLP: Tensors = {
    "ffn_norm.weight": (WIDTH,),
    "ffn_gate.weight": (WIDTH, FF),
    "ffn_up.weight": (WIDTH, FF),
    "ffn_down.weight": (FF, WIDTH),
}
_MOE: Tensors = {
    "ffn_norm.weight": (WIDTH,),
    "ffn_gate_inp.weight": (WIDTH, _EXPERTS),
    "ffn_gate_exps.weight": (WIDTH, _EXPERT_FF, _EXPERTS),
    "ffn_up_exps.weight": (WIDTH, _EXPERT_FF, _EXPERTS),
    "ffn_down_exps.weight": (_EXPERT_FF, WIDTH, _EXPERTS),
}
_SHARED_EXPERT: Tensors = {
    "ffn_gate_shexp.weight": (WIDTH, _EXPERT_FF),
    "ffn_up_shexp.weight": (WIDTH, _EXPERT_FF),
    "ffn_down_shexp.weight": (_EXPERT_FF, WIDTH),
}
_LATENT: Tensors = {
    "attn_norm.weight": (WIDTH,),
    "attn_q_a_norm.weight": (WIDTH,),
    "attn_kv_a_norm.weight": (_KV_RANK,),
    "attn_q_a.weight": (WIDTH, WIDTH),
    "attn_q_b.weight": (WIDTH, HEADS * (_NOPE + _ROPE)),
    "attn_kv_a_mqa.weight": (WIDTH, _KV_RANK + _ROPE),
    "attn_k_b.weight": (_NOPE, _KV_RANK, HEADS),
    "attn_v_b.weight": (_KV_RANK, _VALUE, HEADS),
    "attn_output.weight": (HEADS * _VALUE, WIDTH),
}
_MAMBA: Tensors = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (WIDTH, 2 * _INNER),
    "ssm_conv1d.weight": (_KERNEL, _INNER),
    "ssm_conv1d.bias": (_INNER,),
    "ssm_x.weight": (_INNER, _RANK + 2 * _STATE),
    "ssm_dt.weight": (_RANK, _INNER),
    "ssm_dt.bias": (_INNER,),
    "ssm_a": (_STATE, _INNER),
    "ssm_d": (_INNER,),
    "ssm_out.weight": (_INNER, WIDTH),
}
_MAMBA_NORMS: Tensors = {
    "ssm_dt_norm.weight": (_RANK,),
    "ssm_b_norm.weight": (_STATE,),
    "ssm_c_norm.weight": (_STATE,),
}
_MAMBA2: Tensors = {
    "attn_norm.weight": (WIDTH,),
    "ssm_in.weight": (WIDTH, _INNER + _CONV + _RANK),
    "ssm_conv1d.weight": (_KERNEL, _CONV),
    "ssm_conv1d.bias": (_CONV,),
    "ssm_dt.bias": (_RANK,),
    "ssm_a": (1, _RANK),
    "ssm_d": (1, _RANK),
    "ssm_norm.weight": (_INNER // _GROUPS, _GROUPS),
    "ssm_out.weight": (_INNER, WIDTH),
}
_SHORT_CONVOLUTION: Tensors = {
    "attn_norm.weight": (WIDTH,),
    "shortconv.conv.weight": (3, WIDTH),
    "shortconv.in_proj.weight": (WIDTH, 3 * WIDTH),
    "shortconv.out_proj.weight": (WIDTH, WIDTH),
}
_POST_NORMS: Tensors = {
    "post_attention_norm.weight": (WIDTH,),
    "post_ffw_norm.weight": (WIDTH,),
}
_RWKV_RANK = 8
_RWKV7: Tensors = {
    **{f"attn_norm{n}.{kind}": (WIDTH,) for n in ("", "_2") for kind in ("weight", "bias")},
    **{f"time_mix_{name}0.weight": (WIDTH,) for name in "wav"},
    **{f"time_mix_{name}1.weight": (WIDTH, _RWKV_RANK) for name in "wavg"},
    **{f"time_mix_{name}2.weight": (_RWKV_RANK, WIDTH) for name in "wavg"},
    "time_mix_lerp_fused.weight": (WIDTH, 1, 1, 6),
    **{f"time_mix_{name}.weight": (WIDTH,) for name in ("k_k", "k_a", "r_k", "ln")},
    "time_mix_ln.bias": (WIDTH,),
    **{
        f"time_mix_{name}.weight": (WIDTH, WIDTH)
        for name in ("key", "value", "receptance", "output")
    },
    "channel_mix_lerp_k.weight": (WIDTH, 1, 1),
    "channel_mix_key.weight": (WIDTH, FF),
    "channel_mix_value.weight": (FF, WIDTH),
}
_BERT: Tensors = {
    **{
        f"{name}.{kind}": (WIDTH, WIDTH)[: 2 if kind == "weight" else 1]
        for name in ("attn_q", "attn_k", "attn_v", "attn_output")
        for kind in ("weight", "bias")
    },
    **{
        f"{name}_output_norm.{kind}": (WIDTH,)
        for name in ("attn", "layer")
        for kind in ("weight", "bias")
    },
    "ffn_up.weight": (WIDTH, FF),
    "ffn_up.bias": (FF,),
    "ffn_down.weight": (FF, WIDTH),
    "ffn_down.bias": (WIDTH,),
}
_T5_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_o")
_T5_BLOCK: Tensors = {
    "attn_norm.weight": (WIDTH,),
    **{f"{name}.weight": (WIDTH, WIDTH) for name in _T5_ATTENTION},
    "attn_rel_b.weight": (HEADS, 32),
    "ffn_norm.weight": (WIDTH,),
    "ffn_up.weight": (WIDTH, FF),
    "ffn_down.weight": (FF, WIDTH),
}
_T5_CROSS: Tensors = {
    "cross_attn_norm.weight": (WIDTH,),
    **{f"cross_{name}.weight": (WIDTH, WIDTH) for name in _T5_ATTENTION},
}


@dataclass(frozen=True)
class Architecture:
    """``layers``: the tensors of each layer. ``facts``: metadata below the name, over ``_BASE``.

    ``is_tied``: there is no ``output`` tensor of its own. ``top``: tensors outside of the layers.
    """

    layers: list[Tensors]
    facts: dict[str, Fact] = field(default_factory=dict)
    top: Tensors = field(default_factory=lambda: _TOP)
    is_tied: bool = False


def _kv_heads(layers: list[Tensors]) -> Fact:
    """Hybrid files say which layers are recurrent by a head count of 0."""
    return [KV_HEADS if "attn_q.weight" in layer else 0 for layer in layers]


def _hybrid(
    recurrent: Tensors, attention: Tensors, facts: dict[str, Fact], top: Tensors = _TOP
) -> Architecture:
    layers = [recurrent, attention, recurrent, attention]
    return Architecture(layers, {**facts, "attention.head_count_kv": _kv_heads(layers)}, top)


_LATENT_FACTS: dict[str, Fact] = {
    **_ROUTED,
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": WIDTH,
    "attention.kv_lora_rank": _KV_RANK,
    "attention.key_length": _KV_RANK + _ROPE,
    "attention.value_length": _KV_RANK,
    "attention.key_length_mla": _NOPE + _ROPE,
    "attention.value_length_mla": _VALUE,
    "rope.dimension_count": _ROPE,
    "leading_dense_block_count": 1,
    "expert_shared_count": 1,
    "expert_weights_scale": 1.0,
}
_WINDOW_FACTS: dict[str, Fact] = {
    "attention.sliding_window": WINDOW,
    "attention.key_length": HEAD,
    "attention.value_length": HEAD,
}
_RWKV_FACTS: dict[str, Fact] = {
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "attention.layer_norm_epsilon": 1e-5,
    "wkv.head_size": WIDTH,  # llama.cpp reads 32 values at once, whatever is given here
    "token_shift_count": 2,
    **{
        f"attention.{name}_lora_rank": _RWKV_RANK
        for name in ("decay", "iclr", "value_residual_mix", "gate")
    },
}
_RECURRENT: dict[str, Fact] = {
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "feed_forward_length": 0,
}
_LATENT_LAYERS: list[Tensors] = [{**_LATENT, **_MLP}, {**_LATENT, **_MOE, **_SHARED_EXPERT}]
_ENCODED: dict[str, Fact] = {
    "attention.head_count_kv": HEADS,
    "attention.causal": False,
    "attention.layer_norm_epsilon": 1e-5,
    "pooling_type": int(gguf.PoolingType.MEAN),
}
_EMBEDDING_NORMS: Tensors = {f"token_embd_norm.{kind}": (WIDTH,) for kind in ("weight", "bias")}

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture([{**_ATTENTION, **_MLP}] * 2),
    "qwen3moe": Architecture(
        [{**_ATTENTION, **_QK_NORMS, **_MOE}] * 2,
        {**_ROUTED, "attention.key_length": HEAD, "attention.value_length": HEAD},
    ),
    "gemma3": Architecture([{**_ATTENTION, **_QK_NORMS, **_MLP, **_POST_NORMS}] * 6, _WINDOW_FACTS),
    "deepseek2": Architecture(_LATENT_LAYERS, _LATENT_FACTS),
    "mamba": Architecture([_MAMBA] * 2, {**_RECURRENT, **_SSM}),
    "mamba2": Architecture([_MAMBA2] * 2, {**_RECURRENT, **_GROUPED}),
    "lfm2": _hybrid(
        {**_SHORT_CONVOLUTION, **_MLP},
        {**_ATTENTION, **_QK_NORMS, **_MLP},
        {"shortconv.l_cache": 3},
        {"token_embd_norm.weight": (WIDTH,)},
    ),
    "granitehybrid": _hybrid({**_MAMBA2, **_MLP}, {**_ATTENTION, **_MLP}, _GROUPED),
    "jamba": _hybrid({**_MAMBA, **_MAMBA_NORMS, **_MLP}, {**_ATTENTION, **_MLP}, _SSM),
    "rwkv7": Architecture(
        [_RWKV7] * 2,
        _RWKV_FACTS,
        {"output_norm.weight": (WIDTH,), "output_norm.bias": (WIDTH,), **_EMBEDDING_NORMS},
    ),
    "bert": Architecture(
        [_BERT] * 2,
        _ENCODED,
        {"position_embd.weight": (WIDTH, CONTEXT), "token_types.weight": (WIDTH, 2)}
        | _EMBEDDING_NORMS,
        is_tied=True,
    ),
    "t5": Architecture(
        [],
        {"attention.relative_buckets_count": 32, "attention.head_count_kv": HEADS},
        {
            "enc.output_norm.weight": (WIDTH,),
            "dec.output_norm.weight": (WIDTH,),
            **{f"enc.blk.0.{name}": shape for name, shape in _T5_BLOCK.items()},
            **{f"dec.blk.0.{name}": shape for name, shape in (_T5_BLOCK | _T5_CROSS).items()},
        },
    ),
}
"""By llama.cpp's name. Memory: plain (llama, qwen3moe), latent, window, recurrent, hybrid, none."""


def write_architecture(path: Path, name: str, vocabulary: Vocabulary, seed: int = 0) -> Path:
    """Write a file of this architecture; the same arguments give the same file."""
    architecture = ARCHITECTURES[name]
    temporary = path.with_name(f".{path.name}.tmp")
    writer = gguf.GGUFWriter(temporary, name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(path.stem)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    num_layers = len(architecture.layers) or 1
    facts = {**_BASE, **architecture.facts, "block_count": num_layers}
    for key, fact in facts.items():
        _add_fact(writer, f"{name}.{key}", fact)
    add_vocabulary(writer, vocabulary)
    writer.add_token_type_count(2)
    for tensor, shape in _tensors(architecture, len(vocabulary.tokens)).items():
        values = _values(tensor, shape, seed)
        if tensor == "output.weight":
            values[vocabulary.end_ids] = 0  # so that greedy text runs to its limit
        writer.add_tensor(tensor, values)
    finish(writer, temporary, path)
    return path


def _tensors(architecture: Architecture, vocab_size: int) -> Tensors:
    tensors = {"token_embd.weight": (WIDTH, vocab_size), **architecture.top}
    if not architecture.is_tied:
        tensors["output.weight"] = (WIDTH, vocab_size)
    for number, layer in enumerate(architecture.layers):
        tensors |= {f"blk.{number}.{name}": shape for name, shape in layer.items()}
    return tensors


def _values(name: str, shape: Shape, seed: int) -> npt.NDArray[np.float32]:
    """Norms near 1, mixes in 0 to 1, decays below 0, matrices that keep the size of what they multiply."""
    draws = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape[::-1])
    if name.endswith("ssm_a"):
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
        values = draws * shape[0] ** -0.5
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
