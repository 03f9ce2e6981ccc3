"""Reads the word and phrase lists of the corpus: text files with `[sections]`."""

from pathlib import Path


def read_sections(file_name: str) -> dict[str, list[str]]:
    """The lines of each section of a file in this folder, without empty lines and # lines."""
    sections: dict[str, list[str]] = {}
    text = Path(__file__).with_name(file_name).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


PHRASES = read_sections("phrases.txt")
WORDS = {name: " ".join(lines).split() for name, lines in read_sections("words.txt").items()}
