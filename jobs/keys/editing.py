"""Changes the keys file for ``mgs keys``: one at a time, as a whole, for its owner's eyes only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs.keys.keys_file import KeyEntry, Keys, KeysFileError, hash_of, is_json, parse_keys
from jobs.platform.file_lock import lock_file

_PREFIX = "mgs-"
_NUM_RANDOM_BYTES = 32
_LOCK_TIMEOUT_S = 10.0
_LOCK_POLL_S = 0.05
_HEADER = re.compile(r"\s*\[\[\s*keys\s*\]\]\s*(#.*)?")
_HASH_LINE = re.compile(r"\s*sha256\s*=")
_Entries = list[KeyEntry]


def add_key(path: Path, name: str, options: dict[str, Any]) -> str:
    """Add a key with these fields of ``KeyEntry``. Returns the key, which is nowhere else.

    Raises ``KeysFileError``, or pydantic's ``ValidationError`` for a wrong option.
    """
    key = new_key()
    entry = KeyEntry(name=name, sha256=hash_of(key), **options)

    def change(entries: _Entries) -> _Entries:
        if any(one.name == name for one in entries):
            raise KeysFileError([f"there is a key {name!r} already: rotate it, or remove it first"])
        return [*entries, entry]

    _edit(path, change, lambda text, _: _with_block(text, entry))
    return key


def rotate_key(path: Path, name: str) -> str:
    """Give a key a new secret; its jobs, files and limits stay. Returns the key."""
    key = new_key()
    digest = hash_of(key)

    def change(entries: _Entries) -> _Entries:
        at = _place_of(entries, name)
        return [
            *entries[:at],
            entries[at].model_copy(update={"sha256": digest}),
            *entries[at + 1 :],
        ]

    def edit(text: str, entries: _Entries) -> str:
        start, end = _block(text, _place_of(entries, name))
        lines = text.splitlines(keepends=True)
        for number in range(start, end):
            if _HASH_LINE.match(lines[number]):
                lines[number] = f'sha256 = "{digest}"\n'
        return "".join(lines)

    _edit(path, change, edit)
    return key


def remove_key(path: Path, name: str) -> None:
    """Remove a key. Raises ``KeysFileError``, also if there is none of that name."""

    def change(entries: _Entries) -> _Entries:
        at = _place_of(entries, name)
        return entries[:at] + entries[at + 1 :]

    def edit(text: str, entries: _Entries) -> str:
        start, end = _block(text, _place_of(entries, name))
        lines = text.splitlines(keepends=True)
        return "".join(lines[:start] + lines[end:])

    _edit(path, change, edit)


def new_key() -> str:
    """A key of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(_NUM_RANDOM_BYTES)


def _place_of(entries: _Entries, name: str) -> int:
    for place, entry in enumerate(entries):
        if entry.name == name:
            return place
    raise KeysFileError([f"there is no key {name!r}"])


def _edit(
    path: Path, change: Callable[[_Entries], _Entries], edit: Callable[[str, _Entries], str]
) -> None:
    """Write the file with ``change`` done to its entries, in TOML by ``edit`` of its text.

    So comments and the order of fields stay. The new text is read before it is written.
    """
    path = path.expanduser().resolve()  # the file itself is replaced, not a link to it
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        before = parse_keys(text, path) if text.strip() else Keys()
        wanted = change(list(before.entries))
        new = _to_json(wanted) if is_json(path) else edit(text, list(before.entries))
        try:
            is_right = list(parse_keys(new, path).entries) == wanted
        except KeysFileError:
            is_right = False
        if not is_right:
            raise KeysFileError([f"{path}: is not written as this program does: edit it by hand"])
        _write(path, new)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The only one that changes the file. The lock's file stays: its removal would be a race."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if not lock_file(descriptor, time.monotonic() + _LOCK_TIMEOUT_S, _LOCK_POLL_S):
            raise KeysFileError([f"{path}: another program changes it"])
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; a crash leaves the old one or the new one."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)  # of a program that was killed: this one has the lock
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _to_json(entries: _Entries) -> str:
    return json.dumps({"keys": [_fields(entry) for entry in entries]}, indent=2) + "\n"


def _fields(entry: KeyEntry) -> dict[str, Any]:
    return entry.model_dump(exclude_defaults=True)


def _with_block(text: str, entry: KeyEntry) -> str:
    """The TOML text with the entry at its end. JSON's texts, numbers and lists are TOML's too."""
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}"
        for name, value in _fields(entry).items()
    ]
    block = "\n".join(["[[keys]]", *lines]) + "\n"
    return f"{text.rstrip()}\n\n{block}" if text.strip() else block


def _block(text: str, place: int) -> tuple[int, int]:
    """The lines of the entry at that place: from its header to the next one's comment."""
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines) if _HEADER.fullmatch(line)]
    if place >= len(headers):
        return 0, 0  # written in another form: the check of the new text refuses it
    end = headers[place + 1] if place + 1 < len(headers) else len(lines)
    while end < len(lines) and lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return headers[place], end
