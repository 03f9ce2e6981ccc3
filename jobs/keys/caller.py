"""The caller of a request: whose key it came with, and what that key allows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase

ALL_CLASSES: frozenset[str] = frozenset({"interactive", "batch"})
LOWEST_PRIORITY = -100
DEFAULT_NAME = "default"
MANAGEMENT_NAME = "management"
RESERVED_NAMES = frozenset({DEFAULT_NAME, MANAGEMENT_NAME})
"""The names of ``MGS_API_KEY`` and ``MGS_MANAGEMENT_KEY``."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. ``id`` owns jobs, files and batches; it is "" without keys.

    ``name`` is the key's, for people. ``may_manage``: may load models and call the routes for
    managers. ``is_manager``: sees and ends everybody's jobs, too. Of two callers, the one of twice
    the ``weight`` gets twice the tokens while both wait. A request's priority is at least
    ``priority_floor``: the lower, the more urgent. ``models`` are patterns of model names. The
    limits count waiting and running jobs (``max_jobs``), jobs that run at once (``max_running``, 0:
    any number), requests (``rpm``) and tokens (``tpm``) per minute; ``None``: no limit.
    """

    id: str = ""
    name: str = ""
    is_manager: bool = False
    may_manage: bool = False
    weight: float = 1.0
    priority_floor: int = LOWEST_PRIORITY
    classes: frozenset[str] = ALL_CLASSES
    models: tuple[str, ...] = ("*",)
    max_jobs: int | None = None
    max_running: int = 0
    rpm: int | None = None
    tpm: int | None = None

    @property
    def has_rates(self) -> bool:
        """Whether requests or tokens per minute are limited."""
        return self.rpm is not None or self.tpm is not None

    def may_see(self, owner: str) -> bool:
        """Whether what belongs to the caller with the id ``owner`` is shown to this one."""
        return self.is_manager or owner == self.id

    @property
    def has_all_models(self) -> bool:
        """Whether the key is for every model. Managers' keys are."""
        return self.is_manager or "*" in self.models

    def may_use(self, model_name: str) -> bool:
        """Whether the key is for this model; for any other, it is as if there were none."""
        if self.has_all_models:
            return True
        return any(fnmatchcase(model_name, pattern) for pattern in self.models)

    def clamped(self, priority: int) -> int:
        """The priority that a request of this caller gets."""
        return max(priority, self.priority_floor)


NOBODY = Caller(may_manage=True, is_manager=True)
"""The server itself, and whoever calls a server without keys from its own machine."""


def caller_of(key: str) -> str:
    """The hash that identifies ``MGS_API_KEY`` or ``MGS_MANAGEMENT_KEY`` in Redis."""
    return hashlib.sha256(b"mgs caller " + key.encode()).hexdigest()[:16]


def caller_of_name(name: str) -> str:
    """The id of a key of the keys file: of its name, so that a new secret keeps the old jobs."""
    return hashlib.sha256(b"mgs key " + name.encode()).hexdigest()[:16]
