"""The tables of docs/architectures.md."""

from __future__ import annotations

from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "architectures.md"


def gguf_memories() -> dict[str, str]:
    """What the document calls the memory of each GGUF architecture."""
    found: dict[str, str] = {}
    section = _DOCUMENT.read_text(encoding="utf-8").partition("\n## GGUF\n")[2]
    table = section.partition("| memory | architectures |\n|---|---|\n")[2].partition("\n\n")[0]
    for line in table.splitlines():
        memory, names = line.strip("| ").split(" | ")
        for name in names.split(", "):
            assert name not in found, f"{name} stands there twice"
            found[name] = memory
    return found
