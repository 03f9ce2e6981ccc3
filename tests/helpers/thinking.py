"""A model that writes reasoning before its answer."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.server import ROOT


def add_thinking_model(folder: Path) -> None:
    """The demo model with a template that opens the reasoning, as those of reasoning models do."""
    folder.mkdir(exist_ok=True)
    for file in (ROOT / "models" / "demo").iterdir():
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).symlink_to(file)
    source = folder / "tokenizer_config.json"
    config = json.loads(source.read_text())
    opening = "{%- if enable_thinking is not false %}{{- '<think>\\n' }}{%- endif %}{# </think> #}"
    source.unlink()
    template = config["chat_template"]
    source.write_text(json.dumps({**config, "chat_template": template + opening}))
