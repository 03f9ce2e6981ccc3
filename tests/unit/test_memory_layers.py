"""The state of published models, from their configurations, against sums made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.catalog.gguf_header import GgufHeader
from jobs.memory.formats import gguf_layers, mlx_layers
from jobs.memory.formats.gguf_file import GgufModel
from jobs.memory.formats.layer_state import LayerState, fixed_bytes
from jobs.memory.formats.mlx_config import MlxConfig

MODELS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "memory" / "models.json").read_text()
)
FLOAT16 = 2


def gguf_model(metadata: dict[str, Any]) -> GgufModel:
    arch = metadata["general.architecture"]
    facts = {
        key if key.startswith("general.") else f"{arch}.{key}": value
        for key, value in metadata.items()
    }
    return GgufModel(GgufHeader(3, 0, facts), {}, ())


def check(layers: list[LayerState], expected: dict[str, Any]) -> None:
    plain = [layer for layer in layers if layer.window is None]
    windows = [layer for layer in layers if layer.window is not None]
    assert FLOAT16 * sum(layer.per_token for layer in plain) == expected["per_token"]
    assert FLOAT16 * sum(layer.per_token for layer in windows) == expected.get(
        "per_window_token", 0
    )
    assert {layer.window for layer in windows} <= {expected.get("window_tokens")}
    assert fixed_bytes(layers) == expected["fixed"]


@pytest.mark.parametrize("name", MODELS)
def test_an_mlx_model_keeps_what_the_sum_says(name: str) -> None:
    config = MlxConfig.of(MODELS[name]["config"])
    assert mlx_layers.is_known(config)
    check(mlx_layers.layers_of(config), MODELS[name]["mlx"])


@pytest.mark.parametrize("name", MODELS)
def test_a_gguf_model_keeps_what_the_sum_says(name: str) -> None:
    model = gguf_model(MODELS[name]["metadata"])
    assert gguf_layers.is_known(model)
    check(gguf_layers.layers_of(model), MODELS[name]["gguf"])


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "made_up"},
        {"model_type": "llama", "num_hidden_layers": 2},
        {"model_type": "llama", "num_hidden_layers": "many", "num_attention_heads": None},
        {"model_type": "deepseek_v41", "num_hidden_layers": 2, "num_attention_heads": 4},
        {"model_type": 3, "text_config": [], "layer_types": [3, None]},
        {"model_type": "llama", "model_file": "own.py", "num_hidden_layers": 2, "n_heads": 4},
    ],
)
def test_a_configuration_that_does_not_say_all_is_not_known(config: dict[str, Any]) -> None:
    assert not mlx_layers.is_known(MlxConfig.of(config))


@pytest.mark.parametrize(
    "metadata",
    [
        {"general.architecture": ""},
        {"general.architecture": "llama", "block_count": 2},
        {"general.architecture": "llama", "attention.head_count": 4},
        {"general.architecture": "deepseek4", "block_count": 2, "attention.head_count": 4},
    ],
)
def test_metadata_that_do_not_say_all_are_not_known(metadata: dict[str, Any]) -> None:
    assert not gguf_layers.is_known(gguf_model(metadata))
