"""What the layers of a GGUF model keep, from its metadata, by llama.cpp's own rules.

Source: ``llama_model_base::load_hparams``, ``llama_hparams`` and ``create_memory`` of llama.cpp.
Sliding windows make no difference: the engine keeps all cells of them, so that kept prompts can be
cut anywhere (``swa_full``).
"""

from __future__ import annotations

from jobs.memory.formats.gguf_file import GgufModel
from jobs.memory.formats.layer_state import LayerState

_RECURRENT = frozenset("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7".split())
_PARALLEL = frozenset({"falcon-h1"})  # attention and recurrent state in each layer
# Recurrent, but for each so-manieth layer, if the file says nothing else.
_INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
_MAX_LAYERS = 512  # of llama.cpp
_GEMMA3N_OWN_LAYERS = 20  # with keys and values of their own; the rest shares them
# Their memory has parts that are not counted here.
_UNCOUNTED = frozenset(
    "deepseek32 deepseek4 glm-dsa glm5-next minimax-m3 dots3note hy_v4 qwen4exp kimi-k3"
    " bailingmoe3 hrm_text".split()
)


def is_known(model: GgufModel) -> bool:
    """Whether the metadata say all about the model's state."""
    arch = model.header.architecture
    has_state = arch in _RECURRENT or _heads_kv(model) != []
    return _num_layers(model) > 0 and has_state and arch not in _UNCOUNTED


def layers_of(model: GgufModel) -> list[LayerState]:
    """The state of each layer; empty if the metadata lack what it depends on."""
    arch = model.header.architecture
    fixed = _recurrent_values(model)
    if arch in _RECURRENT:
        return [LayerState(fixed=fixed)] * _num_layers(model)
    attention = _attention_layers(model)
    if arch in _PARALLEL:
        return [LayerState(per_token=layer.per_token, fixed=fixed) for layer in attention]
    recurrent = _recurrent_layers(model)
    return [
        LayerState(fixed=fixed) if is_recurrent else layer
        for layer, is_recurrent in zip(attention, recurrent, strict=True)
    ]


def _num_layers(model: GgufModel) -> int:
    """Without the layers that only predict several tokens, which the engine leaves out."""
    count = model.number("block_count") - model.number("nextn_predict_layers")
    return count if 0 < count <= _MAX_LAYERS else 0


def _heads_kv(model: GgufModel) -> list[int]:
    """Heads of keys and values per layer; empty if the file has no number of heads."""
    heads = model.per_layer("attention.head_count", _num_layers(model))
    key = "attention.head_count_kv"
    is_given = model.array(key) is not None or model.number(key, -1) >= 0
    given = model.per_layer(key, len(heads)) if is_given else heads
    return given if any(given) else []


def _attention_layers(model: GgufModel) -> list[LayerState]:
    num_layers = _num_layers(model)
    heads = _heads_kv(model) or [0] * num_layers
    sizes = _head_sizes(model, num_layers)
    num_own = num_layers - _num_sharing(model, num_layers)
    return [
        LayerState(per_token=count * size if number < num_own else 0)
        for number, (count, size) in enumerate(zip(heads, sizes, strict=True))
    ]


def _num_sharing(model: GgufModel, num_layers: int) -> int:
    """How many of the last layers use the keys and values of earlier ones."""
    if model.header.architecture == "gemma3n":
        return max(0, num_layers - _GEMMA3N_OWN_LAYERS)
    return model.number("attention.shared_kv_layers")


def _head_sizes(model: GgufModel, num_layers: int) -> list[int]:
    """Values of a key and a value of one head, per layer."""
    heads = max(model.per_layer("attention.head_count", num_layers), default=0)
    plain = model.number("embedding_length") // heads if heads else 0
    key = model.number("attention.key_length", plain)
    if model.number("attention.key_length_mla"):
        return [key] * num_layers  # of latent attention only the keys are kept
    value = model.number("attention.value_length", plain)
    narrow = model.number("attention.key_length_swa", key) + model.number(
        "attention.value_length_swa", value
    )
    pattern = model.array("attention.sliding_window_pattern")
    if pattern is None:
        return [max(key + value, narrow)] * num_layers
    return [narrow if is_sliding else key + value for is_sliding in pattern[:num_layers]]


def _recurrent_layers(model: GgufModel) -> list[bool]:
    num_layers = _num_layers(model)
    listed = model.array("attention.recurrent_layers")
    if listed is not None:
        return [bool(one) for one in listed[:num_layers]]
    default = _INTERVALS.get(model.header.architecture)
    if default is not None:
        interval = model.number("full_attention_interval", default)
        return [(number + 1) % interval != 0 for number in range(num_layers)]
    if not _recurrent_values(model):
        return [False] * num_layers
    heads = _heads_kv(model) or [0] * num_layers
    forward = model.per_layer("feed_forward_length", num_layers)
    is_alone = model.header.architecture.startswith("nemotron_h")  # a layer is one of three kinds
    return [
        count == 0 and not (is_alone and width) for count, width in zip(heads, forward, strict=True)
    ]


def _recurrent_values(model: GgufModel) -> int:
    """Values of a recurrent layer's state: ``n_embd_r`` + ``n_embd_s`` of llama.cpp."""
    hidden, heads = model.number("embedding_length"), _num_heads(model)
    if size := model.number("wkv.head_size"):
        return hidden * (model.number("token_shift_count", 2) + size)
    if length := model.number("shortconv.l_cache"):
        return hidden * (length - 1)
    kernel = model.number("ssm.conv_kernel")
    if size := model.number("kda.head_dim"):
        return heads * size * (3 * max(0, kernel - 1) + size)
    if model.header.architecture == "minimax-01":
        size = model.number("attention.key_length", hidden // heads if heads else 0)
        return heads * size * size
    inner, state = model.number("ssm.inner_size"), model.number("ssm.state_size")
    groups = 0 if model.header.architecture == "mamba" else model.number("ssm.group_count")
    return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner


def _num_heads(model: GgufModel) -> int:
    return max(model.per_layer("attention.head_count", _num_layers(model)), default=0)
