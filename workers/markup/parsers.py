"""Parsers of tool calls, for both engines: those of mlx_lm, and a few of our own.

mlx_lm's parsers turn text into dicts and do not need MLX. But ``import mlx_lm.tool_parsers`` would
load mlx and transformers, so their folder is imported under another package name.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from workers.markup.own_parsers import read_deepseek, read_harmony, read_llama

_PACKAGE = "mgs_tool_parsers"
_UNREADABLE = "unknown"  # one of the parsers returns this name for an invalid call

Tools = Sequence[dict[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A parsed call: ``arguments`` is JSON text, ``id`` is set if the model wrote one."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Parser:
    """The parser of one call format; ``end`` is "" if a call lasts to the end of the text."""

    name: str
    start: str
    end: str
    read: Callable[[str, Tools | None], Any]

    def parse(self, text: str, tools: Tools | None) -> list[ParsedCall] | None:
        """The calls in the text between ``start`` and ``end``; ``None`` if it is not a call."""
        try:
            found = self.read(text, tools)
            calls = [_to_call(one) for one in (found if isinstance(found, list) else [found])]
        # A parser may raise anything for an invalid call, which is then content.
        except Exception as error:
            log.debug("invalid tool call", extra={"parser": self.name, "error": repr(error)})
            return None
        return calls or None


_OWN = {
    "llama_json": Parser("llama_json", "<|python_tag|>", "", read_llama),
    "harmony": Parser("harmony", " to=functions.", "<|call|>", read_harmony),
    "deepseek": Parser("deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", read_deepseek),
}


def load_parser(name: str) -> Parser:
    """The parser with this name, our own or from ``mlx_lm/tool_parsers``."""
    if name in _OWN:
        return _OWN[name]
    module = importlib.import_module(f"{_package().__name__}.{name}")
    return Parser(name, module.tool_call_start, module.tool_call_end, module.parse_tool_call)


def _package() -> ModuleType:
    if _PACKAGE in sys.modules:
        return sys.modules[_PACKAGE]
    mlx_lm = importlib.util.find_spec("mlx_lm")
    if mlx_lm is None or not mlx_lm.submodule_search_locations:
        raise ImportError("mlx_lm is not installed")
    folder = Path(mlx_lm.submodule_search_locations[0]) / "tool_parsers"
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)
    return package


def _to_call(found: Any) -> ParsedCall:
    """Raises for an invalid call, which the caller treats as content."""
    name, arguments = found["name"], found.get("arguments", {})
    if isinstance(arguments, str):  # some models write the object as a string
        arguments = json.loads(arguments)
    if not isinstance(name, str) or not name or name == _UNREADABLE:
        raise ValueError("the call has no name")
    if not isinstance(arguments, dict):
        raise ValueError("the arguments are not an object")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    own_id = found.get("id")
    call = ParsedCall(name, text, own_id if isinstance(own_id, str) and own_id else None)
    f"{call.name}{call.arguments}{call.id}".encode()  # raises for half a surrogate pair
    return call
