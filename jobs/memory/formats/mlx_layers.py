"""What the layers of an MLX model keep, from its configuration, by the rules of mlx_lm's models.

A layer whose kind is not known counts as full attention, which needs the most.
"""

from __future__ import annotations

from enum import Enum, auto

from jobs.memory.formats.layer_state import LayerState
from jobs.memory.formats.mlx_config import MlxConfig
from jobs.memory.formats.mlx_recurrent import recurrent_values

# Of these, mlx_lm keeps the latent values; of other models with latent attention whole heads.
_EXPANDED = frozenset("deepseek_v2 minicpm3 youtu_llm".split())
_INDEXED = frozenset("deepseek_v32 glm_moe_dsa".split())
# The models whose ``layer_types`` choose caches with a window, and those that have a period for it.
_TYPED = frozenset(
    "afmoe exaone_moe gear gemma3n gemma4_text gpt_oss laguna llama mellum ministral3 muse_glimmer"
    " olmo3 spark2_5 step3p5".split()
)
_PERIODS = {
    "cohere2": 4, "gemma3_text": 6, "gemma4_text": 5, "gpt_oss": 2, "llama4": 4,
    "muse_glimmer": 4, "olmo3": 4, "plamo3": 8, "spark2_5": 4,
}  # fmt: skip
# These count layers, whatever kinds their configuration lists.
_COUNTED = frozenset("qwen3_5 qwen3_5_moe qwen3_next cohere2 gemma3_text".split())
_WINDOW = "sliding_window sliding_window_size window_size attention_window_size"
_PARALLEL = frozenset("falcon_h1 baichuan_m1".split())
_UNCOUNTED = frozenset({"deepseek_v41"})  # its cache is of a kind of its own
_MAX_LOOPS = 64
_GEMMA4_GLOBAL_HEAD = 512  # values of a head that attends to everything
_PREFILL_CHUNK = 256  # tokens that a window grows by while a prompt is read, as a typical chunk


class Kind(Enum):
    """What a layer keeps."""

    FULL = auto()
    WINDOW = auto()
    RECURRENT = auto()
    BOTH = auto()
    NOTHING = auto()


_KINDS = {
    "full_attention": Kind.FULL, "attention": Kind.FULL, "*": Kind.FULL,
    "sliding_attention": Kind.WINDOW, "chunked_attention": Kind.WINDOW,
    "mamba": Kind.RECURRENT, "M": Kind.RECURRENT, "conv": Kind.RECURRENT,
    "linear_attention": Kind.RECURRENT, "recurrent": Kind.RECURRENT,
    "mlp": Kind.NOTHING, "moe": Kind.NOTHING, "-": Kind.NOTHING, "E": Kind.NOTHING,
}  # fmt: skip


def is_known(config: MlxConfig) -> bool:
    """Whether the configuration says all about the model's state."""
    is_own = "model_file" in config.fields or config.model_type in _UNCOUNTED
    layers = layers_of(config)
    return not is_own and any(layer.per_token or layer.fixed for layer in layers)


def layers_of(config: MlxConfig) -> list[LayerState]:
    """The state of each layer; of as many layers as have a cache."""
    fixed = recurrent_values(config)
    layers = [_layer(config, kind, number, fixed) for number, kind in enumerate(kinds_of(config))]
    if config.model_type == "iquestloopcoder":
        window = config.number("loop_window_size") + _PREFILL_CHUNK
        layers += [LayerState(layer.per_token, window) for layer in layers]
    num_loops = min(config.number("num_loops", 1), _MAX_LOOPS)
    return layers * num_loops if config.model_type == "nanbeige" else layers


def _layer(config: MlxConfig, kind: Kind, number: int, fixed: int) -> LayerState:
    if kind is Kind.NOTHING:
        return LayerState()
    if kind is Kind.RECURRENT:
        return LayerState(fixed=fixed)
    per_token = _values(config, number, is_window=kind is Kind.WINDOW)
    own = fixed if kind is Kind.BOTH or config.model_type in _PARALLEL else 0
    window = _window(config) if kind is Kind.WINDOW else None
    return LayerState(per_token, window, own)


def _window(config: MlxConfig) -> int | None:
    """Tokens that a layer with a window holds at most, while a prompt is read."""
    size = config.number(_WINDOW) or config.number("attention_chunk_size")
    return size + _PREFILL_CHUNK if size else None


def kinds_of(config: MlxConfig) -> list[Kind]:
    """The kind of each layer with a cache."""
    kinds = _listed_kinds(config) or _counted_kinds(config)
    shared = config.number("num_kv_shared_layers num_kv_reuse_layers")
    return kinds[: max(0, len(kinds) - shared)]


def _listed_kinds(config: MlxConfig) -> list[Kind] | None:
    """The kinds as the configuration lists them, if it does."""
    if config.model_type == "recurrent_gemma":
        types = config.listed("block_types _block_types") or ["recurrent", "recurrent", "attention"]
        kinds = [_KINDS.get(types[n % len(types)], Kind.FULL) for n in range(config.num_layers)]
        return [Kind.WINDOW if kind is Kind.FULL else kind for kind in kinds]
    if config.model_type == "exaone4":
        pattern = config.listed("sliding_window_pattern") or ["G"]
        is_local = [pattern[n % len(pattern)] == "L" for n in range(config.num_layers)]
        return [Kind.WINDOW if local else Kind.FULL for local in is_local]
    listed = config.listed("hybrid_override_pattern layers_block_type layer_types")
    if listed is None or config.model_type in _COUNTED:
        return None
    kinds = [_KINDS.get(one, Kind.FULL) if isinstance(one, str) else Kind.FULL for one in listed]
    if config.model_type not in _TYPED:
        kinds = [Kind.FULL if kind is Kind.WINDOW else kind for kind in kinds]
    return kinds


def _counted_kinds(config: MlxConfig) -> list[Kind]:
    """The kinds by the number of each layer."""
    return [_kind_at(config, number) for number in range(config.num_layers)]


def _kind_at(config: MlxConfig, number: int) -> Kind:
    kind = config.model_type
    if kind in _PERIODS:
        period = config.number("sliding_window_pattern") or _PERIODS[kind]
        return Kind.FULL if (number + 1) % period == 0 else Kind.WINDOW
    if kind in _PARALLEL:
        is_window = number in (config.listed("sliding_window_layers") or [])
        return Kind.WINDOW if is_window else Kind.BOTH
    if kind == "mimo_v2_flash":
        pattern = config.listed("hybrid_layer_pattern") or []
        return Kind.WINDOW if number < len(pattern) and pattern[number] == 1 else Kind.FULL
    if kind == "step3p5":
        return Kind.WINDOW if number % 2 == 0 else Kind.FULL
    return Kind.RECURRENT if _is_recurrent(config, number) else Kind.FULL


def _is_recurrent(config: MlxConfig, number: int) -> bool:
    kind = config.model_type
    if kind in ("mamba", "mamba2", "rwkv7"):
        return True
    if kind in ("qwen3_next", "qwen3_5", "qwen3_5_moe"):
        return (number + 1) % config.number("full_attention_interval", 4) != 0
    if kind in ("bailing_hybrid", "bailing_moe_linear", "bailing_moe_v3"):
        group = config.number("layer_group_size", 4)
        return (number + 1) % group != 0 and number < config.num_layers // group * group
    if kind in ("kimi_linear", "kimi_k3"):
        return number + 1 in config.part("linear_attn_config").get("kda_layers", [])
    if kind == "jamba":
        return number % config.number("attn_layer_period", 8) != config.number(
            "attn_layer_offset", 4
        )
    if kind in ("lfm2", "lfm2_moe", "lfm2-vl"):
        return number not in (config.listed("full_attn_idxs") or [])
    if kind == "plamo2":
        step = config.number("mamba_step", 2)
        is_short = config.num_layers <= step // 2
        return number != config.num_layers - 1 if is_short else number % step != step // 2
    return False


def _values(config: MlxConfig, number: int, *, is_window: bool) -> int:
    """Values that the layer keeps for each token."""
    kind = config.model_type
    rank, rotary = config.number("kv_lora_rank"), config.number("qk_rope_head_dim")
    if rank and kind in _EXPANDED:
        key = config.number("qk_nope_head_dim") + rotary
        return config.num_heads * (key + config.number("v_head_dim", key))
    if rank:
        index = 2 * config.number("index_head_dim") if kind in _INDEXED else 0
        return (rank + rotary) * (2 if kind.startswith("longcat_flash") else 1) + index
    heads, size = _heads(config, number, is_window=is_window)
    value = config.number("swa_v_head_dim" if is_window else "v_head_dim", size)
    if kind != "mimo_v2_flash":
        value = size
    return heads * (size + value) + _index_values(config, number)


def _index_values(config: MlxConfig, number: int) -> int:
    if config.model_type != "minimax_m3_vl":
        return 0
    types = config.listed("layer_types") or []
    is_sparse = number < len(types) and types[number] == "sparse_attention"
    return config.number("index_head_dim", config.head_size) if is_sparse else 0


def _heads(config: MlxConfig, number: int, *, is_window: bool) -> tuple[int, int]:
    """Heads of keys and values of a layer, and the size of one."""
    heads, size = config.num_kv_heads, config.head_size
    per_layer = config.listed("num_kv_heads num_key_value_heads")
    if per_layer and number < len(per_layer):
        heads = int(per_layer[number])
    blocks = config.listed("block_configs")
    if blocks and number < len(blocks):
        grouped = blocks[number].get("attention", {}).get("n_heads_in_group") or 0
        heads = config.num_heads // grouped if grouped else 0
    if config.model_type == "gemma4_text" and not is_window:
        size = config.number("global_head_dim", _GEMMA4_GLOBAL_HEAD)
        is_equal = bool(config.fields.get("attention_k_eq_v"))
        heads = config.number("num_global_key_value_heads", heads) if is_equal else heads
    if is_window and config.model_type == "mimo_v2_flash":
        return config.number("swa_num_key_value_heads", heads), config.number("swa_head_dim", size)
    return heads, size
