"""Finds the caller of a key: of the settings' two keys, or of the keys file."""

from __future__ import annotations

import hmac

from jobs.keys.caller import DEFAULT_NAME, MANAGEMENT_NAME, NOBODY, Caller, caller_of
from jobs.keys.keys_file import Keys, hash_of
from jobs.settings import Settings

_NO_KEYS = Keys()


class KeyRing:
    """All keys of a server. The keys file is read again when it changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = list(_own_keys(settings))

    @property
    def is_required(self) -> bool:
        """Whether a request without a valid key is refused."""
        return self._settings.has_keys

    def find(self, key: str) -> Caller | None:
        """Whose key it is; ``None`` if it is nobody's."""
        given = key.encode()
        for own, caller in self._own:
            if hmac.compare_digest(given, own):
                return caller
        return self._listed.by_hash.get(hash_of(key)) if key else None

    def of_id(self, caller_id: str) -> Caller | None:
        """The caller with that id, for what is done later in its name; ``None`` if it is gone."""
        if not caller_id and not self.is_required:
            return NOBODY
        own = (caller for _, caller in self._own if caller.id == caller_id)
        return next(own, None) or self._listed.by_id.get(caller_id)

    def name_of(self, caller_id: str) -> str:
        """The name of the caller's key; "" without keys, or if the key is gone."""
        found = self.of_id(caller_id)
        return found.name if found is not None else ""

    @property
    def callers(self) -> list[Caller]:
        """Everybody who has a key."""
        return [caller for _, caller in self._own] + list(self._listed.by_id.values())

    @property
    def _listed(self) -> Keys:
        file = self._settings.keys
        return file.read() if file is not None else _NO_KEYS

    def anonymous(self, *, is_local: bool) -> Caller:
        """Who calls without a key, where none is required.

        Without a management key everybody may manage: such a server listens on its own machine.
        """
        may_manage = self._settings.management_key is None
        return Caller(may_manage=may_manage, is_manager=may_manage and is_local)


def _own_keys(settings: Settings) -> list[tuple[bytes, Caller]]:
    found = []
    if key := settings.management_key:
        manager = Caller(caller_of(key), MANAGEMENT_NAME, is_manager=True, may_manage=True)
        found.append((key.encode(), manager))
    if key := settings.api_key:
        may_manage = settings.management_key is None
        user = Caller(caller_of(key), DEFAULT_NAME, is_manager=may_manage, may_manage=may_manage)
        found.append((key.encode(), user))
    return found
