"""Identity of a supervisor: a uid of its node, kept in the state folder, and a token per process.

Host names and process ids can be equal in containers and on cloned machines, so they do not
identify the holder of a lock in Redis. Each process holds a file lock on the state folder and
writes its token there. A process that gets the file lock knows that the earlier ones have ended.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from jobs.platform.current import current_platform

_FILE = "node.json"
_LOCK = "node.lock"
_NEIGHBOUR_S = 600.0  # how long a node that is no longer listed is remembered
_MAX_TOKENS = 16  # of earlier processes; the locks of still older ones have expired

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """Content of the file. ``place`` and ``boot`` detect a copied folder and a new boot."""

    uid: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]+$")]
    place: str
    boot: str
    tokens: list[str]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """``uid`` survives restarts, ``token`` is new each time, ``name`` is for people.

    ``gone`` are tokens of processes of this node that have certainly ended.
    """

    uid: str
    token: str
    name: str
    gone: frozenset[str] = frozenset()
    _lock: BinaryIO | None = None

    @property
    def owner(self) -> str:
        """The value of locks that this process holds."""
        return f"{self.uid}|{self.token}"

    def is_gone(self, owner: str) -> bool:
        """True for an owner that has certainly ended. False means unknown."""
        uid, _, token = owner.partition("|")
        return uid == self.uid and token in self.gone

    def with_new_uid(self) -> NodeIdentity:
        """A copy with another uid, for when another node uses the same one."""
        return NodeIdentity(_new_uid(), self.token, self.name, _lock=self._lock)


def identify(state_dir: Path) -> NodeIdentity:
    """The node's identity, created at the first start in the folder.

    A second process at the same time and a copied folder get another uid. If the folder is
    unusable, the identity is not saved; this is not an error.
    """
    name, token = current_platform().node_name(), secrets.token_hex(8)
    try:
        lock = _lock(state_dir)
    except OSError as error:
        extra = {"folder": str(state_dir), "error": str(error)}
        log.warning("state folder is in use by another supervisor, or unusable", extra=extra)
        return NodeIdentity(_new_uid(), token, name)
    kept = _read(state_dir / _FILE)
    place, boot = _place(lock), current_platform().boot_id()
    if kept is None or kept.place != place:
        kept = _Kept(_new_uid(), place, boot, [])
    tokens = kept.tokens if kept.boot == boot else []
    _write(state_dir / _FILE, _Kept(kept.uid, place, boot, [*tokens, token][-_MAX_TOKENS:]))
    return NodeIdentity(kept.uid, token, name, frozenset(tokens), lock)


def save(identity: NodeIdentity, state_dir: Path) -> None:
    """Save a changed identity, if this process holds the folder's lock."""
    if identity._lock is not None:
        place, boot = _place(identity._lock), current_platform().boot_id()
        kept = _Kept(identity.uid, place, boot, [identity.token])
        _write(state_dir / _FILE, kept)


def _lock(state_dir: Path) -> BinaryIO:
    """Lock the folder until the process ends. Raises ``OSError`` when that fails."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (state_dir / _LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


def _read(path: Path) -> _Kept | None:
    """The saved identity, ``None`` if it is missing or unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("node identity is unreadable", extra={"file": str(path), "error": str(error)})
        return None


def _write(path: Path, kept: _Kept) -> None:
    draft = path.with_suffix(".new")
    try:
        draft.write_bytes(msgspec.json.encode(kept))
        draft.replace(path)
    except OSError as error:
        log.warning("node identity cannot be saved", extra={"file": str(path), "error": str(error)})


def _new_uid() -> str:
    return secrets.token_hex(8)


def _place(lock: BinaryIO) -> str:
    """Hash of machine, device and inode. It differs for a copy of the folder."""
    found = os.fstat(lock.fileno())
    parts = (_machine_id(), found.st_dev, found.st_ino)
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


class Neighbours:
    """The other nodes, remembered also if Redis loses them. Call ``look`` at each tick."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen_at: dict[str, float] = {}

    def look(self, uids: Iterable[str], own_uid: str) -> None:
        """Note the nodes that are listed in Redis now."""
        now = self._monotonic()
        self._seen_at.update(dict.fromkeys(uids, now))
        self._seen_at = {
            uid: at
            for uid, at in self._seen_at.items()
            if uid != own_uid and now - at < _NEIGHBOUR_S
        }

    @property
    def is_empty(self) -> bool:
        """True while no other node is known."""
        return not self._seen_at
