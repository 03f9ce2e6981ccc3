"""What the files of a model say of it, for /api/show: architecture, chat template, numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.catalog.catalog import ModelEntry
from jobs.catalog.gguf_header import read_gguf_header
from jobs.contract.errors import ModelLoadError

_TEMPLATE_KEY = "tokenizer.chat_template"
# config.json's names -> those of GGUF, behind the architecture.
_OF_CONFIG = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """``info`` has GGUF's names. Empty where a file is missing or cannot be read."""

    architecture: str = ""
    template: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


NO_FILES = ModelFiles()


def read_model_files(entry: ModelEntry) -> ModelFiles:
    """Read the small files, or the header, of a model in the catalog."""
    try:
        if entry.backend == "llama-cpp":
            return _of_gguf(entry.path)
        return _of_folder(entry.path) if entry.backend == "mlx" else NO_FILES
    except (ModelLoadError, OSError, ValueError, AttributeError, RecursionError):
        return NO_FILES  # loading it tells the reason


def _of_gguf(path: Path) -> ModelFiles:
    header = read_gguf_header(path)
    info = {name: value for name, value in header.metadata.items() if name != _TEMPLATE_KEY}
    template = header.chat_template or ""
    return ModelFiles(header.architecture, template, info)


def _of_folder(folder: Path) -> ModelFiles:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = str(config.get("model_type") or "")
    known = {**config, **(config.get("text_config") or {})}
    numbers = {
        f"{architecture}.{ours}": known[name] for name, ours in _OF_CONFIG.items() if name in known
    }
    info = {"general.architecture": architecture, **numbers}
    return ModelFiles(architecture, _template_of(folder), info)


def _template_of(folder: Path) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    given = config.get("chat_template")
    if isinstance(given, list):  # several, by name
        return next((one["template"] for one in given if one.get("name") == "default"), "")
    return given if isinstance(given, str) else ""
