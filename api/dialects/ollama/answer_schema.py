"""Answers of ollama's API, as OpenAPI shows them. Durations are nanoseconds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

DoneReason = Literal["stop", "length", "load", "unload"]


class OllamaFunction(BaseModel):
    """Part of an answer."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCall(BaseModel):
    """A call of a tool; in a stream too, it comes as a whole."""

    id: str
    function: OllamaFunction


class OllamaAnswerMessage(BaseModel):
    """What the model says, thinks and calls."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class OllamaAnswer(BaseModel):
    """What answers have in common; the counts and durations are those of a finished one.

    ``load_duration`` is the wait for the model and for a free slot.
    """

    model: str
    created_at: str
    done: bool
    done_reason: DoneReason | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class OllamaChatAnswer(OllamaAnswer):
    """A line of a chat's stream, or all of it."""

    message: OllamaAnswerMessage


class OllamaTextAnswer(OllamaAnswer):
    """A line of a text's stream, or all of it."""

    response: str
    thinking: str | None = None


class OllamaVectors(BaseModel):
    """Vectors of length 1, in the order of the inputs."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int


class OllamaVector(BaseModel):
    """The vector of one text."""

    embedding: list[float]


class OllamaDetails(BaseModel):
    """Of a model that is not loaded, not all is known in a list."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(BaseModel):
    """A model that can be named in requests. ``digest`` identifies its file, not its bytes."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaModels(BaseModel):
    """The models."""

    models: list[OllamaModel]


class OllamaProcess(BaseModel):
    """A model in memory. ``size`` is what its process costs; ``size_vram`` is that on a Mac."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaProcesses(BaseModel):
    """The models in memory."""

    models: list[OllamaProcess]


class OllamaShown(BaseModel):
    """A model: its parameters as lines, its chat template, facts from its files."""

    model_config = ConfigDict(protected_namespaces=())

    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaProgress(BaseModel):
    """A line of a pull's stream; the last has the status ``success``. Sizes are of the whole."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class OllamaVersion(BaseModel):
    """The version of ollama whose API these routes follow: clients ask for a minimum."""

    version: str


class OllamaError(BaseModel):
    """Every error of these routes: the message, our stable code, the parameter at fault."""

    error: str
    code: str
    param: str | None


_DESCRIPTIONS = {
    400: "Wrong request",
    401: "No or wrong key",
    404: "Unknown model",
    410: "The job was cancelled or its model unloaded",
    429: "The queue is full",
    503: "Not ready, or the queue is away",
}
OLLAMA_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OllamaError, "description": text} for status, text in _DESCRIPTIONS.items()
}
