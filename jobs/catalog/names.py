"""Which entry a name means: exactly one, or an error that says what else there is.

A name is, in this order: the entry's own; the same without case; without ``.gguf``, ``:latest`` and
``org/``; without the quantization. ``name:Q4_K_M`` chooses by the quantization, and
``name@hf`` by the source. The first of these steps that finds something decides.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

from jobs.catalog.entry import ModelEntry, Source
from jobs.catalog.gguf_header import read_gguf_header
from jobs.contract.errors import InvalidRequestError, ModelLoadError, ModelNotFoundError
from jobs.storage.names import check_model_id

_SOURCES = get_args(Source)
_MAX_CANDIDATES = 20
_LOWER = {upper: upper + 32 for upper in range(65, 91)}
_MAX_SHOWN = 120  # characters of a name
_ID_START = 50
_ID_HASH = 12
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_ORG = re.compile(r"\w[\w.-]*/(?=[^/]+$)")


class AmbiguousModelError(ModelNotFoundError):
    """A name may mean several models."""


def model_id_of(name: str) -> str:
    """The model_id of a model that is loaded by its name: the name, if that is a valid one.

    Else its first 50 characters, without control characters, and 12 of its hash.
    """
    try:
        return check_model_id(name)
    except InvalidRequestError:
        start = "".join(filter(str.isprintable, name[:_ID_START]))
        digest = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:_ID_HASH]
        return f"{start}-{digest}"


def without_collisions(entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    """The entries under different names: a name of an earlier source gets ``@source`` behind it."""
    found: dict[str, ModelEntry] = {}
    for entry in entries:
        name = entry.name
        while name in found:
            name = f"{name}@{entry.source}"
        found[name] = entry if name == entry.name else replace(entry, name=name)
    return list(found.values())


def find_all(entries: Sequence[ModelEntry], name: str) -> list[ModelEntry]:
    """The entries that the name means: none, the one, or several between which it is ambiguous.

    An incomplete entry is found by its own name only.
    """
    for entry in entries:
        if entry.name == name:
            return [entry]
    whole = [entry for entry in entries if not entry.problem]
    text, _, source = name.rpartition("@")
    if text and source in _SOURCES:
        return _loosely([entry for entry in whole if entry.source == source], text)
    return _loosely(whole, name)


def near_names(entries: Sequence[ModelEntry], name: str) -> list[str]:
    """The names of complete models that are most like this one, at most 20, the nearest first."""
    names = {_lower(entry.name): entry.name for entry in entries if not entry.problem}
    wanted = _lower(name[:_MAX_SHOWN])
    return [names[near] for near in difflib.get_close_matches(wanted, names, _MAX_CANDIDATES, 0.5)]


def not_found(entries: Sequence[ModelEntry], name: str, param: str) -> ModelNotFoundError:
    """The error for a name that means no entry, with the nearest names."""
    near = near_names(entries, name)
    meant = f"did you mean {_listed(near)}?" if near else "`mgs models` lists what there is"
    return ModelNotFoundError(f"there is no model {name[:_MAX_SHOWN]!r}; {meant}", param)


def ambiguous(found: Sequence[ModelEntry], name: str, param: str) -> AmbiguousModelError:
    """The error for a name that means several entries."""
    names = _listed([entry.name for entry in found[:_MAX_CANDIDATES]])
    more = f" and {len(found) - _MAX_CANDIDATES} more" if len(found) > _MAX_CANDIDATES else ""
    message = f"{name[:_MAX_SHOWN]!r} may be one of several models: {names}{more}"
    return AmbiguousModelError(message, param)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name[:_MAX_SHOWN]) for name in names)


def _loosely(entries: list[ModelEntry], name: str) -> list[ModelEntry]:
    without_case = _lower(name).removesuffix(":latest")
    if found := [entry for entry in entries if _lower(entry.name) == without_case]:
        return found
    wanted = _plain(name)
    for names in (_names, _bases):
        if found := [entry for entry in entries if wanted in names(entry)]:
            return found
    if org := _ORG.match(name):
        local = [entry for entry in entries if "/" not in entry.name]
        return _loosely(local, name[org.end() :])
    return _by_header(entries, wanted)


def _by_header(entries: list[ModelEntry], wanted: str) -> list[ModelEntry]:
    """``name:Q4_K_M`` of a GGUF file whose name does not say what its header does."""
    base, _, quantization = wanted.rpartition(":")
    silent = (e for e in entries if base and e.backend == "llama-cpp" and not e.quantization)
    named = [entry for entry in silent if base in _names(entry) | _bases(entry)]
    return [entry for entry in named if _quantization(entry) == quantization]


def _quantization(entry: ModelEntry) -> str:
    try:
        return _lower(read_gguf_header(entry.path).quantization)
    except ModelLoadError:
        return ""


def _lower(name: str) -> str:
    """ASCII letters only: other letters that look like one (U+212A) must not find a name."""
    return name.translate(_LOWER)


def _plain(name: str) -> str:
    """Without case, ``.gguf`` and ``:latest``; LM Studio writes ``@`` before a quantization."""
    text = _lower(name).removesuffix(":latest").removesuffix(".gguf")
    return text if ":" in text else text.replace("@", ":")


def _own_names(entry: ModelEntry) -> set[str]:
    """The name and that of the file, with and without ``org/``, without the number of a part."""
    own = _plain(entry.name.removesuffix(f"@{entry.source}"))
    texts = {own, own.rpartition("/")[2]}
    if entry.backend == "llama-cpp" and entry.source != "ollama":
        texts.add(_plain(entry.path.name))
    return texts | {_PART.sub("", text) for text in texts}


def _bases(entry: ModelEntry) -> set[str]:
    """The names without the quantization. That of a folder stands for each GGUF file in it."""
    if entry.backend != "llama-cpp":
        return set()
    names = _own_names(entry)
    ending = re.compile(rf"[-_.:]{re.escape(_lower(entry.quantization))}$")
    bases = {ending.sub("", name) for name in names} if entry.quantization else set(names)
    folder, _, last = _plain(entry.name).rpartition("/")
    if last == _plain(entry.path.name):
        bases |= {folder, folder.rpartition("/")[2]}
    return (bases | {base.removesuffix("-gguf") for base in bases}) - {""}


def _names(entry: ModelEntry) -> set[str]:
    """The names that say as much as the entry's own, of a quantized file also ``base:q4_k_m``."""
    names = _own_names(entry)
    if entry.quantization:
        names |= {f"{base}:{_lower(entry.quantization)}" for base in _bases(entry)}
    return names
