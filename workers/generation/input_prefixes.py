"""The texts that an embedding model wants before a query or a document.

A folder names them in sentence-transformers' ``config_sentence_transformers.json``: ``prompts`` by
name, and ``default_prompt_name`` for texts that say nothing. GGUF has no field for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.contract.errors import InvalidRequestError, ModelLoadError
from jobs.contract.requests import EmbedRequest, Prompt

_FILE = "config_sentence_transformers.json"
# The names that ``SentenceTransformer.encode_query`` and ``encode_document`` look for, in order.
_NAMES_OF: Mapping[str, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
_MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class InputPrefixes:
    """``by_name``, and the name of the prefix for texts without one."""

    by_name: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None

    def add(self, request: EmbedRequest, index: int) -> Prompt:
        """The input with the prefix that the request asks for.

        Raises ``InvalidRequestError`` for an unknown name, and for token ids with a prefix that was
        asked for.
        """
        prompt = request.inputs[index]
        prefix = self._of(request, index)
        if not prefix:
            return prompt
        if prompt.text is None:
            param = "input_type" if request.prompt_name is None else "prompt_name"
            if not (request.prompt_name or request.input_type):
                return prompt
            raise InvalidRequestError(f"{param}: needs texts, not token ids", param)
        return Prompt(text=prefix + prompt.text)

    def _of(self, request: EmbedRequest, index: int) -> str:
        if (name := request.prompt_name) is not None:
            if name not in self.by_name:
                raise InvalidRequestError(self._unknown(name), "prompt_name")
            return self.by_name[name]
        wanted = request.input_type
        if request.rerank is not None:
            wanted = "query" if index == 0 else "document"
        if wanted is None:
            return self.by_name[self.default] if self.default is not None else ""
        return next((self.by_name[one] for one in _NAMES_OF[wanted] if one in self.by_name), "")

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self.by_name)[:_MAX_LISTED]) or "none"
        return f"prompt_name: {name[:64]!r} is unknown; this model has: {known}"


def read_input_prefixes(model: Path) -> InputPrefixes:
    """The prefixes of a model; none if its folder names none.

    Raises ``ModelLoadError`` for a file that cannot be read.
    """
    file = model / _FILE
    if not file.is_file():
        return InputPrefixes()
    try:
        return _parsed(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{_FILE} of {model.name}: {error}") from error


def _parsed(config: Any) -> InputPrefixes:
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(one, str) for one in prompts.values()):
        raise ValueError("prompts must be texts by name")
    if default is not None and default not in prompts:
        raise ValueError(f"default_prompt_name {default!r} is none of its prompts")
    return InputPrefixes(prompts, default)
