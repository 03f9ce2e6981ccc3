"""Loads a GGUF model together with its context, caches, tokenizer, adapters and drafter."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from jobs.catalog.catalog import find_adapter
from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from jobs.memory import load_defaults
from jobs.platform.current import current_platform
from workers.engines.base import EngineOptions, ModelInfo, OnProgress
from workers.engines.llama_cpp.batch.drafting import Drafter, DraftModel, TextDrafter
from workers.engines.llama_cpp.batch.step_tuning import StepTuning
from workers.engines.llama_cpp.binding import LIBRARY_VERSION, Pointer, lib
from workers.engines.llama_cpp.cache.host_cache import MIN_TOKENS, HostCache
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cpu.tuning import tune
from workers.engines.llama_cpp.embedding import Embedder
from workers.engines.llama_cpp.load.adapters import Adapters
from workers.engines.llama_cpp.load.context import (
    KV_TYPES,
    NoMemoryError,
    context_length_of,
    num_drafts_of,
    num_slots_of,
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
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.engines.shared.identity import digest_of
from workers.engines.shared.spill import Spill
from workers.engines.shared.thread_share import ThreadShare

BACKEND = "llama-cpp"
MAX_DRAFTS = 16


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded model with its parts; ``memory`` is its context with the KV cells.

    ``num_kept_cells``: KV cells for kept prefixes. ``host_cache``: ``None`` if there is no prompt
    cache. ``threads``: ``None`` if their number was given at load.
    """

    model: Pointer
    memory: KvMemory
    num_kept_cells: int
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
    model = load_model(path, options, on_progress)
    try:
        check_kind(path, header, model)
        memory = _open_memory(path, header, model, options)
        if memory is None:
            return _load_encoder(header, model, options)
        return _load_generator(path, header, model, memory, options)
    except Exception:
        lib.llama_model_free(model)
        raise


def _open_memory(
    path: Path, header: GgufHeader, model: Pointer, options: EngineOptions
) -> KvMemory | None:
    """The memory of its sequences; ``None``: the model is an encoder."""
    if is_encoder(header, model):
        return None
    try:
        return open_cells(path, model, header, context_length_of(model, options), options)
    except NoMemoryError:
        return None


def _load_encoder(header: GgufHeader, model: Pointer, options: EngineOptions) -> LoadedEncoder:
    for name in ("adapter", "draft_path", "num_draft_tokens", "kv_bits", "kv_layout"):
        if getattr(options, name) is not None:
            message = f"{name}: this model is an encoder ({header.architecture})"
            raise InvalidRequestError(message, name)
    context_length = context_length_of(model, options)
    return LoadedEncoder(
        model=model,
        tokenizer=LlamaCppTokenizer(model),
        info=_info(header, model, num_slots_of(options), options),
        embedder=Embedder(model, context_length, options.num_threads or num_threads_of(model)),
    )


def _load_generator(
    path: Path, header: GgufHeader, model: Pointer, memory: KvMemory, options: EngineOptions
) -> LoadedModel:
    num_slots = num_slots_of(options) if memory.traits.can_batch else 1
    if num_drafts_of(options) and not memory.traits.can_cut:
        message = f"a {header.architecture} model cannot take back drafts: its state is overwritten"
        raise InvalidRequestError(message, "num_draft_tokens")
    adapters = Adapters(model, options.adapters_dir)
    if options.adapter is not None:
        adapters.load(options.adapter)
    tokenizer = LlamaCppTokenizer(model)
    context_length = context_length_of(model, options)
    num_threads = options.num_threads or num_threads_of(model)
    drafter = _open_drafter(model, context_length, options)
    host_cache = _open_host_cache(path, header, model, memory, options)
    return LoadedModel(
        model=model,
        memory=memory,
        num_kept_cells=_num_kept_cells(model, memory, options),
        host_cache=host_cache,
        tokenizer=tokenizer,
        info=_info(header, model, num_slots, options),
        adapters=adapters,
        adapter=options.adapter,
        embedder=Embedder(model, context_length, num_threads),
        drafter=drafter,
        num_drafts=num_drafts_of(options),
        threads=_thread_share(num_threads, options),
        step_budget_s=options.step_budget_s,
        tuning=_tuning(header, model, memory, options),
    )


def _thread_share(num_threads: int, options: EngineOptions) -> ThreadShare | None:
    """``None`` if the number of threads was given: it is used as it is."""
    if options.num_threads is not None:
        return None
    return ThreadShare(num_threads, psutil.cpu_count() or num_threads)


def _tuning(
    header: GgufHeader, model: Pointer, memory: KvMemory, options: EngineOptions
) -> StepTuning:
    if not (options.is_cpu_tuned and _is_on_cpu(options)):
        return StepTuning()
    return tune(header, model, can_forget=memory.traits.can_cut_anywhere)


def _is_on_cpu(options: EngineOptions) -> bool:
    return options.num_gpu_layers == 0 or not lib.llama_supports_gpu_offload()


def _check_options(options: EngineOptions) -> None:
    """Refuse options that would otherwise be ignored silently."""
    if options.kv_bits not in (None, *KV_TYPES):
        message = f"kv_bits: a GGUF model's KV cache can have 4 or 8 bits, not {options.kv_bits}"
        raise InvalidRequestError(message, "kv_bits")
    if options.num_draft_tokens is not None and not 1 <= options.num_draft_tokens <= MAX_DRAFTS:
        message = f"num_draft_tokens: 1 to {MAX_DRAFTS} are possible"
        raise InvalidRequestError(message, "num_draft_tokens")


def _open_drafter(model: Pointer, context_length: int, options: EngineOptions) -> Drafter | None:
    num_drafts = num_drafts_of(options)
    if options.draft_path is None:
        return TextDrafter(num_drafts) if num_drafts else None
    path = options.draft_path
    header = check_file(path)
    draft = load_model(path, options, lambda fraction: None)
    try:
        _check_same_vocabulary(path, model, draft)
        shared = replace(options, kv_layout="unified")
        cells = open_cells(path, draft, header, context_length, shared)
        if not cells.traits.can_cut:
            cells.close()
            raise ModelLoadError(f"{path.name}: cannot draft, its state is overwritten")
    except Exception:
        lib.llama_model_free(draft)
        raise
    return DraftModel(draft, cells, num_drafts)


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


def _prompt_cache_bytes(options: EngineOptions) -> int:
    memory = current_platform().usable_memory_bytes()
    return load_defaults.prompt_cache_bytes(BACKEND, options.prompt_cache_bytes, memory)


def _num_kept_cells(model: Pointer, memory: KvMemory, options: EngineOptions) -> int:
    """KV cells for kept prefixes; only few if cells are shared: idle cells slow every step."""
    max_bytes = _prompt_cache_bytes(options)
    if max_bytes == 0:
        return 0
    if memory.is_per_slot or not memory.traits.can_idle:
        return memory.num_cells
    return min(memory.num_cells // 4, max_bytes // _bytes_per_cell(model, options))


def _open_host_cache(
    path: Path, header: GgufHeader, model: Pointer, memory: KvMemory, options: EngineOptions
) -> HostCache | None:
    max_bytes = _prompt_cache_bytes(options)
    if max_bytes == 0:
        return None
    identity = _identity(path, header, options)

    @functools.cache
    def identity_of(adapter: str | None) -> str:
        if adapter is None:
            return identity
        file = find_adapter(options.adapters_dir, adapter, BACKEND).path
        return f"{identity}:{digest_of([file])}"

    folder = options.prompt_cache_dir
    spill = None if folder is None else Spill(folder, identity, MIN_TOKENS)
    return HostCache(memory, max_bytes, identity_of, spill=spill)


def _identity(path: Path, header: GgufHeader, options: EngineOptions) -> str:
    facts: list[object] = [LIBRARY_VERSION, options.kv_bits]
    if options.kv_layout == "per_slot":  # a state contains the number of slots
        facts += [options.kv_layout, num_slots_of(options)]
    return digest_of(files_of(path, header), *facts)


def _bytes_per_cell(model: Pointer, options: EngineOptions) -> int:
    """Approximate size of keys and values of all layers; assumes equal numbers of heads."""
    width = lib.llama_model_n_embd(model) // lib.llama_model_n_head(model)
    values = 2 * lib.llama_model_n_layer(model) * lib.llama_model_n_head_kv(model) * width
    bits = {None: 16.0, 8: 8.5, 4: 4.5}[options.kv_bits]
    return max(1, int(values * bits / 8))


def _info(header: GgufHeader, model: Pointer, num_slots: int, options: EngineOptions) -> ModelInfo:
    return ModelInfo(
        backend=BACKEND,
        context_length=context_length_of(model, options),
        num_slots=num_slots,
        vocab_size=lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)),
        architecture=header.architecture,
        quantization=header.quantization,
        num_parameters=lib.llama_model_n_params(model),
        is_on_gpu=not _is_on_cpu(options),
    )
