"""The memory that models need, measured where they ran before, and the machine's budget."""

from __future__ import annotations

import time
from functools import cached_property

from jobs.catalog.catalog import find_model
from jobs.contract.errors import ModelNotFoundError
from jobs.contract.records import DesiredModel, WorkerState, WorkerStatus
from jobs.memory.budget import MemoryBudget, read_budget
from jobs.memory.estimate import known_memory
from jobs.memory.facts import machine_facts
from jobs.memory.ledger import MemoryKey, MemoryLedger, measured_bytes
from jobs.settings import Settings
from workers.supervision.residency.views import Need
from workers.supervision.worker_process import Reservation

_ESTIMATED_EVERY_S = 30.0


class ModelMemory:
    """Estimates before loads, and notes what loaded models take."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger = MemoryLedger(settings.state_dir)
        self._needs: dict[str, tuple[float, Need]] = {}
        self._keys: dict[str, MemoryKey | None] = {}

    @cached_property
    def budget(self) -> MemoryBudget:
        """For all models together, as it was before the first one."""
        return read_budget(self._settings)

    def keep_only(self, uids: set[str]) -> None:
        """Forget all desired models but those with these uids."""
        self._needs = {uid: need for uid, need in self._needs.items() if uid in uids}
        self._keys = {uid: key for uid, key in self._keys.items() if uid in uids}

    def need_of(self, desired: DesiredModel) -> Need:
        """What the model will need; nothing for one whose files are not here."""
        known_at, need = self._needs.get(desired.uid, (-_ESTIMATED_EVERY_S, Need()))
        if time.monotonic() - known_at >= _ESTIMATED_EVERY_S:
            need = self._estimate(desired)
            self._needs[desired.uid] = time.monotonic(), need
        return need

    def _estimate(self, desired: DesiredModel) -> Need:
        try:
            entry = find_model(self._settings, desired.load.model_name)
        except ModelNotFoundError:
            return Need()
        found = known_memory(entry, desired.load, self._settings, self._ledger)
        # Of kept prompts it needs room for one chat of the whole context.
        least = min(found.cache_bytes, found.state_per_token * found.context_length)
        spare = 0 if found.basis == "given" else found.cache_bytes - least
        is_guess = found.basis == "guess"
        return Need(found.total_bytes - spare, is_guess, found.total_bytes)

    def reservation(self, desired: DesiredModel, reserved_bytes: int) -> Reservation:
        """What to reserve beside ``reserved_bytes`` of other models: its wish, or what is left."""
        need, budget = self.need_of(desired), self.budget.total_bytes
        wish = max(need.num_bytes, need.wish_bytes)
        free = wish if budget is None else max(need.num_bytes, budget - reserved_bytes)
        num_bytes = min(wish, free)
        # On a CPU a model with all that it wishes needs no limit, which an estimate might set low.
        has_limit = num_bytes < wish or machine_facts().gpu_of(desired.load.backend) is not None
        return Reservation(num_bytes, num_bytes if has_limit and not need.is_guess else 0)

    def note(self, desired: DesiredModel, status: WorkerStatus) -> None:
        """Keep the figure of a loaded model for its next load."""
        if status.state is not WorkerState.READY or status.desired_uid != desired.uid:
            return
        if desired.uid not in self._keys:
            self._keys[desired.uid] = self._key_of(desired)
        key = self._keys[desired.uid]
        if key is not None:
            self._ledger.note(key, measured_bytes(status))

    def _key_of(self, desired: DesiredModel) -> MemoryKey | None:
        """``None`` for a model without files."""
        if desired.load.backend == "fake":
            return None
        try:
            entry = find_model(self._settings, desired.load.model_name)
        except ModelNotFoundError:
            return None
        return MemoryKey.of(entry, desired.load, self._settings)
