"""Models as ollama shows them. Synchronous: reads Redis and the models folder."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import msgspec

from api.admin.models.listing_routes import list_entries
from api.admin.models.schema import ModelEntry as ListedModel
from api.dialects.ollama.answer_schema import (
    OllamaDetails,
    OllamaModel,
    OllamaProcess,
    OllamaShown,
)
from api.dialects.ollama.answers import stamp
from api.dialects.ollama.model_files import NO_FILES, ModelFiles, read_model_files
from api.execution.resolve import ModelFinder
from api.execution.services import Services
from jobs.catalog.catalog import ModelEntry, find_model, list_models
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
    """Every name that a request may have: loaded models, aliases, the models folder."""
    on_disk = {entry.name: entry for entry in list_models(services.settings)}
    statuses = {model.desired.model_id: model.status for model in services.desired_models.loaded()}
    return [
        _tag(services, listed, on_disk.get(listed.model_name), statuses.get(listed.model_id or ""))
        for listed in list_entries(services)
    ]


def list_processes(services: Services) -> list[OllamaProcess]:
    """The models that have a process."""
    loaded = services.desired_models.loaded()
    finder = ModelFinder.of(services.settings, {model.slug: model.desired for model in loaded})
    sizes = {entry.name: entry.size_bytes for entry in list_models(services.settings)}
    return [
        _process(finder.listed_name(model.desired), model, model.status, sizes)
        for model in loaded
        if model.status is not None and not model.desired.is_parked
    ]


def show_model(services: Services, name: str) -> OllamaShown:
    """A loaded model by its id, name or alias, or one on disk; ``ModelNotFoundError``."""
    loaded = {model.slug: model for model in services.desired_models.loaded()}
    finder = ModelFinder.of(services.settings, {s: model.desired for s, model in loaded.items()})
    desired = finder.find(name)
    found = next((model for model in loaded.values() if model.desired is desired), None)
    target = desired.load.model_name if desired else name
    entry = find_model(services.settings, target, "model")
    files = read_model_files(entry)
    status = found.status if found else None
    parameters = _parameters(found)
    return OllamaShown(
        modelfile=f"FROM {entry.name}\n" + "".join(f"PARAMETER {p}\n" for p in parameters),
        parameters="\n".join(parameters),
        template=files.template,
        details=_details(entry.backend, status, files),
        model_info=_info(files, status),
        capabilities=_capabilities(entry, files),
        modified_at=stamp(services.disk_facts.read(entry).modified_at),
    )


def _tag(
    services: Services, listed: ListedModel, entry: ModelEntry | None, status: WorkerStatus | None
) -> OllamaModel:
    modified_at = services.disk_facts.read(entry).modified_at if entry else listed.created
    size = entry.size_bytes if entry else 0
    return OllamaModel(
        name=listed.id,
        model=listed.id,
        modified_at=stamp(modified_at),
        size=size,
        digest=_digest(listed.model_name, size),
        details=_details(listed.backend, status),
    )


def _process(
    name: str, model: LoadedModel, status: WorkerStatus, sizes: dict[str, int]
) -> OllamaProcess:
    desired = model.desired
    is_shared = sys.platform == "darwin"  # one memory; elsewhere a GPU's share is not known
    return OllamaProcess(
        name=name,
        model=name,
        size=status.memory_bytes,
        digest=_digest(desired.load.model_name, sizes.get(desired.load.model_name, 0)),
        details=_details(desired.load.backend, status),
        expires_at=_NEVER if model.expires_at is None else stamp(model.expires_at),
        size_vram=status.memory_bytes if is_shared else 0,
        context_length=status.context_length,
    )


def _digest(name: str, size: int) -> str:
    """Of name and size: nobody reads gigabytes for a list."""
    return hashlib.sha256(f"{name}\n{size}".encode()).hexdigest()


def _details(
    backend: str, status: WorkerStatus | None, files: ModelFiles = NO_FILES
) -> OllamaDetails:
    family = (status.architecture if status else "") or files.architecture
    quantization = (status.quantization if status else "") or files.quantization
    count = (status.num_parameters if status else None) or files.info.get("general.parameter_count")
    return OllamaDetails(
        parent_model="",
        format=_FORMATS.get(backend, backend),
        family=family,
        families=[family] if family else [],
        parameter_size=_size_text(count) if isinstance(count, int) else "",
        quantization_level=quantization,
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


def _capabilities(entry: ModelEntry, files: ModelFiles) -> list[str]:
    """What its chat template can express; gaps are filled by models that have tokens for it."""
    found = ["completion"]
    if "tools" in files.template:
        found.append("tools")
    if any(word in files.template for word in _THINKING_WORDS):
        found.append("thinking")
    if entry.backend == "fake" or any(name in files.info for name in _FIM_TOKENS):
        found.append("insert")
    return found
