"""Index of KV states by their tokens; finds the longest common prefix."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from workers.engines.shared.token_key import first, num_common, num_tokens


class PrefixIndex:
    """Sorted keys: those with the longest common prefix are neighbours."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []

    def add(self, key: bytes) -> None:
        bisect.insort(self._keys, key)

    def remove(self, key: bytes) -> None:
        del self._keys[bisect.bisect_left(self._keys, key)]

    def nearest(self, key: bytes) -> bytes | None:
        """The key with the longest common prefix with ``key``."""
        place = bisect.bisect_left(self._keys, key)
        neighbours = self._keys[max(0, place - 1) : place + 1]
        return max(neighbours, key=lambda other: num_common(other, key), default=None)

    def prefixes(self, key: bytes) -> Iterator[bytes]:
        """All keys that are a prefix of ``key``, itself included, longest first."""
        end = len(self._keys)
        while True:
            place = bisect.bisect_right(self._keys, key, hi=end) - 1
            if place < 0:
                return
            found = self._keys[place]
            num = num_common(found, key)
            if num == num_tokens(found):
                yield found
                end = place
            key = first(key, num)

    def extensions(self, key: bytes) -> Iterator[bytes]:
        """All keys that begin with ``key``, itself included."""
        place = bisect.bisect_left(self._keys, key)
        while place < len(self._keys) and self._keys[place].startswith(key):
            yield self._keys[place]
            place += 1


class StateIndex:
    """Keys of stored states. With ``can_trim`` a state also serves every prefix of its key."""

    def __init__(self) -> None:
        self._order = PrefixIndex()
        self._can_trim: dict[bytes, bool] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._can_trim

    def can_trim(self, key: bytes) -> bool:
        return self._can_trim[key]

    def add(self, key: bytes, *, can_trim: bool) -> None:
        assert key not in self._can_trim
        self._order.add(key)
        self._can_trim[key] = can_trim

    def remove(self, key: bytes) -> None:
        self._order.remove(key)
        del self._can_trim[key]

    def num_known(self, key: bytes) -> int:
        """Length of the longest common prefix of ``key`` and any stored key."""
        nearest = self._order.nearest(key)
        return 0 if nearest is None else num_common(nearest, key)

    def covering(self, key: bytes) -> bytes | None:
        """A stored key whose state contains the state of ``key``, or ``None``."""
        for other in self._order.extensions(key):
            if self._can_trim[other] or other == key:
                return other
        return None

    def prefixes(self, key: bytes) -> list[bytes]:
        """All stored keys that are a prefix of ``key``, longest first."""
        return list(self._order.prefixes(key))

    def longest(self, key: bytes, max_tokens: int) -> tuple[bytes, int] | None:
        """The stored key that serves the longest prefix of ``key``, and its length, if any does."""
        wanted = first(key, max_tokens)
        found = [self._by_trimming(wanted), self._whole(wanted)]
        return max(filter(None, found), key=lambda pair: pair[1], default=None)

    def _by_trimming(self, key: bytes) -> tuple[bytes, int] | None:
        num = self.num_known(key)
        covering = self.covering(first(key, num)) if num > 0 else None
        return None if covering is None else (covering, num)

    def _whole(self, key: bytes) -> tuple[bytes, int] | None:
        longest = next(self._order.prefixes(key), None)
        return None if longest is None else (longest, num_tokens(longest))
