"""What HTTP, queue and Redis add to the first token: ``python -m bench.overhead``.

One client, a new connection per request, a streamed chat against the fake engine. Per round: the
time from connect to the first content chunk, then the same prompt through the same engine in this
process. The difference of the two is what the server costs. Prints a table; writes JSON and, when
matplotlib is installed, a plot to ``bench/results/``.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench.instance import running_instance
from jobs.requests import Message, Prompt
from jobs.sampling import Sampling
from workers.engines.base import EngineOptions, Sequence, Token
from workers.engines.fake import FakeEngine, open_fake
from workers.preparation import PromptEncoder

RESULTS = Path(__file__).parent / "results"
PROMPT = "Hello, how are you?"


@dataclass(frozen=True, slots=True)
class Round:
    """Milliseconds to the first token, through the server and directly."""

    served_ms: float
    direct_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=30)
    arguments = parser.parse_args()
    engine = open_fake(Path("fake"), EngineOptions(), lambda fraction: None)
    with running_instance() as instance:
        instance.load("fake")
        encoder = PromptEncoder(engine.tokenizer, None)
        count = arguments.warm_up + arguments.rounds
        rounds = [Round(served_ms(instance.port), direct_ms(engine, encoder)) for _ in range(count)]
    report(rounds[arguments.warm_up :])


def served_ms(port: int) -> float:
    """Connect, post, and read up to the first chunk with text."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "temperature": 0,
            "max_tokens": 2,
        }
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall((head + body).encode())
        received = b""
        while b'"delta":{"content":"' not in received:
            data = connection.recv(65536)
            if not data:
                raise RuntimeError(f"no content chunk in {received!r}")
            received += data
        elapsed = time.perf_counter() - start
        while connection.recv(65536):
            pass
    return elapsed * 1000


def direct_ms(engine: FakeEngine, encoder: PromptEncoder) -> float:
    """Template, tokens and steps up to the first token, in this process."""
    start = time.perf_counter()
    prompt = Prompt(messages=[Message(role="user", content=PROMPT)])
    sequence = Sequence(1, encoder.encode(prompt), 2, Sampling(temperature=0.0))
    engine.submit(sequence)
    while not any(isinstance(event, Token) for event in engine.step()):
        pass
    elapsed = time.perf_counter() - start
    engine.abort(1)
    return elapsed * 1000


def report(rounds: list[Round]) -> None:
    columns = {
        "served": [r.served_ms for r in rounds],
        "direct": [r.direct_ms for r in rounds],
        "difference": [r.served_ms - r.direct_ms for r in rounds],
    }
    print(f"connect to first content chunk, fake engine, 1 client, {len(rounds)} rounds (ms)")
    print(f"{'':12}{'p50':>8}{'p90':>8}{'p99':>8}")
    summary = {}
    for name, values in columns.items():
        cuts = statistics.quantiles(values, n=100)
        summary[name] = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98]}
        print(f"{name:12}{cuts[49]:8.2f}{cuts[89]:8.2f}{cuts[98]:8.2f}")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"rounds": len(rounds), "ms": summary}, indent=2)
    (RESULTS / "overhead.json").write_text(text + "\n")
    plot(columns)


def plot(columns: dict[str, list[float]]) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: matplotlib is not installed (make bench installs it)")
        return
    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for name, values in columns.items():
        ordered = sorted(values)
        shares = [(place + 1) / len(ordered) for place in range(len(ordered))]
        axes.step(ordered, shares, label=name)
    axes.set(xlabel="ms", ylabel="share of requests", title="Connect to first content chunk")
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "overhead.png", dpi=120)


if __name__ == "__main__":
    main()
