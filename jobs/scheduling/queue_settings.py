"""The settings of jobs: their order, batches, files and keys. Part of ``jobs/settings.py``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from jobs.keys.keys_file import KeysFile


class QueueSettings(BaseSettings):
    """See ``Settings``, which inherits these fields."""

    keys_file: Path | None = None
    """Further keys with what they allow, see ``jobs/keys/keys_file.py``."""
    aging_s: float = Field(default=10.0, gt=0)
    """A waiting job gains one level of priority in this time."""
    fair: bool = True
    """Share each model between API keys by tokens; off: in order of arrival and priority."""
    fair_output_weight: float = Field(default=2.0, ge=0)
    """What a generated token counts for, where a prompt's token that is read counts 1."""
    batch_slowdown: float = Field(default=1.25, ge=1)
    """How much slower batch jobs may make the steps of interactive ones."""
    batch_quantum: int = Field(default=32, ge=1)
    """Tokens that a batch job writes before it gives way again, while others can."""
    batch_quiet_s: float = Field(default=300.0, ge=0)
    """A model that nobody has used for this long may be parked for a batch."""
    batch_turn_s: float = Field(default=600.0, ge=1)
    """How long models with batch work keep their memory before those of other batches."""
    batch_starve_s: float = Field(default=60.0, ge=0.1)
    """A batch job that waits this long beside interactive ones gets a slot for a quantum."""
    batch_window: int | None = Field(default=None, ge=1, le=4096)
    """Lines of batches that are jobs at once, per model; unset: twice the slots and 8 more."""

    @cached_property
    def keys(self) -> KeysFile | None:
        """The keys file, if there is to be one."""
        return KeysFile(self.keys_file.expanduser()) if self.keys_file else None
