"""How many KV cells a context gets, for how many slots of which length: as wanted, or as fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.catalog.gguf_header import GgufHeader
from jobs.contract.errors import InsufficientMemoryError, InvalidRequestError
from jobs.memory import load_defaults
from jobs.memory.load_defaults import CELLS_UNIT
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import Pointer, lib
from workers.engines.shared.memory_text import to_text

LONGEST_CONTEXT = 1 << 24
_LONGEST_DEFAULT = 32768  # tokens of a context where the room for its cells is known
_SHORTEST_CONTEXT = 512
# The rest is for kept states and vectors.
_PART_FOR_CELLS = 0.75
_PART_FOR_LONG_CONTEXT = 0.5
_REMEDY = "choose a shorter context_length, a smaller model or kv_bits"


@dataclass(frozen=True, slots=True)
class ContextCost:
    """Memory of a context: per KV cell, and what does not depend on their number."""

    cell_bytes: float
    other_bytes: int

    def bytes_for(self, num_cells: int) -> int:
        return int(self.cell_bytes * num_cells) + self.other_bytes

    def cells_for(self, num_bytes: float) -> int:
        """How many cells fit, in whole units; 0 if the rest alone does not."""
        if num_bytes < self.other_bytes:
            return 0
        if self.cell_bytes < 1:  # recurrent states only
            return LONGEST_CONTEXT
        return int((num_bytes - self.other_bytes) / self.cell_bytes) // CELLS_UNIT * CELLS_UNIT


@dataclass(frozen=True, slots=True)
class CellPlan:
    """How long sequences may be, how many run, and the KV cells for them, of all slots together.

    ``may_shorten``: no length of the context was requested.
    """

    context_length: int
    num_slots: int
    num_cells: int
    is_per_slot: bool
    may_shorten: bool

    def smaller(self) -> CellPlan | None:
        """With about half of the cells; ``None`` if one context is no longer possible then."""
        if self.is_per_slot and self.num_slots > 1:
            return self.with_slots(self.num_slots // 2)
        if not self.is_per_slot and self.num_cells > self.context_length:
            return replace(self, num_cells=max(self.num_cells // 2, self.context_length))
        if not self.may_shorten or self.context_length <= _SHORTEST_CONTEXT:
            return None
        return self.with_context(max(self.context_length // 2, _SHORTEST_CONTEXT))

    def with_slots(self, num_slots: int) -> CellPlan:
        """With cells of their own for that many slots."""
        num_cells = _whole_units(self.context_length) * num_slots
        return replace(self, num_slots=num_slots, num_cells=num_cells)

    def with_context(self, length: int) -> CellPlan:
        """With the cells of one context of this length."""
        num_cells = _whole_units(length) if self.is_per_slot else length
        return replace(self, context_length=length, num_cells=num_cells)

    def text(self) -> str:
        """What it is, for errors."""
        if self.is_per_slot and self.num_slots > 1:
            return f"{self.num_slots} contexts of {self.context_length} tokens"
        return f"a context of {self.context_length} tokens"


def plan_cells(
    model: Pointer, header: GgufHeader, options: EngineOptions, context_length: int | None = None
) -> CellPlan:
    """What is wanted. ``context_length``: instead of that of the options.

    Raises ``InvalidRequestError`` for an impossible number of slots or length.
    """
    may_shorten = context_length is None and options.context_length is None
    length = context_length or context_length_of(model, options)
    is_per_slot = options.kv_layout == "per_slot"
    num_slots = num_slots_of(options)
    num_cells = num_cells_of(header, length, num_slots)
    plan = CellPlan(length, num_slots, num_cells, is_per_slot, may_shorten)
    return plan.with_slots(num_slots) if is_per_slot else plan


def fit_cells(
    plan: CellPlan, model: Pointer, header: GgufHeader, cost: ContextCost, room_bytes: int
) -> CellPlan:
    """The plan with as much of it as fits into ``room_bytes``, at least one whole context.

    A length that was not requested follows from the room. Raises ``InsufficientMemoryError`` if
    not one context fits.
    """
    most = cost.cells_for(room_bytes)
    usual = cost.cells_for(room_bytes * _PART_FOR_CELLS)
    if plan.may_shorten:
        trained: int = lib.llama_model_n_ctx_train(model)
        long = min(trained, _LONGEST_DEFAULT, cost.cells_for(room_bytes * _PART_FOR_LONG_CONTEXT))
        length = max(long, min(plan.context_length, usual))
        if length < _SHORTEST_CONTEXT:
            length = min(plan.context_length, most)
        if length >= min(_SHORTEST_CONTEXT, trained):
            num_cells = num_cells_of(header, length, plan.num_slots)
            plan = replace(plan, context_length=length, num_cells=num_cells)
    if _whole_units(plan.context_length) > most:
        raise shortage(replace(plan, num_slots=1), cost.bytes_for(plan.context_length), room_bytes)
    if plan.is_per_slot:
        own = _whole_units(plan.context_length)
        slots = min(usual // own, most // own - 1)  # a state copied between slots takes room too
        return plan.with_slots(min(plan.num_slots, max(slots, 1)))
    return replace(plan, num_cells=min(plan.num_cells, max(usual, plan.context_length)))


def shortage(plan: CellPlan, num_bytes: int, room_bytes: int) -> InsufficientMemoryError:
    """The error for a context that takes ``num_bytes``."""
    return InsufficientMemoryError(
        f"no memory for {plan.text()}: {to_text(num_bytes)} are needed, "
        f"{to_text(max(room_bytes, 0))} are left: {_REMEDY}"
    )


def _whole_units(num_cells: int) -> int:
    return -(-num_cells // CELLS_UNIT) * CELLS_UNIT


def num_slots_of(options: EngineOptions) -> int:
    """How many sequences can run. Raises ``InvalidRequestError`` for an impossible number."""
    num_slots = load_defaults.DEFAULT_SLOTS if options.num_slots is None else options.num_slots
    largest: int = lib.llama_max_parallel_sequences() - 1
    if not 1 <= num_slots <= largest:
        raise InvalidRequestError(f"a GGUF model can have 1 to {largest} slots, not {num_slots}")
    return num_slots


def context_length_of(model: Pointer, options: EngineOptions) -> int:
    """The longest sequence, in tokens. Raises ``InvalidRequestError`` for an impossible length."""
    length = options.context_length
    if length is not None:
        if not 2 <= length <= LONGEST_CONTEXT:
            raise InvalidRequestError(f"a context of {length} tokens is not possible")
        return length
    return load_defaults.context_length(lib.llama_model_n_ctx_train(model), None)


def num_cells_of(header: GgufHeader, context_length: int, num_slots: int) -> int:
    """Number of KV cells that all slots share."""
    original = original_context_of(header)
    return load_defaults.num_shared_cells(context_length, num_slots, original)


def original_context_of(header: GgufHeader) -> int | None:
    """Context length before a model's long-context training, if it has RoPE factors for both."""
    return header.count(f"{header.architecture}.rope.scaling.original_context_length")
