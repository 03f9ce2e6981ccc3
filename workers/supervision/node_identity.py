"""Who a supervisor is: an identity of its node in the state folder, and a token of its process.

Host names and process ids are alike in containers and on cloned machines, so neither says whose a
lock in Redis is. A process of ours that is gone is known for sure only by what it left in the
folder, whose lock it held until its end.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import psutil

_FILE = "node.json"
_LOCK = "node.lock"
_NEIGHBOUR_S = 600.0  # for which a node is remembered that is not listed any more
_MAX_TOKENS = 16  # of earlier processes; their locks in Redis have expired long before

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """What the folder's file says."""

    uid: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]+$")]
    place: str
    boot: str
    tokens: list[str]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """``uid`` stays over restarts, ``token`` is new each time, ``name`` is for people.

    ``gone`` are tokens of processes of this node that have ended for sure.
    """

    uid: str
    token: str
    name: str
    gone: frozenset[str] = frozenset()
    _lock: BinaryIO | None = None

    @property
    def owner(self) -> str:
        """What stands in a lock that this process holds."""
        return f"{self.uid}|{self.token}"

    def is_gone(self, owner: str) -> bool:
        """True for an owner that is known to have ended; False says nothing."""
        uid, _, token = owner.partition("|")
        return uid == self.uid and token in self.gone

    def with_new_uid(self) -> NodeIdentity:
        """Another node's, for one whose uid somebody else uses."""
        return NodeIdentity(_new_uid(), self.token, self.name, _lock=self._lock)


def identify(state_dir: Path) -> NodeIdentity:
    """The node's identity, made at the first start in that folder.

    The folder's second process at a time, and a folder that was copied, get another uid. One that
    cannot be used or written to keeps nothing, and stops nobody.
    """
    name, token = platform.node(), secrets.token_hex(8)
    try:
        lock = _lock(state_dir)
    except OSError as error:
        extra = {"folder": str(state_dir), "error": str(error)}
        log.warning("the state folder is another supervisor's, or unusable", extra=extra)
        return NodeIdentity(_new_uid(), token, name)
    kept = _read(state_dir / _FILE)
    place, boot = _place(lock), _boot_id()
    if kept is None or kept.place != place:
        kept = _Kept(_new_uid(), place, boot, [])
    tokens = kept.tokens if kept.boot == boot else []
    _write(state_dir / _FILE, _Kept(kept.uid, place, boot, [*tokens, token][-_MAX_TOKENS:]))
    return NodeIdentity(kept.uid, token, name, frozenset(tokens), lock)


def save(identity: NodeIdentity, state_dir: Path) -> None:
    """Keep an identity that has changed since ``identify``, if the folder is this process's."""
    if identity._lock is not None:
        kept = _Kept(identity.uid, _place(identity._lock), _boot_id(), [identity.token])
        _write(state_dir / _FILE, kept)


def _lock(state_dir: Path) -> BinaryIO:
    """The folder's lock file, locked until the process ends; ``OSError`` when it cannot be."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (state_dir / _LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


def _read(path: Path) -> _Kept | None:
    """What an earlier process wrote; ``None`` when nothing of use is there."""
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
        log.warning("node identity is not kept", extra={"file": str(path), "error": str(error)})


def _new_uid() -> str:
    return secrets.token_hex(8)


def _place(lock: BinaryIO) -> str:
    """The same for the same file on the same machine: a copy of the folder is another place."""
    found = os.fstat(lock.fileno())
    parts = (_machine_id(), found.st_dev, found.st_ino)
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:32]


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return f"{uuid.getnode():012x}"


def _boot_id() -> str:
    """Another one after each start of the system: a cloned machine has started anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        pass
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return str(int(psutil.boot_time()))


class Neighbours:
    """The other nodes, whatever Redis has forgotten since; ``look`` at each tick."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._seen_at: dict[str, float] = {}

    def look(self, uids: Iterable[str], own_uid: str) -> None:
        """Note the nodes that are listed now."""
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
