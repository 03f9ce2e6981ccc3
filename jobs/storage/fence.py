"""Who may settle a model's jobs from outside: its owner, as long as it is that."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.storage import names

_NOT_OWNER = -1


class OwnershipLostError(Exception):
    """The model has another owner by now, or none: what was begun in its name ends here."""


@dataclass(frozen=True, slots=True)
class Fence:
    """``owner`` has to stand in the model's lock at each step."""

    slug: str
    owner: str

    @property
    def key(self) -> str:
        return names.owner_key(self.slug)


def checked(answer: int) -> bool:
    """A script's answer to who had to be the owner."""
    if answer == _NOT_OWNER:
        raise OwnershipLostError
    return bool(answer)
