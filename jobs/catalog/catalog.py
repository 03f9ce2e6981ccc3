"""The models of all sources and the LoRA adapters on disk. Each call reads the folders again.

A folder with a ``config.json`` is an MLX model, a ``*.gguf`` file a GGUF model; a split GGUF
(``-00001-of-0000N``) is one model, named by its first part. An MLX adapter is a folder with
``adapter_config.json`` and ``adapters.safetensors``, a GGUF adapter a ``*.gguf`` file. A name is
looked up among the entries and never joined to a path, so it cannot lead outside.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from jobs.catalog.entry import AdapterEntry, ModelEntry, Source
from jobs.catalog.model_aliases import NO_ALIASES, Aliases
from jobs.catalog.models_file import ModelOptions
from jobs.catalog.names import ambiguous, find_all, model_id_of, not_found, without_collisions
from jobs.catalog.sources.folders import lm_studio, models_folder
from jobs.catalog.sources.hugging_face import hugging_face
from jobs.catalog.sources.ollama import ollama
from jobs.contract.errors import AdapterNotFoundError, InvalidRequestError
from jobs.settings import Settings

__all__ = [
    "AdapterEntry", "Catalog", "ModelEntry", "find_adapter", "find_draft", "find_model",
    "list_adapters", "list_models", "model_options", "read_catalog",
]  # fmt: skip

_FAKE_NAME = re.compile(r"fake(-gpu)?(-\d{1,4}ms)?")
_READERS: Mapping[Source, Callable[[Settings], Iterator[ModelEntry]]] = {
    "models": lambda settings: models_folder(settings.models_dir),
    "hf": lambda settings: hugging_face(settings.hf_cache),
    "lmstudio": lambda settings: lm_studio(settings.lmstudio_dir.expanduser()),
    "ollama": lambda settings: ollama(settings.ollama_store),
}

log = logging.getLogger(__name__)
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Catalog:
    """All models at one moment, incomplete ones too, sorted by name.

    ``sections``: what models.toml says, by the name that it uses. ``aliases``: those of the
    settings and of models.toml. There is only what ``accept`` is true of, by its name.
    """

    entries: list[ModelEntry]
    sections: Mapping[str, ModelOptions]
    aliases: Aliases
    has_fakes: bool = False
    accept: Callable[[str], bool] = lambda name: True

    def only(self, accept: Callable[[str], bool]) -> Catalog:
        """The catalog as it is without the models whose names are not accepted."""
        entries = [entry for entry in self.entries if accept(entry.name)]
        return replace(self, entries=entries, accept=accept)

    def listed(self) -> list[ModelEntry]:
        """The complete models, with their aliases, without those that are ``unlisted``."""
        return [
            self._with_aliases(entry)
            for entry in self.entries
            if not entry.problem and not self.options_of(entry).unlisted
        ]

    def named(self, name: str) -> ModelEntry | None:
        """The model of exactly that name, ``None`` without one."""
        if self.has_fakes and _FAKE_NAME.fullmatch(name) and self.accept(name):
            return ModelEntry(name, Path(name), "fake", 0)
        entry = self._by_name.get(name)
        return entry and self._with_aliases(entry)

    def of_model_id(self, model_id: str) -> ModelEntry | None:
        """The model that gets this model_id when a request loads it, ``None`` without one."""
        names = (entry.name for entry in self.entries if model_id_of(entry.name) == model_id)
        return self.named(next(names, model_id))

    def find(self, name: str, param: str) -> ModelEntry:
        """The model that a name or an alias means; ``ModelNotFoundError``."""
        if named := self.named(name):
            return named
        found = self._meant(name)
        if len(found) == 1:
            return self._with_aliases(found[0])
        raise ambiguous(found, name, param) if found else not_found(self.listed(), name, param)

    def options_of(self, entry: ModelEntry) -> ModelOptions:
        """What models.toml says about a model."""
        return self._options_by_name.get(entry.name, _NO_OPTIONS)

    def _meant(self, name: str) -> list[ModelEntry]:
        alias = self.aliases.exact.get(name)
        found = find_all(self.entries, alias) if alias else find_all(self.entries, name)
        prefixed = None if alias or found else self.aliases.by_prefix(name)
        return find_all(self.entries, prefixed) if prefixed else found

    def _with_aliases(self, entry: ModelEntry) -> ModelEntry:
        aliases = self._aliases_by_name.get(entry.name)
        return replace(entry, aliases=tuple(aliases)) if aliases else entry

    @cached_property
    def _by_name(self) -> dict[str, ModelEntry]:
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def _options_by_name(self) -> dict[str, ModelOptions]:
        found = ((find_all(self.entries, name), options) for name, options in self.sections.items())
        return {meant[0].name: options for meant, options in found if len(meant) == 1}

    @cached_property
    def _aliases_by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = defaultdict(list)
        for alias, target in self.aliases.exact.items():
            for entry in find_all(self.entries, target):
                names[entry.name].append(alias)
        return names


_NO_OPTIONS = ModelOptions()
NO_MODELS = Catalog([], {}, NO_ALIASES)


def read_catalog(settings: Settings) -> Catalog:
    """Read all sources and models.toml."""
    entries = without_collisions(_read_sources(settings))
    if settings.fake_engine:
        entries.append(ModelEntry("fake", Path("fake"), "fake", 0))
    sections = settings.models_file.read()
    return Catalog(
        sorted(entries, key=lambda entry: entry.name),
        sections,
        settings.aliases,
        settings.fake_engine,
    )


def _read_sources(settings: Settings) -> Iterator[ModelEntry]:
    for source in settings.sources:
        try:
            yield from _READERS[source](settings)
        except OSError as error:
            log.warning("source cannot be read", extra={"source": source, "error": str(error)})


def list_models(settings: Settings) -> list[ModelEntry]:
    """The models to show, sorted by name."""
    return read_catalog(settings).listed()


def find_model(settings: Settings, name: str, param: str = "llm_model_name") -> ModelEntry:
    """The model of that name or alias. Raises ``ModelNotFoundError`` with ``param``.

    An incomplete one is found by its own name, so that its load says what is missing.
    """
    return read_catalog(settings).find(name, param)


def model_options(settings: Settings, entry: ModelEntry) -> ModelOptions:
    """What models.toml says about a model: see ``ModelOptions``."""
    return read_catalog(settings).options_of(entry)


def find_draft(settings: Settings, name: str, backend: str) -> ModelEntry:
    """The draft model of that name. It needs the same ``backend`` as the model it drafts for.

    Raises ``ModelNotFoundError`` or ``InvalidRequestError``.
    """
    entry = find_model(settings, name, "draft_model")
    if entry.backend != backend:
        message = f"draft_model: {entry.name!r} is a model for {entry.backend}, not for {backend}"
        raise InvalidRequestError(message, "draft_model")
    return entry


def list_adapters(folder: Path | None) -> list[AdapterEntry]:
    """All LoRA adapters of the folder, sorted by name."""
    found = [] if folder is None else _read_each(folder, _adapter)
    return sorted(found, key=lambda entry: entry.name)


def find_adapter(folder: Path | None, name: str, backend: str) -> AdapterEntry:
    """The adapter of that name for models of ``backend``. A GGUF name may lack its suffix.

    Raises ``AdapterNotFoundError`` when there is none. The fake engine takes both kinds.
    """
    for entry in list_adapters(folder):
        is_meant = name == entry.name or (entry.is_file and name == Path(entry.name).stem)
        if is_meant and backend in (entry.backend, "fake"):
            return entry
    message = f"there is no adapter {name[:120]!r} for {backend} in the adapters folder"
    raise AdapterNotFoundError(message, "adapter_name")


def _read_each(folder: Path, read: Callable[[Path], _Found | None]) -> list[_Found]:
    """The non-empty results of ``read`` for the folder's entries.

    Entries that cannot be read are skipped. So are names that are not UTF-8: JSON cannot hold them.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            path.name.encode()
            entry = read(path)
        except (OSError, UnicodeEncodeError) as error:
            log.debug("entry cannot be read", extra={"path": repr(path), "error": str(error)})
            continue
        if entry is not None:
            found.append(entry)
    return found


def _size(files: Iterable[Path]) -> int:
    """Total size in bytes of the files that exist. A link may be dangling."""
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


def _adapter(path: Path) -> AdapterEntry | None:
    if path.name.startswith("."):
        return None
    weights = path / "adapters.safetensors"
    if (path / "adapter_config.json").is_file() and weights.is_file():
        return AdapterEntry(path.name, path, "mlx", _size([weights]))
    if path.suffix.lower() == ".gguf" and path.is_file():
        return AdapterEntry(path.name, path, "llama-cpp", _size([path]))
    return None
