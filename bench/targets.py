"""The targets of a comparison: the library's loop, this server, and its peers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.bare import BareLoop, running_bare_loop
from bench.measurement import BARE, OURS
from bench.model_files import EngineKind, ModelFile
from bench.servers import (
    Server,
    Setup,
    find_llama_server,
    start_llama_cpp_python,
    start_llama_server,
    start_mlx_lm,
    start_ours,
    start_split_llama_server,
)

LLAMA_SERVER, SPLIT_LLAMA_SERVER = "llama-server", "llama-server-split"
LLAMA_CPP_PYTHON, MLX_LM = "llama-cpp-python", "mlx_lm.server"


@dataclass(frozen=True, slots=True)
class Target:
    """One target. ``missing`` returns why it cannot run here, "" when it can.

    Without ``is_concurrent`` it answers requests one after the other. ``has_grammars``: it can
    enforce a JSON schema together with ``ignore_eos``. ``has_short_slots``: the long prompts do not
    fit.
    """

    name: str
    kinds: frozenset[EngineKind]
    missing: Callable[[Setup], str]
    start: Callable[[ModelFile, Setup], AbstractContextManager[Server | BareLoop]]
    is_concurrent: bool = True
    has_grammars: bool = False
    has_short_slots: bool = False


def _nothing_missing(_: Setup) -> str:
    return ""


def _llama_server_missing(setup: Setup) -> str:
    if find_llama_server(setup.llama_server) is not None:
        return ""
    return "no binary: scripts/build_llama_server.sh makes one, or --llama-server PATH"


def _llama_cpp_python_missing(_: Setup) -> str:
    return _modules_missing(
        "llama_cpp", "fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings"
    )


def _mlx_lm_missing(_: Setup) -> str:
    return _modules_missing("mlx_lm")


def _modules_missing(*names: str) -> str:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


_GGUF, _MLX = frozenset({EngineKind.GGUF}), frozenset({EngineKind.MLX})
TARGETS = (
    Target(BARE, _GGUF | _MLX, _nothing_missing, running_bare_loop),
    Target(OURS, _GGUF | _MLX, _nothing_missing, start_ours, has_grammars=True),
    Target(LLAMA_SERVER, _GGUF, _llama_server_missing, start_llama_server, has_grammars=True),
    Target(
        SPLIT_LLAMA_SERVER,
        _GGUF,
        _llama_server_missing,
        start_split_llama_server,
        has_short_slots=True,
    ),
    Target(
        LLAMA_CPP_PYTHON,
        _GGUF,
        _llama_cpp_python_missing,
        start_llama_cpp_python,
        is_concurrent=False,
    ),
    Target(MLX_LM, _MLX, _mlx_lm_missing, start_mlx_lm),
)
