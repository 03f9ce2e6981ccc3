"""Other names for models: ``ALIAS=NAME,ALIAS2=NAME2``, and ``BEGINNING*=NAME`` for many at once.

A client with a fixed name in it is let in so. ``NAME`` is a model name or the model_id of a loaded
model; it may hold a ``=``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aliases:
    """``exact`` by alias, ``prefixes`` by their beginning, longest first, in the order given."""

    exact: Mapping[str, str]
    prefixes: Mapping[str, str]

    def by_prefix(self, model: str) -> str | None:
        """What a name with that beginning stands for."""
        for prefix, target in self.prefixes.items():
            if model.startswith(prefix):
                return target
        return None


NO_ALIASES = Aliases({}, {})


def parse_aliases(text: str) -> Aliases:
    """Read the setting; ``ValueError`` names the entry that is none."""
    exact: dict[str, str] = {}
    prefixes: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        alias, target = _parse_entry(entry)
        known = prefixes if alias.endswith("*") else exact
        name = alias.removesuffix("*")
        if name in known:
            raise ValueError(f"{entry!r}: there is such an alias already")
        known[name] = target
    longest_first = sorted(prefixes.items(), key=lambda item: -len(item[0]))
    return Aliases(exact, dict(longest_first))


def _parse_entry(entry: str) -> tuple[str, str]:
    alias, _, target = (part.strip() for part in entry.partition("="))
    if not alias or not target:
        raise ValueError(f"{entry!r} is not of the form alias=name")
    if "*" in alias[:-1]:
        raise ValueError(f"{entry!r}: an alias may have one * and that at its end")
    return alias, target
