"""The memory of an MLX model: its weights, one whole context, and buffers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.catalog.disk_facts import trained_length
from jobs.catalog.mlx_folder import Json, check_folder
from jobs.catalog.mlx_weights import find_weights, read_safetensors_header
from jobs.memory import load_defaults
from jobs.memory.formats.layer_state import LayerState, fixed_bytes, values_per_token
from jobs.memory.formats.mlx_config import MlxConfig
from jobs.memory.formats.mlx_layers import is_known, layers_of
from jobs.memory.formats.plan import LoadPlan, ModelMemory

BACKEND = "mlx"

_UNIT = load_defaults.CELLS_UNIT
_FLOAT32 = 4
_FLOAT_SIZES = {"F16": 2, "BF16": 2, "F32": 4}
_QUANTIZED, _EXPANSION = "U32", 8  # packed weights, usually of 4 bits each
# Parts of a folder that a text model leaves out.
_LEFT_OUT = (
    "vision_tower.", "vision_model.", "visual.", "model.visual.", "audio_tower.",
    "multi_modal_projector.", "mtp.", "model.mtp.",
)  # fmt: skip
_GROUP_SIZE = 64  # of a quantized KV cache, if it fits the heads
_PREFILL_ROWS = 512  # of a prompt in one step, on a CPU
_HIDDEN_ROWS, _FORWARD_ROWS = 4, 3  # a pass over so many rows, in units of the model's widths
# On a GPU, not measured yet: MLX's own pool, and the buffers of a step.
_GPU_SHARE, _GPU_BYTES = 0.05, 512 << 20

Tensor = tuple[str, str, int]
"""Name, type, size in bytes."""


def mlx_memory(path: Path, plan: LoadPlan) -> ModelMemory:
    """The memory of the model folder ``path``. Raises ``ModelLoadError`` if it cannot be read."""
    fields = check_folder(path, is_remote_code_trusted=True)  # no code is run here
    config = MlxConfig.of(fields)
    tensors = list(_tensors(path))
    layers = layers_of(config)
    length = load_defaults.context_length(trained_length(fields), plan.context_length)
    weights = sum(_weight_bytes(tensor, plan) for tensor in tensors)
    width = _state_width(tensors, plan)
    return ModelMemory(
        weights_bytes=weights,
        state_bytes=_state_bytes(layers, length, width, plan.kv_bits),
        compute_bytes=_compute_bytes(config, tensors, weights, plan),
        is_known=is_known(config),
        context_length=length,
        num_slots=1 if plan.is_alone else plan.num_slots or load_defaults.DEFAULT_SLOTS,
        state_per_token=int(values_per_token(layers) * _value_bytes(width, plan.kv_bits)),
    )


def _tensors(path: Path) -> Iterator[Tensor]:
    for file in find_weights(path):
        header: Json = read_safetensors_header(file)
        for name, entry in header.items():
            if name != "__metadata__" and not name.removeprefix("language_model.").startswith(
                _LEFT_OUT
            ):
                yield _tensor(name, entry)


def _tensor(name: str, entry: Any) -> Tensor:
    start, end = entry["data_offsets"]
    return name, entry["dtype"], end - start


def _weight_bytes(tensor: Tensor, plan: LoadPlan) -> int:
    """In memory; a CPU computes with float32."""
    _, kind, size = tensor
    if plan.device(BACKEND) != "cpu":
        return size
    return size * _FLOAT32 // _FLOAT_SIZES.get(kind, _FLOAT32)


def _state_width(tensors: list[Tensor], plan: LoadPlan) -> int:
    """Bytes of a key's or value's number: that of the type which most weights have."""
    if plan.device(BACKEND) == "cpu":
        return _FLOAT32
    sizes = dict.fromkeys(_FLOAT_SIZES, 0)
    for _, kind, size in tensors:
        if kind in sizes:
            sizes[kind] += size
    return _FLOAT_SIZES[max(sizes, key=lambda kind: sizes[kind])]


def _value_bytes(width: int, kv_bits: int | None) -> float:
    """Bytes of one value; the scale and the bias of a group have the width of the rest."""
    return width if kv_bits is None else kv_bits / 8 + 2 * width / _GROUP_SIZE


def _state_bytes(layers: list[LayerState], length: int, width: int, kv_bits: int | None) -> int:
    """One sequence of a whole context; only what grows with it is quantized."""
    held = math.ceil(length / _UNIT) * _UNIT
    growing = sum(layer.num_values(held) for layer in layers if layer.window is None)
    windows = sum(layer.num_values(held) for layer in layers if layer.window is not None)
    return int(growing * _value_bytes(width, kv_bits)) + windows * width + fixed_bytes(layers)


def _compute_bytes(config: MlxConfig, tensors: list[Tensor], weights: int, plan: LoadPlan) -> int:
    if plan.device(BACKEND) != "cpu":
        return int(_GPU_SHARE * weights) + _GPU_BYTES
    widths = _HIDDEN_ROWS * config.width + _FORWARD_ROWS * _forward(config)
    return _FLOAT32 * _PREFILL_ROWS * widths + _expanded_bytes(tensors)


def _forward(config: MlxConfig) -> int:
    """Width of the forward layers that one row passes through."""
    used = config.number("num_experts_per_tok moe_topk") * config.number("moe_intermediate_size")
    return max(config.number("intermediate_size n_inner ffn_hidden_size"), used)


def _expanded_bytes(tensors: list[Tensor]) -> int:
    """Quantized weights that a CPU expands: those it keeps so, and the largest other one."""
    packed = [size for _, kind, size in tensors if kind == _QUANTIZED]
    expanded = [_EXPANSION * size for size in packed]
    return min(load_defaults.EXPANDED_BYTES, sum(expanded)) + max(expanded, default=0)
