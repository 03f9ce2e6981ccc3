"""Aliases of models: ``ALIAS=NAME,ALIAS2=NAME2``, and ``PREFIX*=NAME`` for all names with a prefix.

They serve clients whose model name is fixed. ``NAME`` is a model name or the model_id of a loaded
model; it may contain a ``=``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aliases:
    """Targets: ``exact`` by alias, ``prefixes`` by prefix, the longest prefix first."""

    exact: Mapping[str, str]
    prefixes: Mapping[str, str]

    def by_prefix(self, model: str) -> str | None:
        """The target of the longest prefix of ``model``, ``None`` without one."""
        for prefix, target in self.prefixes.items():
            if model.startswith(prefix):
                return target
        return None


NO_ALIASES = Aliases({}, {})


def parse_aliases(text: str) -> Aliases:
    """Parse the setting. Raises ``ValueError`` that names the invalid entry."""
    exact: dict[str, str] = {}
    prefixes: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        alias, target = _parse_entry(entry)
        known = prefixes if alias.endswith("*") else exact
        name = alias.removesuffix("*")
        if name in known:
            raise ValueError(f"{entry!r}: this alias is defined twice")
        known[name] = target
    longest_first = sorted(prefixes.items(), key=lambda item: -len(item[0]))
    return Aliases(exact, dict(longest_first))


def _parse_entry(entry: str) -> tuple[str, str]:
    alias, _, target = (part.strip() for part in entry.partition("="))
    if not alias or not target:
        raise ValueError(f"{entry!r} is not of the form alias=name")
    if "*" in alias[:-1]:
        raise ValueError(f"{entry!r}: an alias may have a * only at its end")
    return alias, target
