"""Called by scripts/llama_cpp_server_tests.sh."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from scripts.llama_cpp_tests.document import outdated, page, unexplained
from scripts.llama_cpp_tests.run import Outcome, run_file
from tests.helpers.server import Server, make_server

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs" / "llama-cpp-tests.md"
_OTHERS = _ROOT / "scripts" / "llama_cpp_tests" / "others.md"
_MODELS = ("demo.gguf", "demo")
_SMALL: dict[str, Any] = {"context_length": 256, "slots": 2}
_FILES: dict[str, dict[str, Any]] = {
    "test_chat_completion": _SMALL,
    "test_completion": _SMALL,
    "test_tokenize": {},
    "test_embedding": {},
    "test_tool_call": {},
    "test_compat_anthropic": {},
    "test_compat_oai_responses": {},
    "test_rerank": {},
    "test_infill": {},
    "test_ignore_eos": {},
}


def main() -> int:
    """Run the tests, merge the results with those of other files, and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("python", type=Path)
    parser.add_argument("tests", type=Path)
    parser.add_argument("--only", action="append", choices=_FILES)
    arguments = parser.parse_args()
    files = arguments.only or list(_FILES)
    kept = arguments.python.parents[1] / "outcomes.json"
    known = [one for one in _read(kept) if one.file not in files]
    known += _run_all(arguments.python, arguments.tests, files)
    kept.write_bytes(msgspec.json.encode(known))
    outcomes = {model: [one for one in known if one.model == model] for model in _MODELS}
    if {one.file for one in known} == set(_FILES):
        others = _OTHERS.read_text(encoding="utf-8").strip()
        _PAGE.write_text(page(_version(), outcomes, others, list(_FILES)), encoding="utf-8")
    return _report(known)


def _read(kept: Path) -> list[Outcome]:
    return msgspec.json.decode(kept.read_bytes(), type=list[Outcome]) if kept.is_file() else []


def _run_all(python: Path, tests: Path, files: list[str]) -> list[Outcome]:
    server = make_server()
    server.start_all()
    try:
        return [
            outcome
            for model in _MODELS
            for file in files
            for outcome in _run_one(server, model, python, tests, file)
        ]
    finally:
        server.stop()


def _run_one(server: Server, model: str, python: Path, tests: Path, file: str) -> list[Outcome]:
    server.load(model, temperature=0, **_FILES[file])
    found = run_file(python, tests, model, file, server.port)
    server.unload()
    print(f"{model} {file}: {sum(one.has_passed for one in found)} of {len(found)}", flush=True)
    return found


def _report(known: list[Outcome]) -> int:
    strange, settled = unexplained(known), outdated(known)
    for one in strange:
        print(f"no reason for {one.file}::{one.case}: {one.reason}")
    for name in settled:
        print(f"has a reason, but passes: {name}")
    return 1 if strange or settled else 0


def _version() -> str:
    text = (_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'"llama-cpp-python==([^"]+)"', text)
    return found[1] if found else "?"


if __name__ == "__main__":
    sys.exit(main())
