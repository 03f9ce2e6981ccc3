"""The keys file (``MGS_KEYS_FILE``): who may call, and how much. It holds hashes, never keys.

TOML, or JSON if its name ends in ``.json``, with an entry per key::

    [[keys]]
    name = "alice"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    weight = 2
    models = ["qwen3*"]
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from jobs.keys.caller import RESERVED_NAMES, Caller, caller_of_name

MAX_KEYS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


class KeysFileError(Exception):
    """The keys file is wrong. Each of ``problems`` is a line with file, entry and field."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def check_name(value: str) -> str:
    """A valid name of a key. Raises ``ValueError`` for any other."""
    if not _NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', a letter or digit first")
    if value in RESERVED_NAMES:
        raise ValueError(f"{value!r} is the name of a key of the settings")
    return value


def _check_hash(value: str) -> str:
    if not _HASH.fullmatch(value.lower()):
        raise ValueError("must be the SHA-256 of the key, 64 hexadecimal digits")
    return value.lower()


def hash_of(key: str) -> str:
    """The hash of a key, as the file has it."""
    return hashlib.sha256(key.encode()).hexdigest()


def _limit() -> Any:
    return Field(default=None, strict=True, ge=1, le=10**12)


Pattern = Annotated[str, Field(strict=True, min_length=1, max_length=255)]


class KeyEntry(BaseModel):
    """One key: see ``Caller`` for what the fields mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(strict=True), AfterValidator(check_name)]
    sha256: Annotated[str, Field(strict=True), AfterValidator(_check_hash)]
    weight: float = Field(default=1.0, strict=True, ge=0.01, le=100, allow_inf_nan=False)
    priority_floor: int = Field(default=0, strict=True, ge=-100, le=100)
    classes: Annotated[list[Literal["interactive", "batch"]], Field(min_length=1)] = [
        "interactive",
        "batch",
    ]
    models: Annotated[list[Pattern], Field(min_length=1, max_length=100)] = ["*"]
    max_jobs: int | None = _limit()
    max_running: int | None = _limit()
    rpm: int | None = _limit()
    tpm: int | None = _limit()
    is_manager: bool = Field(default=False, strict=True)

    def to_caller(self) -> Caller:
        """Who calls with this key."""
        return Caller(
            id=caller_of_name(self.name),
            name=self.name,
            is_manager=self.is_manager,
            may_manage=self.is_manager,
            weight=self.weight,
            priority_floor=self.priority_floor,
            classes=frozenset(self.classes),
            models=tuple(self.models),
            max_jobs=self.max_jobs,
            max_running=self.max_running or 0,
            rpm=self.rpm,
            tpm=self.tpm,
        )


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one version of the file: callers by the hash of their key, and by their id."""

    entries: tuple[KeyEntry, ...] = ()
    by_hash: Mapping[str, Caller] = field(default_factory=dict)
    by_id: Mapping[str, Caller] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: list[KeyEntry]) -> Keys:
        callers = [entry.to_caller() for entry in entries]
        by_hash = {entry.sha256: one for entry, one in zip(entries, callers, strict=True)}
        return cls(tuple(entries), by_hash, {caller.id: caller for caller in callers})


_Version = tuple[int, int, int]
_NO_VERSION: _Version = (0, 0, 0)


class KeysFile:
    """The file, read again when it changes. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: tuple[_Version | None, Keys] = (None, Keys())

    def read(self) -> Keys:
        """The keys; the last right ones while the file is wrong or gone, which is logged once."""
        version = self._version()
        known_version, keys = self._known
        if version == known_version:
            return keys
        with self._lock:
            known_version, keys = self._known
            if version != known_version:
                keys = self._read_again(keys)
                self._known = (version, keys)
        return keys

    def _read_again(self, known: Keys) -> Keys:
        try:
            return self.check()
        except KeysFileError as error:
            log.warning(
                "the keys file is wrong: its last version stays in use",
                extra={"problems": error.problems, "num_keys": len(known.entries)},
            )
            return known

    def check(self) -> Keys:
        """Read the file now. Raises ``KeysFileError``, also if there is none."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            hint = "`mgs keys add NAME` makes it"
            raise KeysFileError([f"{self.path}: there is no such file: {hint}"]) from None
        except (OSError, ValueError) as error:
            raise KeysFileError([f"{self.path}: cannot be read: {error}"]) from error
        return parse_keys(text, self.path)

    def _version(self) -> _Version:
        try:
            state = self.path.stat()
        except OSError:
            return _NO_VERSION
        return (state.st_mtime_ns, state.st_size, state.st_ino)


def is_json(path: Path) -> bool:
    """Whether the file is JSON; any other is TOML."""
    return path.suffix.lower() == ".json"


def parse_keys(text: str, path: Path) -> Keys:
    """The keys in ``text``. Raises ``KeysFileError``; ``path`` says the format, and is for that."""
    try:
        document = json.loads(text) if is_json(path) else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a decode error of either is a ValueError
        raise KeysFileError([f"{path}: {error}"]) from error
    if not isinstance(document, dict) or not isinstance(document.get("keys", []), list):
        raise KeysFileError([f"{path}: keys: must be a list of keys"])
    if unknown := sorted(set(document) - {"keys"}):
        raise KeysFileError([f"{path}: {unknown[0]}: unknown; keys are entries of the list 'keys'"])
    given = document.get("keys", [])
    problems = [f"{path}: keys: more than {MAX_KEYS}"] if len(given) > MAX_KEYS else []
    entries: list[KeyEntry] = []
    for number, fields in enumerate(given[:MAX_KEYS]):
        try:
            entries.append(KeyEntry.model_validate(fields))
        except ValidationError as error:
            where = f"{path}: {_shown(number, fields)}"
            problems += [f"{where}: {_reason(problem)}" for problem in error.errors()]
    problems += [f"{path}: {problem}" for problem in _conflicts(entries)]
    if problems:
        raise KeysFileError(problems)
    return Keys.of(entries)


def _shown(number: int, fields: Any) -> str:
    name = fields.get("name") if isinstance(fields, dict) else None
    return f"keys[{number}]" + (f" ({name[:64]!r})" if isinstance(name, str) else "")


def _reason(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown field"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _conflicts(entries: list[KeyEntry]) -> Iterator[str]:
    """Names and hashes that two keys have."""
    names: set[str] = set()
    hashes: dict[str, str] = {}
    for entry in entries:
        if entry.name in names:
            yield f"{entry.name!r}: name: two keys have it"
        names.add(entry.name)
        other = hashes.setdefault(entry.sha256, entry.name)
        if other != entry.name:
            yield f"{entry.name!r}: sha256: {other!r} has the same key"
