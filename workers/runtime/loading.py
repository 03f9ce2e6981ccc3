"""Loads the engine that a load request describes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jobs.catalog.catalog import find_adapter, find_draft, find_model
from jobs.contract.errors import ModelLoadError, ModelNotFoundError
from jobs.contract.requests import LoadRequest
from jobs.settings import Settings
from workers.engines.base import Engine, EngineOptions, OnProgress
from workers.engines.factory import open_engine
from workers.generation.input_prefixes import InputPrefixes, read_input_prefixes
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder
from workers.runtime.heartbeat import WorkerReport
from workers.runtime.turns import Turn, open_turn

_MODEL = "llm_model_name"
_WRONG_FILES = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# Messages of llama.cpp, ggml (Metal, CUDA), MLX and the system for exhausted resources.
_SHORTAGE = re.compile(
    r"\b(allocat(e|ing|ion)|bad_alloc|insufficient memory|out of memory|outofmemory"
    r"|resource limit|resource temporarily unavailable|too many open files|input/output error)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """A loaded engine with its model's path, and what its jobs need besides.

    ``prefixes``: of texts to embed. ``turn``: its turn on a GPU that several models share.
    """

    engine: Engine
    path: Path
    encoder: PromptEncoder
    prefixes: InputPrefixes
    turn: Turn | None


def load_engine(
    settings: Settings,
    request: LoadRequest,
    on_progress: OnProgress,
    memory_bytes: int | None = None,
) -> LoadedEngine:
    """Load the model on the calling thread, which must be the engine's thread.

    ``memory_bytes``: what the engine may take; ``None``: no limit of its own. Raises
    ``InsufficientMemoryError`` if it does not fit into that, and ``ModelLoadError``. The latter's
    ``param`` is set if files or options are at fault, and ``None`` if the machine is.
    """
    try:
        return _load(settings, request, on_progress, memory_bytes)
    except ModelLoadError as error:
        error.param = parameter_at_fault(error)
        raise


def parameter_at_fault(error: ModelLoadError) -> str | None:
    """The load parameter that must change, ``None`` if the same load may succeed later."""
    if error.param == "prompt_cache_dir":  # a server setting, not a load parameter
        return None
    return error.param or (None if _is_machine_at_fault(error) else _MODEL)


def _is_machine_at_fault(error: ModelLoadError) -> bool:
    """Whether memory or another resource ran out. Libraries report that only as text."""
    cause: BaseException | None = error
    while cause is not None:
        is_file_wrong = isinstance(cause, _WRONG_FILES)
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and not is_file_wrong):
            return True
        cause = cause.__cause__
    return _SHORTAGE.search(error.message) is not None


def _load(
    settings: Settings, request: LoadRequest, on_progress: OnProgress, memory_bytes: int | None
) -> LoadedEngine:
    try:
        entry = find_model(settings, request.model_name)
    except ModelNotFoundError as error:
        raise ModelLoadError(f"{error.message}, on the machine that should load it") from error
    options = engine_options(settings, request, entry.backend, memory_bytes)
    prefixes = read_input_prefixes(entry.path)
    engine = open_engine(entry.backend, entry.path, options, on_progress)
    encoder = PromptEncoder(engine.tokenizer, request.chat_format)
    turn = open_turn(settings, engine.info)
    return LoadedEngine(engine, entry.path, encoder, prefixes, turn)


def engine_options(
    settings: Settings, request: LoadRequest, backend: str, memory_bytes: int | None = None
) -> EngineOptions:
    """The engine options of a request, with settings as defaults.

    Raises the errors of ``find_adapter`` and ``find_draft``.
    """
    cache_bytes = request.prompt_cache_bytes
    adapter = request.adapter and find_adapter(settings.adapters_dir, request.adapter, backend).name
    draft = request.draft_model and find_draft(settings, request.draft_model, backend).path
    return EngineOptions(
        context_length=request.context_length,
        num_slots=request.slots or _default_slots(settings, request, backend),
        num_threads=request.threads,
        num_gpu_layers=request.gpu_layers,
        is_remote_code_trusted=request.trust_remote_code,
        adapters_dir=settings.adapters_dir,
        adapter=adapter or None,
        prompt_cache_bytes=settings.prompt_cache_bytes if cache_bytes is None else cache_bytes,
        prompt_cache_dir=settings.prompt_cache_dir,
        draft_path=draft or None,
        num_draft_tokens=request.num_draft_tokens,
        kv_bits=request.kv_bits,
        kv_layout=request.kv_layout,
        step_budget_s=settings.step_budget_ms / 1000,
        is_cpu_tuned=settings.cpu_tuning,
        memory_bytes=memory_bytes,
    )


def _default_slots(settings: Settings, request: LoadRequest, backend: str) -> int | None:
    """The setting, except for options with which MLX supports only one slot."""
    alone = (request.kv_bits, request.draft_model, request.num_draft_tokens)
    return None if backend == "mlx" and any(alone) else settings.slots


class LoadProgress:
    """Reports load progress in the job's events and the heartbeat, in steps of 5 %."""

    def __init__(self, outbox: Outbox, report: WorkerReport) -> None:
        self._outbox = outbox
        self._report = report
        self._shown = -1.0

    def __call__(self, fraction: float) -> None:
        if fraction - self._shown >= 0.05 or (fraction >= 1.0 > self._shown):
            self._shown = fraction
            self._report.load_fraction = fraction
            self._outbox.progress("load", fraction)
