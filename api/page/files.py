"""The files of the page, read once: an index, and assets under a path with the hash of all files.

The path changes with any file, so that browsers may keep assets for ever and never mix versions.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_INDEX = "index.html"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
_FIRST_MODULE = "js/main.js"
_STATIC_IMPORT = re.compile(r"^(?:import|export)\b[^\"']*?from \"([^\"]+)\";", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file; ``etag`` is quoted, as the header has it."""

    body: bytes
    packed: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class PageFiles:
    """The index with the assets' path in it, and the assets by their path below that one."""

    build: str
    index: PageFile
    assets: dict[str, PageFile]


@cache
def read_page() -> PageFiles:
    """Read, hash and compress all files; about 30 ms, at the first request."""
    found = {path.relative_to(_FOLDER).as_posix(): path.read_bytes() for path in _files()}
    template = found.pop(_INDEX).decode()
    digest = hashlib.sha256(template.encode())
    for name, body in found.items():
        digest.update(name.encode() + b"\0" + body)
    build = digest.hexdigest()[:16]
    prefix = f"/ui/-/{build}"
    preloads = "\n".join(
        f'    <link rel="modulepreload" href="{prefix}/{name}">' for name in _first_modules(found)
    )
    index = template.replace("{preloads}", preloads.strip()).replace("{prefix}", prefix)
    assets = {name: _page_file(name, body) for name, body in found.items()}
    return PageFiles(build, _page_file(_INDEX, index.encode()), assets)


def _files() -> list[Path]:
    return sorted(path for path in _FOLDER.rglob("*") if path.suffix in _MEDIA_TYPES)


def _page_file(name: str, body: bytes) -> PageFile:
    packed = gzip.compress(body, mtime=0)
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return PageFile(body, packed, _MEDIA_TYPES[Path(name).suffix], etag)


def _first_modules(files: dict[str, bytes]) -> list[str]:
    """The modules that the first one imports, directly or not; not those loaded on demand."""
    found = [_FIRST_MODULE]
    for name in found:  # grows meanwhile
        found += [target for target in _imports(name, files[name]) if target not in found]
    return found


def _imports(name: str, body: bytes) -> Iterator[str]:
    for target in _STATIC_IMPORT.findall(body.decode()):
        parts = [*Path(name).parent.parts]
        for part in target.split("/"):
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        yield "/".join(parts)
