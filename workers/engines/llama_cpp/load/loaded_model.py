"""Loads a GGUF model together with its context, caches, tokenizer, adapters and drafter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.engines.base import EngineOptions, ModelInfo, OnProgress
from workers.engines.llama_cpp.batch.drafting import Drafter, DraftModel, TextDrafter
from workers.engines.llama_cpp.batch.step_tuning import StepTuning
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.llama_cpp.cache.host_cache import HostCache
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cpu.tuning import tune
from workers.engines.llama_cpp.embedding import Embedder
from workers.engines.llama_cpp.load.adapters import Adapters
from workers.engines.llama_cpp.load.caches import BACKEND, num_kept_cells, open_host_cache
from workers.engines.llama_cpp.load.cell_plan import context_length_of, num_slots_of
from workers.engines.llama_cpp.load.context import (
    KV_TYPES,
    NoMemoryError,
    OpenedCells,
    num_drafts_of,
    num_threads_of,
    open_cells,
)
from workers.engines.llama_cpp.load.model_file import (
    check_file,
    check_kind,
    files_of,
    is_encoder,
    load_model,
)
from workers.engines.llama_cpp.load.room import SpareMemory, check_weights, is_on_cpu, room_beside
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.engines.shared.chunk_budget import ChunkBudget, embed_budget
from workers.engines.shared.thread_share import ThreadShare

MAX_DRAFTS = 16
_PART_BESIDE_DRAFTS = 0.7  # of the room, if a draft model needs cells too


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model with its parts; ``memory`` is its context with the KV cells.

    ``num_context_bytes``: size of its context and a draft model's. ``num_kept_cells``: KV cells for
    kept prefixes. ``host_cache``: ``None`` if there is no prompt cache. ``threads``: ``None`` if
    their number was given at load.
    """

    model: Pointer
    memory: KvMemory
    num_context_bytes: int
    num_kept_cells: int
    is_on_cpu: bool
    host_cache: HostCache | None
    tokenizer: LlamaCppTokenizer
    info: ModelInfo
    adapters: Adapters
    adapter: str | None
    embedder: Embedder
    drafter: Drafter | None
    num_drafts: int
    threads: ThreadShare | None
    step_budget_s: float
    tuning: StepTuning

    def close(self) -> None:
        """Free the model and its parts."""
        self.tokenizer.close()
        self.embedder.close()
        if self.drafter is not None:
            self.drafter.close()
        self.memory.close()
        lib.llama_model_free(self.model)


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """A loaded model that only embeds."""

    model: Pointer
    tokenizer: LlamaCppTokenizer
    info: ModelInfo
    embedder: Embedder

    def close(self) -> None:
        """Free the model and its parts."""
        self.tokenizer.close()
        self.embedder.close()
        lib.llama_model_free(self.model)


def load_gguf(
    path: Path, options: EngineOptions, on_progress: OnProgress
) -> LoadedModel | LoadedEncoder:
    """See ``open_llama_cpp``."""
    _check_options(options)
    header = check_file(path)
    check_weights(path, [*files_of(path, header), *_draft_files(options)], options)
    model = load_model(path, options, on_progress)
    try:
        check_kind(path, header, model)
        room_bytes = room_beside(model, options)
        if room_bytes is not None:
            room_bytes -= sum(file.stat().st_size for file in _draft_files(options))
        cells = _open_cells(path, header, model, options, room_bytes)
        if cells is None:
            return _load_encoder(header, model, options, SpareMemory(room_bytes))
        rest_bytes = None if room_bytes is None else room_bytes - cells.num_bytes
        return _load_generator(path, header, model, cells, options, rest_bytes)
    except Exception:
        lib.llama_model_free(model)
        raise


def _draft_files(options: EngineOptions) -> list[Path]:
    path = options.draft_path
    return [] if path is None else files_of(path, check_file(path))


def _open_cells(
    path: Path, header: GgufHeader, model: Pointer, options: EngineOptions, room_bytes: int | None
) -> OpenedCells | None:
    """The memory of its sequences; ``None``: the model is an encoder."""
    if is_encoder(header, model):
        return None
    if room_bytes is not None and options.draft_path is not None:
        room_bytes = int(room_bytes * _PART_BESIDE_DRAFTS)
    try:
        return open_cells(path, model, header, options, room_bytes=room_bytes)
    except NoMemoryError:
        return None


def _load_encoder(
    header: GgufHeader, model: Pointer, options: EngineOptions, spare: SpareMemory
) -> LoadedEncoder:
    for name in ("adapter", "draft_path", "num_draft_tokens", "kv_bits", "kv_layout"):
        if getattr(options, name) is not None:
            message = f"{name}: this model is an encoder ({header.architecture})"
            raise InvalidRequestError(message, name)
    context_length = context_length_of(model, options)
    num_threads = options.num_threads or num_threads_of(model)
    return LoadedEncoder(
        model=model,
        tokenizer=LlamaCppTokenizer(model),
        info=_info(header, model, context_length, num_slots_of(options), options),
        embedder=Embedder(model, context_length, num_threads, spare=spare),
    )


def _load_generator(
    path: Path,
    header: GgufHeader,
    model: Pointer,
    cells: OpenedCells,
    options: EngineOptions,
    rest_bytes: int | None,
) -> LoadedModel:
    memory = cells.memory
    num_slots = cells.plan.num_slots if memory.traits.can_batch else 1
    if num_drafts_of(options) and not memory.traits.can_cut:
        message = f"a {header.architecture} model cannot take back drafts: its state is overwritten"
        raise InvalidRequestError(message, "num_draft_tokens")
    adapters = Adapters(model, options.adapters_dir)
    if options.adapter is not None:
        adapters.load(options.adapter)
    context_length = cells.plan.context_length
    num_threads = options.num_threads or num_threads_of(model)
    drafter, draft_bytes = _open_drafter(model, context_length, options, rest_bytes)
    if rest_bytes is not None:
        rest_bytes -= draft_bytes + _bytes_in_transit(cells, options)
    host_cache = open_host_cache(path, header, cells, options, rest_bytes)
    spare = SpareMemory(rest_bytes)
    if host_cache is not None:
        spare.give_rest_to(host_cache)
    return LoadedModel(
        model=model,
        memory=memory,
        num_context_bytes=cells.num_bytes + draft_bytes,
        num_kept_cells=num_kept_cells(cells, options, rest_bytes),
        is_on_cpu=is_on_cpu(options),
        host_cache=host_cache,
        tokenizer=LlamaCppTokenizer(model),
        info=_info(header, model, context_length, num_slots, options),
        adapters=adapters,
        adapter=options.adapter,
        embedder=Embedder(
            model,
            context_length,
            num_threads,
            spare=spare,
            cost=cells.cost if options.kv_bits is None else None,  # its cells have 16 bits
            budget=_embed_budget(model, options),
        ),
        drafter=drafter,
        num_drafts=num_drafts_of(options),
        threads=_thread_share(num_threads, options),
        step_budget_s=options.step_budget_s,
        tuning=_tuning(header, model, memory, options),
    )


def _embed_budget(model: Pointer, options: EngineOptions) -> ChunkBudget:
    num_parameters = lib.llama_model_n_params(model)
    return embed_budget(num_parameters, options.step_budget_s, is_gpu=not is_on_cpu(options))


def _bytes_in_transit(cells: OpenedCells, options: EngineOptions) -> int:
    """What a copied state takes on its way, from slot to slot or from the disk."""
    between_slots = cells.memory.is_per_slot and cells.plan.num_slots > 1
    if not between_slots and options.prompt_cache_dir is None:
        return 0
    return int(cells.cost.cell_bytes * cells.plan.context_length)


def _thread_share(num_threads: int, options: EngineOptions) -> ThreadShare | None:
    """``None`` if the number of threads was given: it is used as it is."""
    if options.num_threads is not None:
        return None
    return ThreadShare(num_threads, psutil.cpu_count() or num_threads)


def _tuning(
    header: GgufHeader, model: Pointer, memory: KvMemory, options: EngineOptions
) -> StepTuning:
    if not (options.is_cpu_tuned and is_on_cpu(options)):
        return StepTuning()
    return tune(header, model, can_forget=memory.traits.can_cut_anywhere)


def _check_options(options: EngineOptions) -> None:
    """Refuse options that would otherwise be ignored silently."""
    if options.kv_bits not in (None, *KV_TYPES):
        message = f"kv_bits: a GGUF model's KV cache can have 4 or 8 bits, not {options.kv_bits}"
        raise InvalidRequestError(message, "kv_bits")
    if options.num_draft_tokens is not None and not 1 <= options.num_draft_tokens <= MAX_DRAFTS:
        message = f"num_draft_tokens: 1 to {MAX_DRAFTS} are possible"
        raise InvalidRequestError(message, "num_draft_tokens")


def _open_drafter(
    model: Pointer, context_length: int, options: EngineOptions, room_bytes: int | None
) -> tuple[Drafter | None, int]:
    """The drafter that was requested, if any, and the size of its context."""
    num_drafts = num_drafts_of(options)
    if options.draft_path is None:
        return (TextDrafter(num_drafts) if num_drafts else None), 0
    path = options.draft_path
    header = check_file(path)
    draft = load_model(path, options, lambda fraction: None)
    try:
        _check_same_vocabulary(path, model, draft)
        shared = replace(options, kv_layout="unified")
        cells = open_cells(
            path, draft, header, shared, context_length=context_length, room_bytes=room_bytes
        )
        if not cells.memory.traits.can_cut:
            cells.memory.close()
            raise ModelLoadError(f"{path.name}: cannot draft, its state is overwritten")
    except Exception:
        lib.llama_model_free(draft)
        raise
    return DraftModel(draft, cells.memory, num_drafts), cells.num_bytes


def _check_same_vocabulary(path: Path, model: Pointer, draft: Pointer) -> None:
    vocabularies = [lib.llama_model_get_vocab(one) for one in (model, draft)]
    sizes = [lib.llama_vocab_n_tokens(vocab) for vocab in vocabularies]
    # Every hundredth token is enough: different vocabularies differ almost everywhere.
    texts = [
        [lib.llama_vocab_get_text(vocab, token) for token in range(0, min(sizes), 100)]
        for vocab in vocabularies
    ]
    if sizes[0] != sizes[1] or texts[0] != texts[1]:
        raise ModelLoadError(f"{path.name}: cannot draft, its vocabulary differs from the model's")


def _info(
    header: GgufHeader, model: Pointer, length: int, num_slots: int, options: EngineOptions
) -> ModelInfo:
    return ModelInfo(
        backend=BACKEND,
        context_length=length,
        num_slots=num_slots,
        vocab_size=lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)),
        architecture=header.architecture,
        quantization=header.quantization,
        num_parameters=lib.llama_model_n_params(model),
        is_on_gpu=not is_on_cpu(options),
    )
