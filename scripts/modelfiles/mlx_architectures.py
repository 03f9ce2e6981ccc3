"""Tiny MLX models with random weights, of every architecture of the installed mlx_lm.

A configuration has a value for each field of the architecture's ``ModelArgs`` that ``COMMON``
knows; ``SPECIAL`` says what is different. A wrapper's ``text_config`` is another architecture's
configuration.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models
from mlx.utils import tree_flatten

from scripts.modelfiles.mlx_sizes import COMMON
from scripts.modelfiles.mlx_special import SPECIAL, TEXT_OF, UNUSABLE

Json = dict[str, Any]


def architectures() -> list[str]:
    """The names of all architectures of which a model can be made, sorted."""
    found = [module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)]
    return [name for name in found if name not in UNUSABLE and hasattr(_load(name), "ModelArgs")]


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"mlx_lm.models.{name}")


def config_of(name: str) -> Json:
    """The ``config.json`` of a tiny model of the architecture ``name``."""
    config = _fields(_load(name).ModelArgs) | {"model_type": name}
    text = TEXT_OF.get(name)
    if text is not None:
        config["text_config"] = _text_config(name, text)
    return config | SPECIAL.get(name, {})


def _text_config(name: str, text: str) -> Json:
    """The configuration of a wrapper's text model, see ``TEXT_OF``."""
    place, _, own = text.rpartition(".")
    found = getattr(_load(place or name), own, None)
    if not inspect.isclass(found):
        return config_of(text)
    return _fields(found) | {"model_type": name} | SPECIAL.get(f"{name}.{own}", {})


def _fields(args: Any) -> Json:
    return {f.name: COMMON[f.name] for f in dataclasses.fields(args) if f.name in COMMON}


def make_module(config: Json) -> nn.Module:
    """A model of that configuration, with mlx's own random weights."""
    module = _load(config["model_type"])
    return module.Model(module.ModelArgs.from_dict(config))


def random_parameters(module: nn.Module, seed: int) -> dict[str, mx.array]:
    """Weights that make varied text, by name: matrices as large as trained ones, no row of zeros.

    Vectors (norms, biases, decays) stay near what the model begins with: other values overflow.
    """
    mx.random.seed(seed)
    weights = dict(tree_flatten(module.parameters()))
    return {name: _random(value) for name, value in weights.items()}


def _random(value: mx.array) -> mx.array:
    if not mx.issubdtype(value.dtype, mx.floating):
        return value
    noise = mx.random.normal(value.shape)
    if value.ndim < 2:
        return value + 0.05 * noise
    return 1.5 * noise / value.shape[-1] ** 0.5


def write_architecture(folder: Path, name: str, seed: int = 7) -> Path:
    """A model folder without a tokenizer: ``config.json`` and float32 weights."""
    config = config_of(name)
    folder.mkdir(parents=True)
    weights = random_parameters(make_module(config), seed)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder
