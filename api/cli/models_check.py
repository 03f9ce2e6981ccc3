"""``mgs models --check``: models.toml, and what on disk is not listed, without a server."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.catalog.catalog import Catalog, read_catalog
from jobs.catalog.models_file import ModelsFileError
from jobs.catalog.names import find_all
from jobs.settings import Settings


def check_models(settings: Settings) -> bool:
    """Print each finding; False if the server would not start with models.toml."""
    try:
        settings.models_file.check()
    except ModelsFileError as error:
        print("\n".join(error.problems))
        return False
    catalog = read_catalog(settings)
    for finding in _findings(catalog):
        print(finding)
    print(f"models.toml: {len(catalog.sections)} tables; {len(catalog.listed())} models are listed")
    return True


def _findings(catalog: Catalog) -> Iterator[str]:
    for entry in catalog.entries:
        if entry.problem:
            yield f"{entry.name} ({entry.source}) is not complete: {entry.problem}"
    for name in catalog.sections:
        found = find_all(catalog.entries, name)
        if len(found) != 1:
            meant = f"{len(found)} models" if found else "no model here"
            yield f'models.toml: ["{name}"] means {meant}'
    for alias in catalog.aliases.exact:
        if any(entry.name == alias for entry in catalog.entries):
            yield f"alias {alias!r} has no effect: it is the name of a model"
