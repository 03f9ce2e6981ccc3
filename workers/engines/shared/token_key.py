"""Token ids as bytes, which keep their sort order and their common prefixes."""

from __future__ import annotations

from collections.abc import Sequence as ListLike

import numpy as np
import numpy.typing as npt

Tokens = ListLike[int] | npt.NDArray[np.int32]
_ID = np.dtype(">u4")
_ID_BYTES = _ID.itemsize


def to_key(tokens: Tokens) -> bytes:
    """The key of ``tokens``: four bytes per token, most significant first."""
    return np.asarray(tokens, dtype=_ID).tobytes()


def from_key(key: bytes) -> list[int]:
    """The token ids of a key."""
    return [int(token_id) for token_id in np.frombuffer(key, dtype=_ID)]


def num_tokens(key: bytes) -> int:
    """How many tokens a key holds."""
    return len(key) // _ID_BYTES


def first(key: bytes, count: int) -> bytes:
    """The key of the first ``count`` tokens."""
    return key[: count * _ID_BYTES]


def num_common(a: bytes, b: bytes) -> int:
    """Length of the common prefix of two keys, in tokens."""
    count = min(num_tokens(a), num_tokens(b))
    if first(a, count) == first(b, count):
        return count
    left = np.frombuffer(a, dtype=_ID, count=count)
    right = np.frombuffer(b, dtype=_ID, count=count)
    return int(np.argmax(left != right))
