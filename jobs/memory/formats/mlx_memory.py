"""The memory of an MLX model: its weights, one whole context, and buffers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class MlxFolder:
    """What an estimate needs of a model folder: its ``config.json``, and its text model's tensors.

    ``sizes``: bytes by type, as safetensors names it; ``largest_packed``: of quantized weights.
    """

    fields: Json
    sizes: Mapping[str, int]
    largest_packed: int


def read_mlx_folder(path: Path) -> MlxFolder:
    """Read the headers of all weights. Raises ``ModelLoadError`` that names the problem."""
    fields = check_folder(path, is_remote_code_trusted=True)  # no code is run here
    sizes: Counter[str] = Counter()
    largest = 0
    for file in find_weights(path):
        for name, entry in read_safetensors_header(file).items():
            if name == "__metadata__" or _is_left_out(name):
                continue
            start, end = entry["data_offsets"]
            sizes[entry["dtype"]] += end - start
            if entry["dtype"] == _QUANTIZED:
                largest = max(largest, end - start)
    return MlxFolder(fields, sizes, largest)


def _is_left_out(name: str) -> bool:
    return name.removeprefix("language_model.").startswith(_LEFT_OUT)


def mlx_memory(folder: MlxFolder, plan: LoadPlan) -> ModelMemory:
    """The memory of the model of a folder."""
    config = MlxConfig.of(folder.fields)
    layers = layers_of(config)
    length = load_defaults.context_length(trained_length(folder.fields), plan.context_length)
    weights = _weights_bytes(folder, plan)
    width = _state_width(folder, plan)
    return ModelMemory(
        weights_bytes=weights,
        state_bytes=_state_bytes(layers, length, width, plan.kv_bits),
        compute_bytes=_compute_bytes(config, folder, weights, plan),
        is_known=is_known(config),
        context_length=length,
        num_slots=1 if plan.is_alone else plan.num_slots or load_defaults.DEFAULT_SLOTS,
        state_per_token=int(values_per_token(layers) * _value_bytes(width, plan.kv_bits)),
    )


def _weights_bytes(folder: MlxFolder, plan: LoadPlan) -> int:
    """In memory; a CPU computes with float32."""
    if plan.device(BACKEND) != "cpu":
        return sum(folder.sizes.values())
    return sum(
        size * _FLOAT32 // _FLOAT_SIZES.get(kind, _FLOAT32) for kind, size in folder.sizes.items()
    )


def _state_width(folder: MlxFolder, plan: LoadPlan) -> int:
    """Bytes of a key's or value's number: that of the type which most weights have."""
    if plan.device(BACKEND) == "cpu":
        return _FLOAT32
    return _FLOAT_SIZES[max(_FLOAT_SIZES, key=lambda kind: folder.sizes.get(kind, 0))]


def _value_bytes(width: int, kv_bits: int | None) -> float:
    """Bytes of one value; the scale and the bias of a group have the width of the rest."""
    return width if kv_bits is None else kv_bits / 8 + 2 * width / _GROUP_SIZE


def _state_bytes(layers: list[LayerState], length: int, width: int, kv_bits: int | None) -> int:
    """One sequence of a whole context; only what grows with it is quantized."""
    held = math.ceil(length / _UNIT) * _UNIT
    growing = sum(layer.num_values(held) for layer in layers if layer.window is None)
    windows = sum(layer.num_values(held) for layer in layers if layer.window is not None)
    return int(growing * _value_bytes(width, kv_bits)) + windows * width + fixed_bytes(layers)


def _compute_bytes(config: MlxConfig, folder: MlxFolder, weights: int, plan: LoadPlan) -> int:
    if plan.device(BACKEND) != "cpu":
        return int(_GPU_SHARE * weights) + _GPU_BYTES
    widths = _HIDDEN_ROWS * config.width + _FORWARD_ROWS * _forward(config)
    return _FLOAT32 * _PREFILL_ROWS * widths + _expanded_bytes(folder)


def _forward(config: MlxConfig) -> int:
    """Width of the forward layers that one row passes through."""
    used = config.number("num_experts_per_tok moe_topk") * config.number("moe_intermediate_size")
    return max(config.number("intermediate_size n_inner ffn_hidden_size"), used)


def _expanded_bytes(folder: MlxFolder) -> int:
    """Quantized weights that a CPU expands: those it keeps so, and the largest other one."""
    all_expanded = _EXPANSION * folder.sizes.get(_QUANTIZED, 0)
    return min(load_defaults.EXPANDED_BYTES, all_expanded) + _EXPANSION * folder.largest_packed
