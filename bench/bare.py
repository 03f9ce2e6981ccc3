"""The library's own loop without a server: a child process that takes prompts and returns times.

``python -m bench.bare KIND PATH --threads N`` answers one JSON line per JSON line of its input.
The loops are in ``bare_llama_cpp.py`` and ``bare_mlx.py``; each imports one heavy library.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import psutil

from bench.instance import ROOT
from bench.measurement import BenchError
from bench.model_files import EngineKind, ModelFile
from bench.processes import family, python_path, running
from bench.servers import NUM_SLOTS, Setup
from bench.streams import Stream


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Request: generate exactly ``max_tokens`` tokens for each prompt, greedily, in one batch."""

    prompts: list[str]
    max_tokens: int


class CountTokens(msgspec.Struct, frozen=True, tag="count"):
    """Request: count the tokens of a text."""

    text: str


class Generated(msgspec.Struct, frozen=True):
    """Start, end, and the time of each token of each prompt, in seconds."""

    started_at: float
    ended_at: float
    times: list[list[float]]


class Loop(Protocol):
    """A loaded model, used through its library alone."""

    def encode(self, text: str) -> list[int]: ...

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generated:
        """Generate for up to ``NUM_SLOTS`` prompts in one batch."""
        ...


@dataclass(frozen=True, slots=True)
class BareLoop:
    """A client of the running child."""

    process: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        return family(self.process.pid)

    def count_tokens(self, text: str) -> int:
        return msgspec.json.decode(self._call(CountTokens(text)), type=int)

    def generate(self, prompts: list[str], max_tokens: int) -> list[Stream]:
        answer = msgspec.json.decode(self._call(Generate(prompts, max_tokens)), type=Generated)
        return [
            Stream(answer.started_at, answer.ended_at, times=times, num_tokens=len(times))
            for times in answer.times
        ]

    def _call(self, question: Generate | CountTokens) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer is reported below
            self.process.stdin.write(msgspec.json.encode(question) + b"\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("the bare loop has ended without an answer")
        return line


@contextlib.contextmanager
def running_bare_loop(model: ModelFile, setup: Setup) -> Iterator[BareLoop]:
    """A bare loop with the model loaded."""
    command = [sys.executable, "-m", "bench.bare", model.kind, str(model.path)]
    with running(
        [*command, "--threads", str(setup.threads)],
        environment=python_path(ROOT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        loop = BareLoop(process)
        loop.count_tokens("loaded")
        yield loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", type=EngineKind, choices=[EngineKind.GGUF, EngineKind.MLX])
    parser.add_argument("path", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    loop = _open(arguments.kind, arguments.path, arguments.threads)
    decoder = msgspec.json.Decoder(Generate | CountTokens)
    for line in sys.stdin.buffer:
        answer = _answer(loop, decoder.decode(line))
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def _open(kind: EngineKind, path: Path, threads: int) -> Loop:
    if kind is EngineKind.GGUF:
        from bench.bare_llama_cpp import LlamaCppLoop

        return LlamaCppLoop(path, threads)
    from bench.bare_mlx import MlxLoop

    return MlxLoop(path)


def _answer(loop: Loop, question: Generate | CountTokens) -> Generated | int:
    if isinstance(question, CountTokens):
        return len(loop.encode(question.text))
    prompts = [loop.encode(prompt) for prompt in question.prompts]
    assert len(prompts) <= NUM_SLOTS
    return loop.generate(prompts, question.max_tokens)


if __name__ == "__main__":
    main()
