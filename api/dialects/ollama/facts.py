"""Models as ollama shows them. Synchronous: reads Redis and the models on disk."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import msgspec

from api.admin.models.listing_routes import list_entries, show_entry
from api.admin.models.schema import ModelEntry as ListedModel
from api.dialects.ollama.answer_schema import (
    OllamaDetails,
    OllamaModel,
    OllamaProcess,
    OllamaShown,
)
from api.dialects.ollama.answers import stamp
from api.dialects.ollama.model_files import ModelFiles, read_model_files
from api.execution.services import Services
from jobs.contract.records import WorkerStatus
from jobs.storage.desired_models import LoadedModel

_NEVER = "2318-01-01T00:00:00Z"  # ollama's own never is about as far away
_FORMATS = {"llama-cpp": "gguf", "mlx": "safetensors"}
_FIM_TOKENS = ("tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id")
_THINKING_WORDS = ("enable_thinking", "reasoning_content", "<think>")
_UNITS = ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K"))
_PARAMETERS = {
    "temperature": "temperature",
    "max_tokens": "num_predict",
    "top_p": "top_p",
    "repetition_penalty": "repeat_penalty",
    "repetition_context_size": "repeat_last_n",
}


def list_tags(services: Services) -> list[OllamaModel]:
    """Every name of the list of models: of loaded ones, aliases, of those on disk."""
    return [_tag(listed) for listed in list_entries(services)]


def list_processes(services: Services) -> list[OllamaProcess]:
    """The listed models that have a process, each under its own name."""
    shown: dict[str | None, ListedModel] = {}
    for listed in list_entries(services):
        shown.setdefault(listed.model_id, listed)
    return [
        _process(shown[model.desired.model_id], model.status)
        for model in services.loaded_models()
        if model.status is not None
        and not model.desired.is_parked
        and model.desired.model_id in shown
    ]


def show_model(services: Services, name: str) -> OllamaShown:
    """A loaded model by its id, name or alias, or one on disk; ``ModelNotFoundError``."""
    listed = show_entry(services, name)
    every = services.loaded_models()
    loaded = next((one for one in every if one.desired.model_id == listed.model_id), None)
    entry = services.catalog().find(listed.model_name, "model")
    files = read_model_files(entry)
    parameters = _parameters(loaded)
    return OllamaShown(
        modelfile=f"FROM {entry.name}\n" + "".join(f"PARAMETER {p}\n" for p in parameters),
        parameters="\n".join(parameters),
        template=files.template,
        details=_details(listed),
        model_info=_info(files, loaded.status if loaded else None),
        capabilities=_capabilities(listed, files),
        modified_at=stamp(listed.created),
    )


def _tag(listed: ListedModel) -> OllamaModel:
    return OllamaModel(
        name=listed.id,
        model=listed.id,
        modified_at=stamp(listed.created),
        size=listed.size_bytes or 0,
        digest=_digest(listed),
        details=_details(listed),
    )


def _process(listed: ListedModel, status: WorkerStatus) -> OllamaProcess:
    is_shared = sys.platform == "darwin"  # one memory; elsewhere a GPU's share is not known
    return OllamaProcess(
        name=listed.id,
        model=listed.id,
        size=status.memory_bytes,
        digest=_digest(listed),
        details=_details(listed),
        expires_at=_NEVER if listed.expires_at is None else stamp(listed.expires_at),
        size_vram=status.memory_bytes if is_shared else 0,
        context_length=status.context_length,
    )


def _digest(listed: ListedModel) -> str:
    """Of name and size: nobody reads gigabytes for a list."""
    return hashlib.sha256(f"{listed.model_name}\n{listed.size_bytes}".encode()).hexdigest()


def _details(listed: ListedModel) -> OllamaDetails:
    family = listed.architecture or ""
    count = listed.num_parameters
    return OllamaDetails(
        parent_model="",
        format=_FORMATS.get(listed.backend, listed.backend),
        family=family,
        families=[family] if family else [],
        parameter_size=_size_text(count) if count else "",
        quantization_level=listed.quantization or "",
    )


def _size_text(count: int) -> str:
    """A number of parameters as ollama writes it: ``8.0B``, ``135.0M``."""
    for unit, letter in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return str(count)


def _parameters(model: LoadedModel | None) -> list[str]:
    """The defaults of a loaded model and its context, by ollama's names."""
    if model is None:
        return []
    given = msgspec.structs.asdict(model.desired.load.defaults)
    values = {name: given[ours] for ours, name in _PARAMETERS.items() if given[ours] is not None}
    if model.status is not None and model.status.context_length:
        values["num_ctx"] = model.status.context_length
    return [f"{name:<30} {value}" for name, value in values.items()]


def _info(files: ModelFiles, status: WorkerStatus | None) -> dict[str, Any]:
    """The files' facts; of a loaded model the context that it has, not what it could have."""
    info = dict(files.info)
    if status is None:
        return info
    architecture = files.architecture or status.architecture or "unknown"
    info["general.architecture"] = architecture
    if status.num_parameters is not None:
        info["general.parameter_count"] = status.num_parameters
    if status.context_length:
        info[f"{architecture}.context_length"] = status.context_length
    return info


def _capabilities(listed: ListedModel, files: ModelFiles) -> list[str]:
    """What its chat template can express; gaps are filled by models that have tokens for it."""
    if listed.task == "embedding":
        return ["embedding"]
    found = ["completion"]
    if listed.has_tools:
        found.append("tools")
    if any(word in files.template for word in _THINKING_WORDS):
        found.append("thinking")
    if listed.backend == "fake" or any(name in files.info for name in _FIM_TOKENS):
        found.append("insert")
    return found
