"""What single architectures of mlx_lm need beside the common sizes."""

from typing import Any

# Architectures of which no tiny model can be made here, and why.
UNUSABLE = {
    "olmo": "needs the package ai2-olmo",
    "prism_hadamard_qwen35": "needs weights that are packed in a way of its own",
}
# These compute with a kernel of Metal.
METAL_ONLY = ("bitnet", "muse_spark")

# What mlx_lm gives for the same text read at once and token by token differs, and why.
WRONG_ALONE = {
    "phi3small": "mlx_lm reads a prompt without hiding the tokens that come later",
    "plamo3": "mlx_lm's sliding window is one token longer for a prompt than for a new token",
}

# Wrapper -> its text model: a class in its module, another module, or a class in that.
TEXT_OF: dict[str, str] = {
    "gemma3": "gemma3_text",
    "gemma3n": "TextConfig",
    "gemma4": "gemma4_text",
    "kimi_k25": "deepseek_v3",
    "kimi_k3": "TextArgs",
    "kimi_vl": "TextArgs",
    "lfm2-vl": "lfm2",
    "llama4": "TextArgs",
    "minimax_m3_vl": "TextArgs",
    "mistral3": "llama",
    "muse_spark": "TextArgs",
    "pixtral": "llama",
    "qwen2_vl": "qwen2",
    "qwen3_5": "TextModelArgs",
    "qwen3_5_moe": "qwen3_5.TextModelArgs",
    "qwen3_vl": "qwen3",
    "qwen3_vl_moe": "qwen3_moe",
}

_KDA = {
    "kda_layers": [1],
    "full_attn_layers": [2],
    "num_heads": 4,
    "head_dim": 16,
    "short_conv_kernel_size": 4,
}
_LLAMA_4_SCALING = {
    "rope_theta": 1e4,
    "rope_type": "default",
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 256,
}
_PER_TYPE = {
    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    "full_attention": {"rope_theta": 1e4, "rope_type": "default"},
}
_LFM2 = {
    "layer_types": ["conv", "full_attention"],
    "block_dim": 64,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "full_attn_idxs": [1],
}
_LONGCAT = {
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "zero_expert_num": 2,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
}
_ALPHA = {"type": "dynamic", "factor": 1.0, "alpha": 1.0}
_YARN = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256}

# Architecture, or "wrapper.class of its text model" -> fields.
SPECIAL: dict[str, dict[str, Any]] = {
    "afm7": {"num_kv_reuse_layers": 1, "num_layers": 3},
    "baichuan_m1": {"sliding_window_layers": [0], "conv_window": 2},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
    },
    "deepseek_v2": {"rope_scaling": _YARN, "topk_method": "gready"},
    "exaone4": {"sliding_window_pattern": "LG"},
    "exaone_moe": {"is_moe_layer": [False, True]},
    "gemma3n.TextConfig": {
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0, 0.5, 0.0, 0.0],
        "hidden_size_per_layer_input": 16,
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 8,
    },
    "gemma4_text": {
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 16,
        "rope_parameters": None,
    },
    "gpt2": {"num_key_value_heads": None},
    "gpt_bigcode": {"num_key_value_heads": None},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan": {"cla_share_factor": 2, "use_cla": True, "rope_scaling": _ALPHA},
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
    },
    "kimi_k3.TextArgs": {
        "linear_attn_config": {**_KDA, "gate_lower_bound": -5.0},
        "attn_res_block_size": 2,
        "activation_situ_beta": 1.0,
        "activation_situ_linear_beta": 1.0,
    },
    "kimi_linear": {"linear_attn_config": _KDA},
    "lfm2": _LFM2,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1]},
    "llama4.TextArgs": {
        "interleave_moe_layer_step": 2,
        "num_hidden_layers": 4,
        "num_experts_per_tok": 1,
    },
    "llama4_text": {"no_rope_layers": [1, 0]},
    "longcat_flash": _LONGCAT,
    "longcat_flash_ngram": {**_LONGCAT, "ngram_vocab_size_ratio": 3},
    "mellum": {"rope_parameters": _PER_TYPE},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0],
        "moe_layer_freq": [0, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 16,
        "swa_v_head_dim": 16,
    },
    "minicpm3": {"rope_scaling": {"original_max_position_embeddings": 512}},
    "minimax_m3_vl.TextArgs": {
        "moe_layer_freq": [0, 1],
        "layer_types": ["full_attention", "sparse_attention"],
        "index_block_size": 8,
        "index_topk_blocks": 2,
        "index_n_heads": 2,
    },
    "ministral3": {"rope_parameters": _LLAMA_4_SCALING},
    "mistral4": {"rope_parameters": _LLAMA_4_SCALING},
    "muse_spark.TextArgs": {
        "post_norm_eps": 1e-6,
        "layer_rope_theta": [1e4, 0],
        "output_multiplier": 0.5,
        "num_shared_experts": 0,
    },
    "nemotron-nas": {
        "block_configs": [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}}] * 2
    },
    "nemotron": {"hidden_act": "relu2"},
    "nemotron_h": {"layer_types": ["mamba", "attention", "mlp", "moe"]},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "openelm": {
        "ffn_dim_divisor": 32,
        "num_query_heads": [4, 4],
        "num_kv_heads": [2, 2],
        "ffn_multipliers": [1.0, 1.0],
    },
    # It hides tokens by numbers of its real vocabulary.
    "phi3small": {
        "vocab_size": 100352,
        "hidden_size": 32,
        "dense_attention_every_n_layers": 1,
        "gegelu_limit": 20.0,
    },
    "plamo": {"n_shared_head": 2},
    "qwen3_5.TextModelArgs": {"num_experts": 0},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "spark2_5": {"rope_parameters": _PER_TYPE},
    "laguna": {"rope_parameters": _PER_TYPE},
}
