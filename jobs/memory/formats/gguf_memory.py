"""The memory of a GGUF model, as llama.cpp allocates it at load."""

from __future__ import annotations

import math
import platform

from jobs.memory import load_defaults
from jobs.memory.formats.gguf_file import GgufModel, GgufTensor
from jobs.memory.formats.gguf_layers import is_known, layers_of
from jobs.memory.formats.layer_state import LayerState, fixed_bytes, values_per_token
from jobs.memory.formats.plan import LoadPlan, ModelMemory

BACKEND = "llama-cpp"

_UNIT = load_defaults.CELLS_UNIT
_BITS_PER_VALUE = {None: 16.0, 8: 8.5, 4: 4.5}  # f16, q8_0, q4_0
_BATCH_ROWS = 512  # n_ubatch of llama.cpp
_FLOAT32, _FLOAT16 = 4, 2
# A pass over so many rows, in units of the model's widths: measured, see docs/memory.md.
_HIDDEN_ROWS, _FORWARD_ROWS = 4, 3
_WITHOUT_FLASH = frozenset({"grok"})  # of these, the scores of all heads are kept for a pass
# Types of tensors that llama.cpp copies for a CPU in an order that suits its kernels:
# ``ggml_repack_get_optimal_repack_type``, for a processor of the last ten years.
_Q4_0, _Q8_0, _Q2_K, _Q4_K, _Q5_K, _Q6_K, _IQ4_NL, _MXFP4 = 2, 8, 10, 12, 13, 14, 20, 39
_REPACKED = {
    "x86_64": {_Q4_0, _Q2_K, _Q4_K, _IQ4_NL, _MXFP4},
    "aarch64": {_Q4_0, _Q4_K, _Q5_K, _Q6_K, _Q8_0, _IQ4_NL, _MXFP4},
}
_REPACKED_ROWS = 8  # tensors with other numbers of rows are not
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


def gguf_memory(model: GgufModel, plan: LoadPlan) -> ModelMemory:
    """The memory of the model."""
    layers = layers_of(model)
    length = load_defaults.context_length(model.header.context_length, plan.context_length)
    num_slots = plan.num_slots or load_defaults.DEFAULT_SLOTS
    cells = num_cells(model, plan, length, num_slots)
    return ModelMemory(
        weights_bytes=_weights_bytes(model, plan),
        state_bytes=_state_bytes(layers, cells, num_slots + 1, plan.kv_bits),
        compute_bytes=_compute_bytes(model, plan, cells, num_slots),
        is_known=is_known(model),
        context_length=length,
        num_slots=num_slots,
        state_per_token=_cell_bytes(values_per_token(layers), plan.kv_bits),
    )


def num_cells(model: GgufModel, plan: LoadPlan, length: int, num_slots: int) -> int:
    """KV cells of all slots, rounded up as llama.cpp does."""
    if plan.kv_layout == "per_slot":
        return num_slots * _whole_units(length)
    original = model.number("rope.scaling.original_context_length") or None
    return _whole_units(load_defaults.num_shared_cells(length, num_slots, original))


def _whole_units(num_tokens: int) -> int:
    return math.ceil(num_tokens / _UNIT) * _UNIT


def _state_bytes(
    layers: list[LayerState], cells: int, num_sequences: int, kv_bits: int | None
) -> int:
    kept = _cell_bytes(sum(layer.num_values(cells) for layer in layers), kv_bits)
    return kept + num_sequences * fixed_bytes(layers)


def _cell_bytes(num_values: int, kv_bits: int | None) -> int:
    bits = _BITS_PER_VALUE.get(kv_bits, _BITS_PER_VALUE[None])  # another number is refused at load
    return int(num_values * bits / 8)


def _weights_bytes(model: GgufModel, plan: LoadPlan) -> int:
    """The mapped file, and on a CPU the copies of tensors in another order."""
    total = sum(tensor.num_bytes for tensor in model.tensors)
    if plan.device(BACKEND) != "cpu":
        return total
    has_head = any(tensor.name == _HEAD for tensor in model.tensors)
    copied = (tensor for tensor in model.tensors if _is_copied(tensor, has_head=has_head))
    return total + sum(tensor.num_bytes for tensor in copied)


def _is_copied(tensor: GgufTensor, *, has_head: bool) -> bool:
    if tensor.name == _EMBEDDING and has_head:
        return False  # only looked up in
    is_whole = len(tensor.shape) > 1 and tensor.shape[1] % _REPACKED_ROWS == 0
    return is_whole and tensor.kind in _REPACKED.get(_processor(), set())


def _processor() -> str:
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def _compute_bytes(model: GgufModel, plan: LoadPlan, cells: int, num_slots: int) -> int:
    """Buffers of a pass: what each row sees, its activations, and the logits."""
    arch = model.header.architecture
    has_window = model.number("attention.sliding_window") > 0
    mask = _FLOAT16 * _BATCH_ROWS * cells * (2 if has_window else 1)
    if arch in _WITHOUT_FLASH:
        heads = max(model.per_layer("attention.head_count", 1))
        mask = _FLOAT32 * _BATCH_ROWS * cells * (heads + 1)
    widths = _HIDDEN_ROWS * model.number("embedding_length") + _FORWARD_ROWS * _forward(model)
    num_outputs = num_slots * (1 + plan.num_drafts) + load_defaults.SCORED_ROWS
    logits = _FLOAT32 * num_outputs * _vocabulary(model)
    return mask + max(_FLOAT32 * _BATCH_ROWS * widths, logits) + logits


def _forward(model: GgufModel) -> int:
    """Width of the forward layers that one row passes through."""
    plain = max(model.per_layer("feed_forward_length", 1), default=0)
    used = model.number("expert_used_count") * model.number("expert_feed_forward_length")
    return max(plain, used)


def _vocabulary(model: GgufModel) -> int:
    sizes = (tensor.shape[1] for tensor in model.tensors if tensor.name in (_EMBEDDING, _HEAD))
    return max(sizes, default=model.number("vocab_size"))
