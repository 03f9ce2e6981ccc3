"""Facts from the ``config.json`` of an MLX model, under the names that mlx_lm's models use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# mlx_lm.utils.MODEL_REMAPPING, as far as the state depends on it.
_SAME_AS = {
    "mistral": "llama",
    "llava": "mistral3",
    "phi-msft": "phixtral",
    "falcon_mamba": "mamba",
    "kimi_k2": "deepseek_v3",
    "joyai_llm_flash": "deepseek_v3",
    "gemma4_unified": "gemma4",
    "deepseek_v41_text": "deepseek_v41",
}
_TEXT_TYPES = {  # wrapper -> its text model, if the configuration of that does not name it
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "kimi_vl": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
}
_LAYERS = "num_hidden_layers n_layer n_layers num_layers num_transformer_layers"
_HEADS = "num_attention_heads n_head n_heads num_heads num_query_heads"
_HEADS_KV = "num_key_value_heads n_kv_heads num_kv_heads num_attention_groups multi_query_group_num"
_WIDTH = "hidden_size n_embd d_model model_dim hidden_dim"
_HEAD_SIZE = "head_dim kv_channels hidden_size_per_head"


@dataclass(frozen=True, slots=True)
class MlxConfig:
    """The configuration of the model that makes the text: a wrapper's inner one, or the whole."""

    model_type: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> MlxConfig:
        """The text model's part of a ``config.json``; what it lacks is taken from the whole."""
        inner = config.get("text_config")
        name = str(config.get("model_type", ""))
        name = _SAME_AS.get(name, name)
        fields = {**config, **inner} if isinstance(inner, dict) else config
        return cls(_TEXT_TYPES.get(name, name), fields)

    def number(self, names: str, default: int = 0) -> int:
        """The first whole number under one of the names, which are separated by spaces."""
        found = (self.fields.get(name) for name in names.split())
        return next((one for one in found if type(one) is int and one >= 0), default)

    def listed(self, names: str) -> list[Any] | None:
        """The first list under one of the names; a text counts as a list of letters."""
        found = (self.fields.get(name) for name in names.split())
        return next((list(one) for one in found if isinstance(one, list | str) and one), None)

    def part(self, name: str) -> Mapping[str, Any]:
        """The object under ``name``; empty if there is none."""
        found = self.fields.get(name)
        return found if isinstance(found, dict) else {}

    @property
    def num_layers(self) -> int:
        pattern = self.listed("hybrid_override_pattern layers_block_type")
        own = len(pattern) if self.model_type == "nemotron_h" and pattern else 0
        return own or self.number(_LAYERS)

    @property
    def num_heads(self) -> int:
        return self.number(_HEADS) or max(self.listed("num_query_heads") or [0])

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values; those of queries where nothing else is said."""
        if self.model_type == "gpt_bigcode" and self.fields.get("multi_query", True):
            return 1
        if self.model_type == "recurrent_gemma":
            return 1
        if self.model_type == "gpt_neox":
            return self.num_heads
        if self.model_type == "dbrx":
            return int(self.part("attn_config").get("kv_n_heads", 0)) or self.num_heads
        if self.model_type == "plamo":
            return self.num_heads // max(1, self.number("n_shared_head", 1))
        return self.number(_HEADS_KV) or self.num_heads

    @property
    def width(self) -> int:
        return self.number(_WIDTH)

    @property
    def head_size(self) -> int:
        heads = self.num_heads
        return self.number(_HEAD_SIZE) or (self.width // heads if heads else 0)
