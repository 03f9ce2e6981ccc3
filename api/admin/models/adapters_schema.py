"""Answers of /v1/internal/adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class AdapterAnswer(BaseModel):
    """A LoRA adapter on disk; ``loaded_model_ids``: the models that were loaded with it."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    model_type: Literal["mlx", "llama-cpp"]
    file_size_bytes: int
    loaded_model_ids: list[str]


class AdapterList(BaseModel):
    """The adapters in the adapters folder."""

    adapter_names: list[str]
    adapters: list[AdapterAnswer]
