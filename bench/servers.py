"""This server and its peers, with the same start and requests.

Every server is started for one round and one model, listens on loopback, and gets the same number
of threads and slots. ``bench/README.md`` explains the flags.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.client import Exchange, Post
from bench.instance import ROOT, Instance, running_instance
from bench.measurement import BenchError
from bench.model_files import EngineKind, ModelFile
from bench.processes import family, free_port, running, wait_until_serving
from bench.streams import Stream

NUM_SLOTS = 16
CONTEXT_LENGTH = 8192
LLAMA_SERVER_CELLS = 32768
ANSWER_S = 600.0
_START_S = 300.0
_BUILT_LLAMA_SERVER = ROOT / "build" / "llama-server" / "build" / "bin" / "llama-server"

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """Parameters of all servers of a run."""

    threads: int
    llama_server: Path | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. ``extras``: fields that this server needs in each body."""

    port: int
    extras: Mapping[str, Any]
    find_processes: Callable[[], list[psutil.Process]]
    instance: Instance | None = None
    """Only this server: its parts, to measure the processor time of each."""
    threads: int = 1

    @property
    def processes(self) -> list[psutil.Process]:
        """All its processes, including helpers."""
        return self.find_processes()

    def completion(self, prompt: str, max_tokens: int) -> Post:
        """A streamed greedy completion of exactly ``max_tokens`` tokens."""
        return self._post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens})

    def chat(
        self, messages: list[dict[str, str]], max_tokens: int, extra: Body | None = None
    ) -> Post:
        """The same for a chat, with further fields of the body."""
        body = {"messages": messages, "max_tokens": max_tokens, **(extra or {})}
        return self._post("/v1/chat/completions", body)

    def generate(self, prompts: list[str], max_tokens: int) -> list[Stream]:
        """Send all prompts concurrently, each on its own connection."""
        posts = [self.completion(prompt, max_tokens) for prompt in prompts]
        streams = asyncio.run(_answers(posts))
        for stream in streams:
            if stream.is_at_limit and not stream.has_usage:
                # It has joined tokens to pieces, and does not report their number.
                stream.num_tokens = max_tokens
        return streams

    def _post(self, path: str, body: Body) -> Post:
        usual = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
        return Post(self.port, path, {**usual, **self.extras, **body})


async def _answers(posts: list[Post]) -> list[Stream]:
    exchanges = [await Exchange.start(post) for post in posts]
    return [await exchange.stream(ANSWER_S) for exchange in exchanges]


@contextlib.contextmanager
def start_ours(model: ModelFile, setup: Setup) -> Iterator[Server]:
    options: Body = {"slots": NUM_SLOTS, "context_length": CONTEXT_LENGTH}
    if model.kind is EngineKind.GGUF:
        options["threads"] = setup.threads
    with running_instance(model.path.parent) as instance:
        instance.load(model.path.name, **options)
        yield Server(
            instance.port, {"ignore_eos": True}, lambda: instance.processes, instance, setup.threads
        )


def start_llama_server(model: ModelFile, setup: Setup) -> AbstractContextManager[Server]:
    """With ``--kv-unified``: all slots share the KV cells."""
    return _start_llama_server(model, setup, "--kv-unified")


def start_split_llama_server(model: ModelFile, setup: Setup) -> AbstractContextManager[Server]:
    """With as many KV cells, divided equally among the slots."""
    return _start_llama_server(model, setup, "--no-kv-unified")


def _start_llama_server(
    model: ModelFile, setup: Setup, layout: str
) -> AbstractContextManager[Server]:
    binary = find_llama_server(setup.llama_server)
    assert binary is not None, "started although it is missing"
    threads = str(setup.threads)
    flags = ["--model", str(model.path), "--threads", threads, "--threads-batch", threads]
    flags += ["--parallel", str(NUM_SLOTS), "--ctx-size", str(LLAMA_SERVER_CELLS), layout]
    return _serving([str(binary), *flags], {"ignore_eos": True})


def start_llama_cpp_python(model: ModelFile, setup: Setup) -> AbstractContextManager[Server]:
    flags = ["--model", str(model.path), "--n_ctx", str(CONTEXT_LENGTH), "--n_gpu_layers", "-1"]
    flags += ["--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads)]
    flags += ["--interrupt_requests", "False"]  # else a new request interrupts the running one
    return _serving([sys.executable, "-m", "llama_cpp.server", *flags], {}, health="/v1/models")


def start_mlx_lm(model: ModelFile, setup: Setup) -> AbstractContextManager[Server]:
    flags = ["--model", str(model.path), "--decode-concurrency", str(NUM_SLOTS)]
    flags += ["--log-level", "WARNING"]
    return _serving([sys.executable, "-m", "mlx_lm.server", *flags], {})


@contextlib.contextmanager
def _serving(command: list[str], extras: Body, health: str = "/health") -> Iterator[Server]:
    port = free_port()
    with running([*command, "--host", "127.0.0.1", "--port", str(port)]) as process:
        wait_until_serving(f"http://127.0.0.1:{port}{health}", [process], _START_S)
        yield Server(port, extras, lambda: family(process.pid))


def find_llama_server(given: Path | None) -> Path | None:
    """The given binary, else that of PATH, else that of ``scripts/build_llama_server.sh``."""
    if given is not None:
        if not given.is_file():
            raise BenchError(f"{given}: no such llama-server")
        return given
    on_path = shutil.which("llama-server")
    if on_path is not None:
        return Path(on_path)
    return _BUILT_LLAMA_SERVER if _BUILT_LLAMA_SERVER.is_file() else None
