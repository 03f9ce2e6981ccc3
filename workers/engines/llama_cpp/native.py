"""Opening a GGUF file: the checks that give clear errors, then the model and its context."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from jobs.errors import InvalidRequestError, ModelLoadError, UnsupportedParameterError
from jobs.gguf_header import GgufHeader, read_gguf_header, split_parts
from workers.engines.base import EngineOptions, ModelInfo, OnProgress
from workers.engines.llama_cpp.adapters import Adapters
from workers.engines.llama_cpp.binding import Pointer, lib, native_log
from workers.engines.llama_cpp.drafting import Drafter, DraftModel, PromptLookup
from workers.engines.llama_cpp.embedding import Embedder
from workers.engines.llama_cpp.scheduler import SCORED_ROWS
from workers.engines.llama_cpp.tokenizer import LlamaCppTokenizer

DEFAULT_SLOTS = 8
DEFAULT_CONTEXT_LIMIT = 8192  # a long-context model's full length only when asked for: KV is big
LONGEST_CONTEXT = 1 << 24
POOL_CELLS = 16384  # KV cells that all slots share, unless one context alone is longer
DEFAULT_DRAFTS = 4
BATCH_TOKENS = 2048
PARAMETERS_PER_THREAD = 10_000_000  # less work than this is sooner done than shared
MAX_DRAFTS = 16
_ALL_LAYERS = -1
_KV_TYPES = {4: lib.GGML_TYPE_Q4_0, 8: lib.GGML_TYPE_Q8_0}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Native:
    """A loaded model and its context of ``num_cells`` KV cells, which all slots share.

    ``num_kept_cells`` of them may hold kept prefixes. ``can_trim``: its memory can be cut anywhere.
    """

    model: Pointer
    context: Pointer
    num_cells: int
    num_kept_cells: int
    can_trim: bool
    tokenizer: LlamaCppTokenizer
    info: ModelInfo
    adapters: Adapters
    adapter: str | None
    embedder: Embedder
    drafter: Drafter | None
    num_drafts: int

    def close(self) -> None:
        """Free it all."""
        self.tokenizer.close()
        self.embedder.close()
        if self.drafter is not None:
            self.drafter.close()
        lib.llama_free(self.context)
        lib.llama_model_free(self.model)


def load_native(path: Path, options: EngineOptions, on_progress: OnProgress) -> Native:
    """See ``open_llama_cpp``."""
    _check_options(options)
    header = check_file(path)
    num_slots = _num_slots(options)
    model = _load_model(path, options, on_progress)
    try:
        _check_generates(path, model)
        adapters = Adapters(model, options.adapters_dir)
        if options.adapter is not None:
            adapters.load(options.adapter)
        tokenizer = LlamaCppTokenizer(model)
        context_length = _context_length(model, options)
        num_cells = _num_cells(header, context_length, num_slots)
        context, num_cells = _open_context(path, model, num_cells, context_length, options)
        num_threads = options.num_threads or _num_threads(model)
        drafter = _open_drafter(model, context_length, options)
    except Exception:
        lib.llama_model_free(model)
        raise
    return Native(
        model=model,
        context=context,
        num_cells=num_cells,
        num_kept_cells=_num_kept_cells(model, context, num_cells, options),
        can_trim=lib.llama_model_n_swa(model) == 0,
        tokenizer=tokenizer,
        info=_info(header, model, context_length, num_slots),
        adapters=adapters,
        adapter=options.adapter,
        embedder=Embedder(model, context_length, num_threads),
        drafter=drafter,
        num_drafts=_num_drafts(options),
    )


def _check_options(options: EngineOptions) -> None:
    """Refuse by name what would otherwise be dropped in silence."""
    if options.kv_bits not in (None, *_KV_TYPES):
        message = f"kv_bits: a GGUF model's KV cache can have 4 or 8 bits, not {options.kv_bits}"
        raise InvalidRequestError(message, "kv_bits")
    if options.num_draft_tokens is not None and not 1 <= options.num_draft_tokens <= MAX_DRAFTS:
        message = f"num_draft_tokens: 1 to {MAX_DRAFTS} are possible"
        raise InvalidRequestError(message, "num_draft_tokens")
    if options.prompt_cache_dir is not None:
        message = "prompt_cache_dir is not supported for GGUF models"
        raise UnsupportedParameterError(message, "prompt_cache_dir")


def _num_drafts(options: EngineOptions) -> int:
    if options.num_draft_tokens is not None:
        return options.num_draft_tokens
    return 0 if options.draft_path is None else DEFAULT_DRAFTS


def _open_drafter(model: Pointer, context_length: int, options: EngineOptions) -> Drafter | None:
    num_drafts = _num_drafts(options)
    if options.draft_path is None:
        return PromptLookup(num_drafts) if num_drafts else None
    path = options.draft_path
    check_file(path)
    draft = _load_model(path, options, lambda fraction: None)
    try:
        _check_same_vocabulary(path, model, draft)
        num_slots = _num_slots(options)
        num_cells = min(context_length * num_slots, max(context_length, POOL_CELLS))
        context, num_cells = _open_context(path, draft, num_cells, context_length, options)
    except Exception:
        lib.llama_model_free(draft)
        raise
    return DraftModel(draft, context, num_cells, num_drafts)


def _check_same_vocabulary(path: Path, model: Pointer, draft: Pointer) -> None:
    vocabularies = [lib.llama_model_get_vocab(one) for one in (model, draft)]
    sizes = [lib.llama_vocab_n_tokens(vocab) for vocab in vocabularies]
    # Every hundredth token: a different tokenizer differs nearly everywhere.
    texts = [
        [lib.llama_vocab_get_text(vocab, token) for token in range(0, min(sizes), 100)]
        for vocab in vocabularies
    ]
    if sizes[0] != sizes[1] or texts[0] != texts[1]:
        raise ModelLoadError(f"{path.name}: cannot draft, its vocabulary is not the model's")


def _num_kept_cells(
    model: Pointer, context: Pointer, num_cells: int, options: EngineOptions
) -> int:
    """Cells for kept prefixes; a recurrent state cannot be shared or kept by parts."""
    if lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model):
        return 0
    if options.prompt_cache_bytes is None:
        return num_cells
    return min(num_cells, options.prompt_cache_bytes // _bytes_per_cell(model, options))


def _bytes_per_cell(model: Pointer, options: EngineOptions) -> int:
    """About: keys and values of all layers, as if all had the same number of heads."""
    width = lib.llama_model_n_embd(model) // lib.llama_model_n_head(model)
    values = 2 * lib.llama_model_n_layer(model) * lib.llama_model_n_head_kv(model) * width
    bits = {None: 16.0, 8: 8.5, 4: 4.5}[options.kv_bits]
    return max(1, int(values * bits / 8))


def check_file(path: Path) -> GgufHeader:
    """The header of a file that llama.cpp can be given, with all its parts present."""
    if path.is_dir():
        raise ModelLoadError(f"{path.name}: a folder, not a GGUF file")
    if not path.exists():
        raise ModelLoadError(f"{path.name}: no such file")
    header = read_gguf_header(path)
    if header.num_parts > 1:
        _check_parts(path, header)
    return header


def _check_parts(path: Path, header: GgufHeader) -> None:
    parts = split_parts(path, header.num_parts)
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise ModelLoadError(f"{path.name}: parts are missing: {', '.join(missing)}")
    if header.part != 0:
        number = f"part {header.part + 1} of {header.num_parts}"
        raise ModelLoadError(f"{path.name}: is {number}; load {parts[0].name}")


def _load_model(path: Path, options: EngineOptions, on_progress: OnProgress) -> Pointer:
    stopped_by: list[BaseException] = []

    def report(fraction: float, _user_data: object) -> bool:
        # An exception cannot cross llama.cpp: stop the load with False and raise it afterwards.
        try:
            on_progress(fraction)
        except BaseException as error:
            stopped_by.append(error)
        return not stopped_by

    params: Any = lib.llama_model_default_params()
    params.progress_callback = lib.llama_progress_callback(report)
    num_layers = options.num_gpu_layers
    params.n_gpu_layers = _ALL_LAYERS if num_layers is None else num_layers
    native_log.clear()
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if stopped_by:
        if model:
            lib.llama_model_free(model)
        raise stopped_by[0]
    if not model:
        raise _load_error(path, "llama.cpp cannot load it")
    return model


def _check_generates(path: Path, model: Pointer) -> None:
    is_text_model = lib.llama_model_has_decoder(model) and not lib.llama_model_has_encoder(model)
    if not is_text_model or lib.llama_model_is_diffusion(model):
        raise ModelLoadError(f"{path.name}: not a model that generates text token by token")


def _open_context(
    path: Path, model: Pointer, num_cells: int, context_length: int, options: EngineOptions
) -> tuple[Pointer, int]:
    """A context of ``num_cells``, or of fewer when memory is short, one full context at least."""
    native_log.clear()
    while True:
        context = lib.llama_init_from_model(model, _context_params(model, num_cells, options))
        if context and lib.llama_get_memory(context):
            return context, num_cells
        if context:
            lib.llama_free(context)
            raise ModelLoadError(f"{path.name}: the model keeps no KV cache, it cannot generate")
        if num_cells == context_length:
            raise _load_error(path, f"no room for a context of {context_length} tokens")
        num_cells = max(num_cells // 2, context_length)
        _logger.warning("KV pool does not fit, trying less", extra={"num_cells": num_cells})


def _context_params(model: Pointer, num_cells: int, options: EngineOptions) -> Any:
    num_slots = _num_slots(options)
    num_threads = options.num_threads or _num_threads(model)
    params: Any = lib.llama_context_default_params()
    params.n_ctx = num_cells
    params.n_batch = BATCH_TOKENS
    params.n_seq_max = num_slots
    # Logits of one row per sequence are wanted: a buffer for a row of every prompt token would
    # take 300 MB with a vocabulary of 150,000.
    params.n_outputs_max = num_slots * (1 + _num_drafts(options)) + SCORED_ROWS
    params.kv_unified = True
    params.n_threads = num_threads
    params.n_threads_batch = num_threads
    params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
    if options.kv_bits is not None:
        params.type_k = params.type_v = _KV_TYPES[options.kv_bits]
    return params


def _num_slots(options: EngineOptions) -> int:
    num_slots = DEFAULT_SLOTS if options.num_slots is None else options.num_slots
    largest: int = lib.llama_max_parallel_sequences()
    if not 1 <= num_slots <= largest:
        raise InvalidRequestError(f"a GGUF model can have 1 to {largest} slots, not {num_slots}")
    return num_slots


def _context_length(model: Pointer, options: EngineOptions) -> int:
    asked = options.context_length
    if asked is not None:
        if not 2 <= asked <= LONGEST_CONTEXT:
            raise InvalidRequestError(f"a context of {asked} tokens is not possible")
        return asked
    trained: int = lib.llama_model_n_ctx_train(model)
    return min(trained, DEFAULT_CONTEXT_LIMIT)


def _num_cells(header: GgufHeader, context_length: int, num_slots: int) -> int:
    num_cells = min(context_length * num_slots, max(context_length, POOL_CELLS))
    # llama.cpp picks the short or long RoPE factors of a long-context model by the size of the
    # whole pool: keep a short context's pool on the short side.
    original = header.count(f"{header.architecture}.rope.scaling.original_context_length")
    if original is not None and context_length <= original:
        num_cells = min(num_cells, original)
    return num_cells


def _info(header: GgufHeader, model: Pointer, context_length: int, num_slots: int) -> ModelInfo:
    return ModelInfo(
        backend="llama-cpp",
        context_length=context_length,
        num_slots=num_slots,
        vocab_size=lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)),
        architecture=header.architecture,
        quantization=header.quantization,
        num_parameters=lib.llama_model_n_params(model),
    )


def _num_threads(model: Pointer) -> int:
    num_parameters: int = lib.llama_model_n_params(model)
    return max(1, min(_physical_cores(), num_parameters // PARAMETERS_PER_THREAD))


def _physical_cores() -> int:
    # A second hyperthread of a core slows llama.cpp down. A container may own fewer than all.
    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return min(physical, usable or physical)


def _load_error(path: Path, reason: str) -> ModelLoadError:
    detail = native_log.complaints()
    return ModelLoadError(
        f"{path.name}: {reason}: {detail}" if detail else f"{path.name}: {reason}"
    )
