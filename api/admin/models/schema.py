"""Bodies and answers of /v1/internal, /v1/models and /health."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from api.dialects.sampling_fields import DefaultsBody
from api.web.base_schema import Count, Flag, Text, integer
from jobs.contract.requests import KvLayout

_WITHOUT_EFFECT = frozenset(
    "model auto_unload use_kv_cache kv_cache_threshold llm_model_path".split()
)


class LoadBody(DefaultsBody):
    """The model, its load options, and defaults for requests that do not set a parameter.

    Unknown options are refused by name: see ``unknown_options``. Some options of the original
    server are accepted without effect: ``auto_unload``, ``use_kv_cache``, ``kv_cache_threshold``,
    ``llm_model_path``. They ask for the default behaviour here.

    After ``ttl`` seconds without a job the model is parked; without it, only when others need its
    memory. A ``pinned`` model is never parked. Those of lower ``priority`` are parked first.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    llm_model_name: Annotated[
        str,
        Field(
            strict=True,
            min_length=1,
            max_length=255,
            # text-generation-webui's name comes second.
            validation_alias=AliasChoices("llm_model_name", "model_name"),
        ),
    ]
    chat_format: Text | None = None
    context_length: Count | None = None
    slots: Annotated[int, integer(1, 256)] | None = None
    threads: Annotated[int, integer(1, 1024)] | None = None
    gpu_layers: Annotated[int, integer(0, 10_000)] | None = None
    trust_remote_code: Flag | None = None
    adapter_name: Annotated[str, Field(strict=True, max_length=255)] | None = None
    kv_bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    kv_layout: KvLayout | None = None
    draft_model: Annotated[str, Field(strict=True, max_length=255)] | None = None
    num_draft_tokens: Annotated[int, integer(1, 64)] | None = None
    prompt_cache_bytes: Annotated[int, integer(0, 2**50)] | None = None
    max_tokens: Count | None = None
    ttl: Annotated[float, Field(ge=0)] | None = None
    pinned: Flag | None = None
    priority: Annotated[int, integer(-100, 100)] | None = None
    background: Flag | None = None

    @property
    def unknown_options(self) -> list[str]:
        """Names of unknown fields whose values are not empty, false or 0."""
        extra: dict[str, Any] = self.__pydantic_extra__ or {}
        return [name for name, value in extra.items() if value and name not in _WITHOUT_EFFECT]


class ModelNames(BaseModel):
    """Names of the models on disk."""

    model_names: list[str]


class LoadAnswer(BaseModel):
    """The model is ready."""

    load: Literal["success"] = "success"


class UnloadAnswer(BaseModel):
    """The process has ended."""

    unload: Literal["success"] = "success"


class TokenCountAnswer(BaseModel):
    """Number of tokens."""

    length: int


class ModelInfoAnswer(BaseModel):
    """A model on disk, with facts of its worker where it is loaded."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_path: str
    model_type: str
    file_size_bytes: int
    file_size_gb: int
    is_loaded: bool
    model_id: str | None = None
    loaded_model_id: str | None = None
    loaded_model_ids: list[str] = []
    state: str | None = None
    load_fraction: float | None = None
    context_length: int | None = None
    vocab_size: int | None = None
    architecture: str | None = None
    quantization: str | None = None
    num_parameters: int | None = None
    slots: int | None = None
    loader: str
    lora_names: list[str] = []


class ModelStatus(BaseModel):
    """llama-server's state of a model: ``unloaded``, ``loading`` or ``loaded``.

    ``progress`` is the part that is loaded, from 0 to 1. A load that ``failed`` is tried again.
    """

    value: str = "unloaded"
    progress: float | None = None
    failed: bool | None = None


class ModelEntry(BaseModel):
    """A model in OpenAI's list. The ``id`` of a loaded model selects it when sent as ``model``.

    ``state`` is the worker's, ``parked`` for a model that the next request starts again, or
    ``unloaded``: then there is no ``model_id``, and ``created`` is the time of the file. The fields
    from ``source`` on are what the files say, ``None`` where they do not; ``input_kinds`` are those
    that the model was made for.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mlx-gguf-server"
    model_id: str | None
    model_name: str
    backend: str
    context_length: int | None
    state: str
    status: ModelStatus
    aliases: tuple[str, ...] = ()
    pinned: bool = False
    expires_at: float | None = None
    source: str | None = None
    size_bytes: int | None = None
    architecture: str | None = None
    num_parameters: int | None = None
    quantization: str | None = None
    input_kinds: tuple[str, ...] = ("text",)
    task: str | None = None
    has_chat_template: bool | None = None
    has_tools: bool | None = None


class ModelList(BaseModel):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and the reasons if not."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]
