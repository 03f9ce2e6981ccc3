"""The size of the state of a recurrent layer, by the modules of mlx_lm that make it."""

from __future__ import annotations

from jobs.memory.formats.mlx_config import MlxConfig

_DELTA = frozenset("qwen3_next qwen3_5 qwen3_5_moe olmo_hybrid".split())
_KDA = frozenset("kimi_linear kimi_k3".split())
_LINEAR = frozenset("bailing_hybrid bailing_moe_linear".split())
_KERNEL = "linear_conv_kernel_dim conv_kernel mamba_d_conv conv1d_width short_conv_kernel_size"


def recurrent_values(config: MlxConfig) -> int:
    """Values of the state of one recurrent layer and one sequence; 0 if there is none."""
    kind, size = config.model_type, config.head_size
    before = config.number(_KERNEL, 4) - 1  # tokens that the convolution looks back
    if kind in _DELTA:
        return _delta(config, before)
    if kind in _KDA:
        linear = config.part("linear_attn_config")
        heads, width = int(linear.get("num_heads", 0)), int(linear.get("head_dim", 0))
        return heads * width * (3 * (int(linear.get("short_conv_kernel_size", 4)) - 1) + width)
    if kind == "bailing_moe_v3":
        return config.num_heads * size * (3 * before + size)
    if kind in _LINEAR:
        return config.num_heads * size * size
    if kind == "rwkv7":
        return config.width * (2 + size)
    if kind in ("lfm2", "lfm2_moe", "lfm2-vl"):
        return config.width * (config.number("conv_L_cache", 3) - 1)
    if kind == "recurrent_gemma":
        return config.number("lru_width", config.width) * (before + 1)
    if kind == "baichuan_m1":
        return 2 * config.num_kv_heads * size
    return _state_space(config, before)


def _delta(config: MlxConfig, before: int) -> int:
    keys = config.number("linear_num_key_heads") * config.number("linear_key_head_dim")
    values = config.number("linear_num_value_heads") * config.number("linear_value_head_dim")
    return before * (2 * keys + values) + values * config.number("linear_key_head_dim")


def _state_space(config: MlxConfig, before: int) -> int:
    """Mamba and Mamba 2; the latter's convolution also reads the groups' states."""
    state = config.number("ssm_state_size state_size mamba_d_state")
    inner, groups = _inner_width(config), config.number("n_groups mamba_n_groups")
    if config.model_type in ("mamba", "jamba", "plamo2"):
        groups = 0
    return before * (inner + 2 * groups * state) + inner * state


def _inner_width(config: MlxConfig) -> int:
    heads = config.number("mamba_n_heads mamba_num_heads")
    if config.model_type == "plamo2":
        return heads * config.number("hidden_size_per_head")
    if config.model_type == "mamba":
        return config.number("intermediate_size d_inner")
    if config.model_type == "mamba2":
        return config.number("num_heads") * config.number("head_dim")
    if config.model_type == "falcon_h1":
        own = config.number("mamba_d_ssm")
        return own or config.number("mamba_expand", 2) * config.width
    by_heads = heads * config.number("mamba_d_head mamba_head_dim")
    return by_heads or config.number("mamba_expand", 2) * config.width
