"""Restricts steps on a model's jobs to the supervisor that owns the model."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.storage import names

_NOT_OWNER = -1


class OwnershipLostError(Exception):
    """Another supervisor owns the model now, or none does. The caller must stop its work on it."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Each step checks that ``owner`` still holds the model's lock."""

    slug: str
    owner: str

    @property
    def key(self) -> str:
        return names.owner_key(self.slug)


def checked(answer: int) -> bool:
    """A script's answer as a bool. Raises ``OwnershipLostError`` for "not the owner"."""
    if answer == _NOT_OWNER:
        raise OwnershipLostError
    return bool(answer)
