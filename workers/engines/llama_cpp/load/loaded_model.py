"""All that belongs to one loaded GGUF model, put together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InvalidRequestError, ModelLoadError
from workers.engines.base import EngineOptions, ModelInfo, OnProgress
from workers.engines.llama_cpp import mapped_pages
from workers.engines.llama_cpp.batch.drafting import Drafter, DraftModel, PromptLookup
from workers.engines.llama_cpp.binding import LIBRARY_VERSION, Pointer, lib
from workers.engines.llama_cpp.cache.host_cache import Shelf
from workers.engines.llama_cpp.cache.memory import KvMemory
from workers.engines.llama_cpp.cache.spill import Spill
from workers.engines.llama_cpp.cpu.abort import CallStop
from workers.engines.llama_cpp.cpu.tile_padding import Tiles
from workers.engines.llama_cpp.embedding import Embedder
from workers.engines.llama_cpp.first_touch import decode_first_row, private_regions
from workers.engines.llama_cpp.fourth_row import is_fourth_row_welcome
from workers.engines.llama_cpp.layout import Layout
from workers.engines.llama_cpp.load.adapters import Adapters
from workers.engines.llama_cpp.load.context import (
    KV_TYPES,
    context_length_of,
    num_cells_of,
    num_drafts_of,
    num_slots_of,
    num_threads_of,
    open_pool,
    original_context_of,
)
from workers.engines.llama_cpp.load.model_file import (
    check_file,
    check_generates,
    files_of,
    load_model,
)
from workers.engines.llama_cpp.load.tokenizer import LlamaCppTokenizer
from workers.engines.shared.thread_share import ThreadShare

MAX_DRAFTS = 16
# The CPU's attention takes so many rows or more as tiles. Fewer read all of the past each by
# itself: after 1,500 tokens, 32 took 910 ms and 64 took 590 ms.
_CPU_TILE = 64
MAX_SHELF_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Native:
    """A loaded model and its context, whose KV cells ``layout`` divides.

    ``num_kept_cells`` of a pool may hold kept prefixes, ``shelf`` has room for more (``None``: it
    keeps none). ``can_trim``: the model's memory can be cut anywhere. ``threads``: ``None`` where
    their number is given. ``tiles``: of one row where that is of no account. ``call_stop``:
    ``None`` on a GPU, which computes on after the call, and where the memory cannot forget what a
    call that was broken off has left in it.
    """

    model: Pointer
    layout: Layout
    num_kept_cells: int
    shelf: Shelf | None
    can_trim: bool
    tokenizer: LlamaCppTokenizer
    info: ModelInfo
    adapters: Adapters
    adapter: str | None
    embedder: Embedder
    drafter: Drafter | None
    num_drafts: int
    threads: ThreadShare | None
    tiles: Tiles
    step_budget_s: float
    call_stop: CallStop | None

    def close(self) -> None:
        """Free it all."""
        self.tokenizer.close()
        self.embedder.close()
        if self.drafter is not None:
            self.drafter.close()
        self.layout.close()
        lib.llama_model_free(self.model)


def load_native(path: Path, options: EngineOptions, on_progress: OnProgress) -> Native:
    """See ``open_llama_cpp``."""
    _check_options(options)
    header = check_file(path)
    num_slots = num_slots_of(options)
    model = load_model(path, options, on_progress)
    try:
        check_generates(path, model)
        adapters = Adapters(model, options.adapters_dir)
        if options.adapter is not None:
            adapters.load(options.adapter)
        tokenizer = LlamaCppTokenizer(model)
        context_length = context_length_of(model, options)
        can_trim = lib.llama_model_n_swa(model) == 0
        can_forget = can_trim and _can_share(model)
        is_on_cpu = _is_on_cpu(options)
        layout = _open_layout(path, header, model, context_length, options, can_forget=can_forget)
        num_threads = options.num_threads or num_threads_of(model)
        drafter = _open_drafter(model, context_length, options)
        shelf = _open_shelf(path, model, layout.memory, options, can_trim=can_trim)
    except Exception:
        lib.llama_model_free(model)
        raise
    return Native(
        model=model,
        layout=layout,
        num_kept_cells=_num_kept_cells(model, layout.num_pool_cells, options),
        shelf=shelf,
        can_trim=can_trim,
        tokenizer=tokenizer,
        info=_info(header, model, context_length, num_slots),
        adapters=adapters,
        adapter=options.adapter,
        embedder=Embedder(model, context_length, num_threads),
        drafter=drafter,
        num_drafts=num_drafts_of(options),
        threads=_thread_share(num_threads, options),
        tiles=Tiles(header, model, _CPU_TILE if is_on_cpu else 1, can_pad=can_forget),
        step_budget_s=options.step_budget_s,
        call_stop=CallStop() if is_on_cpu and can_forget else None,
    )


def _open_layout(
    path: Path,
    header: GgufHeader,
    model: Pointer,
    context_length: int,
    options: EngineOptions,
    *,
    can_forget: bool,
) -> Layout:
    """The KV cells, in a context that has decoded a row."""
    regions = private_regions()
    layout = Layout(
        path,
        model,
        num_cells_of(header, context_length, num_slots_of(options)),
        context_length,
        options,
        may_have_ranges=can_forget and _may_have_ranges(header, options),
        has_fours=_is_on_cpu(options) and _can_share(model) and is_fourth_row_welcome(header),
    )
    mapped_pages.release(files_of(path, header))
    try:
        decode_first_row(path, layout.memory, regions)
    except ModelLoadError:
        layout.close()
        raise
    return layout


def _thread_share(num_threads: int, options: EngineOptions) -> ThreadShare | None:
    """None for who asks for a number by name: it is taken as it is."""
    if options.num_threads is not None:
        return None
    return ThreadShare(num_threads, psutil.cpu_count() or num_threads)


def _is_on_cpu(options: EngineOptions) -> bool:
    return options.num_gpu_layers == 0 or not lib.llama_supports_gpu_offload()


def _check_options(options: EngineOptions) -> None:
    """Refuse by name what would otherwise be dropped in silence."""
    if options.kv_bits not in (None, *KV_TYPES):
        message = f"kv_bits: a GGUF model's KV cache can have 4 or 8 bits, not {options.kv_bits}"
        raise InvalidRequestError(message, "kv_bits")
    if options.num_draft_tokens is not None and not 1 <= options.num_draft_tokens <= MAX_DRAFTS:
        message = f"num_draft_tokens: 1 to {MAX_DRAFTS} are possible"
        raise InvalidRequestError(message, "num_draft_tokens")


def _open_drafter(model: Pointer, context_length: int, options: EngineOptions) -> Drafter | None:
    num_drafts = num_drafts_of(options)
    if options.draft_path is None:
        return PromptLookup(num_drafts) if num_drafts else None
    path = options.draft_path
    header = check_file(path)
    draft = load_model(path, options, lambda fraction: None)
    try:
        _check_same_vocabulary(path, model, draft)
        num_slots = num_slots_of(options)
        num_cells = num_cells_of(header, context_length, num_slots)
        pool = open_pool(path, draft, num_cells, context_length, options)
    except Exception:
        lib.llama_model_free(draft)
        raise
    return DraftModel(draft, pool, num_drafts)


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


def _can_share(model: Pointer) -> bool:
    """Whether a beginning of a text can be kept: not of a state that only knows its end."""
    return not (lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model))


def _may_have_ranges(header: GgufHeader, options: EngineOptions) -> bool:
    """On a CPU: a GPU's attention leaves out cells of others by itself.

    Not where sequences have several rows in a call, nor without a shelf to go by. llama.cpp picks
    RoPE factors by the length of a range: a model with two sets of them stays with one layout.
    """
    return (
        _is_on_cpu(options)
        and num_slots_of(options) > 1
        and num_drafts_of(options) == 0
        and _prompt_cache_bytes(options) > 0
        and original_context_of(header) is None
    )


def _prompt_cache_bytes(options: EngineOptions) -> int:
    if options.prompt_cache_bytes is not None:
        return options.prompt_cache_bytes
    return min(MAX_SHELF_BYTES, psutil.virtual_memory().total // 16)


def _num_kept_cells(model: Pointer, num_cells: int, options: EngineOptions) -> int:
    """Cells of the pool for kept prefixes: few, since idle cells slow every step."""
    if not _can_share(model):
        return 0
    return min(num_cells // 4, _prompt_cache_bytes(options) // _bytes_per_cell(model, options))


def _open_shelf(
    path: Path, model: Pointer, memory: KvMemory, options: EngineOptions, *, can_trim: bool
) -> Shelf | None:
    max_bytes = _prompt_cache_bytes(options)
    if max_bytes == 0 or not _can_share(model):
        return None
    folder = options.prompt_cache_dir
    spill = None if folder is None else Spill(folder, _identity(path, options), max_bytes)
    return Shelf(memory, max_bytes, can_trim=can_trim, spill=spill)


def _identity(path: Path, options: EngineOptions) -> str:
    """What must be equal for a state of one process to be good for another."""
    facts = path.stat()
    parts = (path.name, facts.st_size, facts.st_mtime_ns, options.kv_bits, LIBRARY_VERSION)
    return " ".join(map(str, parts))


def _bytes_per_cell(model: Pointer, options: EngineOptions) -> int:
    """About: keys and values of all layers, as if all had the same number of heads."""
    width = lib.llama_model_n_embd(model) // lib.llama_model_n_head(model)
    values = 2 * lib.llama_model_n_layer(model) * lib.llama_model_n_head_kv(model) * width
    bits = {None: 16.0, 8: 8.5, 4: 4.5}[options.kv_bits]
    return max(1, int(values * bits / 8))


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
