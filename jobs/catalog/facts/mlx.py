"""Facts from the small files of an MLX model's folder, and from the headers of its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.catalog.facts.model_facts import InputKind, ModelFacts, takes_tools
from jobs.catalog.mlx_folder import Json, read_json, read_optional_json
from jobs.catalog.mlx_weights import read_safetensors_header
from jobs.contract.errors import ModelLoadError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
INDEX = "model.safetensors.index.json"
_POOLING = "1_Pooling"
_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def mlx_facts(folder: Path) -> ModelFacts:
    """The facts of an MLX model. Raises ``ModelLoadError`` if its configuration is broken."""
    config = read_json(folder / CONFIG)
    template = _template(folder)
    kind = str(config.get("model_type") or "")
    is_encoder = "bert" in kind or (folder / _POOLING).is_dir()
    return ModelFacts(
        context_length=trained_length(config),
        architecture=kind,
        quantization=_quantization(config),
        num_parameters=_num_parameters(folder, config),
        input_kinds=_input_kinds(config),
        task="embedding" if is_encoder else "generation",
        has_chat_template=bool(template),
        has_tools=takes_tools(template),
    )


def trained_length(config: Mapping[str, Any]) -> int | None:
    """The context length in a model's config.json, in tokens."""
    found = [config, config.get("text_config") or {}]
    names = ("max_position_embeddings", "n_positions")
    lengths = (one.get(name) for one in found for name in names)
    return next((length for length in lengths if type(length) is int and length > 0), None)


def _template(folder: Path) -> str:
    """All chat templates of the folder as one text."""
    texts = [_text(folder / name) for name in TEMPLATES]
    try:
        kept = read_optional_json(folder / TOKENIZER_CONFIG).get("chat_template")
    except ModelLoadError:
        kept = None
    return "\n".join([*filter(None, texts), *([json.dumps(kept)] if kept else [])])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _quantization(config: Json) -> str:
    for name in ("quantization", "quantization_config"):
        settings = config.get(name)
        if isinstance(settings, dict) and isinstance(settings.get("bits"), int):
            return f"{settings['bits']}-bit"
    inner = config.get("text_config")
    found = [config, inner if isinstance(inner, dict) else {}]
    kinds = (one.get(name) for one in found for name in ("dtype", "torch_dtype"))
    return next((_TYPES[kind] for kind in kinds if isinstance(kind, str) and kind in _TYPES), "")


def _input_kinds(config: Json) -> tuple[InputKind, ...]:
    kinds: list[InputKind] = ["text"]
    if config.get("vision_config"):
        kinds.append("image")
    if config.get("audio_config"):
        kinds.append("audio")
    return tuple(kinds)


def _num_parameters(folder: Path, config: Json) -> int | None:
    """From the index, which mlx_lm writes the number into, else from the weights' headers."""
    try:
        metadata = read_optional_json(folder / INDEX).get("metadata")
        total = metadata.get("total_parameters") if isinstance(metadata, dict) else None
        if type(total) is int and total > 0:
            return total
        files = sorted(folder.glob("model*.safetensors"))
        return sum(_num_in(read_safetensors_header(file), config) for file in files) or None
    except (ModelLoadError, OSError, LookupError, TypeError, ValueError):
        return None


def _num_in(header: Json, config: Json) -> int:
    """Parameters in one file. Of a quantized layer its scales tell: one for each group."""
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    total = 0
    for name, entry in tensors.items():
        layer, _, kind = name.rpartition(".")
        is_quantized = f"{layer}.scales" in tensors
        if kind == "scales":
            total += math.prod(entry["shape"]) * _group_size(config, layer)
        elif not (is_quantized and kind in ("weight", "biases")):
            total += math.prod(entry["shape"])
    return total


def _group_size(config: Json, layer: str) -> int:
    settings = config["quantization"]
    own = settings.get(layer)
    return int((own if isinstance(own, dict) else settings)["group_size"])
