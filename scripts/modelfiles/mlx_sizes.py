"""What the configurations of tiny MLX models say: by the name of a field, and by architecture."""

from typing import Any

VOCAB_SIZE = 300
WINDOW = 24  # tokens of every sliding window
_LAYERS = 2

# For every architecture that has a field of that name.
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "num_vocab": VOCAB_SIZE,
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "n_ctx": 512,
    "block_size": 512,
    "model_max_length": 512,
    # Sizes.
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "model_dim", "hidden_dim"), 64),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"),
        _LAYERS,
    ),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(
        ("num_key_value_heads", "n_kv_heads", "num_kv_heads", "num_attention_groups"), 2
    ),
    **dict.fromkeys(("head_dim", "kv_channels", "hidden_size_per_head"), 16),
    **dict.fromkeys(
        ("intermediate_size", "n_inner", "ffn_hidden_size", "ff_intermediate_size"), 96
    ),
    **dict.fromkeys(
        ("intermediate_size_mlp", "dense_intermediate_size", "shared_intermediate_size"), 96
    ),
    "global_head_dim": 16,
    # Norms, positions, switches.
    **dict.fromkeys(("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 1e-5),
    "layernorm_epsilon": 1e-5,
    "rope_theta": 1e4,
    "swa_rope_theta": 1e4,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.5,
    "partial_rotary_factor": 0.5,
    "rotary_dim": 8,
    "rope_local_base_freq": 1e4,
    "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias", "conv_bias", "use_qkv_bias"), False),
    **dict.fromkeys(("mamba_proj_bias", "use_cla", "post_norm", "use_expert_bias"), False),
    **dict.fromkeys(("use_conv_bias", "use_qk_norm", "qk_norm", "mamba_conv_bias"), True),
    "tie_word_embeddings": False,
    # Sliding windows.
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("attention_window_size", "attention_chunk_size", "loop_window_size"), WINDOW),
    "sliding_window_pattern": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    # Experts.
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_top_k", "n_shared_experts", "num_shared_experts"), 1),
    "num_shared_expert": 1,
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "moe_hidden_size"), 32),
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "share_expert_dim": 32,
    **dict.fromkeys(("n_group", "topk_group", "moe_layer_freq", "decoder_sparse_step"), 1),
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "mlp_only_layers": [],
    "use_mixed_mlp_moe": True,
    # Latent attention.
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    **dict.fromkeys(("index_head_dim", "index_n_heads"), 16),
    "index_topk": 16,
    # Recurrent layers.
    "state_size": 8,
    "ssm_state_size": 8,
    **dict.fromkeys(("conv_kernel", "mamba_d_conv", "conv1d_width", "linear_conv_kernel_dim"), 4),
    **dict.fromkeys(("conv_L_cache", "short_conv_kernel_size"), 3),
    **dict.fromkeys(("mamba_d_state", "mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_d_ssm": 128,
    "n_groups": 1,
    "time_step_rank": 4,
    "time_step_limit": [0.001, 100.0],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_allow_neg_eigval": True,
    "full_attention_interval": 2,
    **dict.fromkeys(("layer_group_size", "group_norm_size"), 2),
    **dict.fromkeys(
        ("a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim", "decay_low_rank_dim"), 8
    ),
    # Scales.
    **dict.fromkeys(("logits_scaling", "attention_multiplier", "embedding_multiplier"), 1.0),
    **dict.fromkeys(("residual_multiplier", "scale_depth", "scale_emb"), 1.0),
    "final_logit_softcapping": 30.0,
    "logits_soft_cap": 30.0,
    "dim_model_base": 64,
    "rope_scaling": None,
}
