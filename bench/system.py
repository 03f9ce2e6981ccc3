"""Scenarios for this server only: its queue, fake engine, idle processes and workers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from bench.client import Exchange, Post, post_repeatedly
from bench.instance import Instance, running_instance
from bench.measurement import BenchError
from bench.model_files import ModelFile
from bench.processes import cpu_s, resident_mb
from bench.rq_baseline import rq_jobs_per_s
from bench.servers import ANSWER_S, CONTEXT_LENGTH, NUM_SLOTS
from bench.streams import Stream
from jobs.contract.sampling import Sampling
from workers.engines.base import EngineOptions, Sequence, Token
from workers.engines.fake import open_fake

JOBS, STREAMS, IDLE, WORKER_MEMORY = "jobs", "streams", "idle", "worker memory"
FAKE = "fake"

JOBS_PER_S, RQ_JOBS_PER_S = "token-count jobs/s", "RQ empty jobs/s"
COMMANDS_PER_JOB = "Redis commands/job, those in scripts too"
SENT_PER_JOB = "Redis commands/job, a script as one"
COMMANDS_PER_GENERATION = "Redis commands/generation of 16 tokens"
DELIVERED_PER_S, NUM_WRONG = "tokens/s", "streams with a lost or foreign token"
CPU, REDIS_CPU = "CPU %", "Redis CPU %"
BEYOND = "beyond model and KV MB"

_CLIENTS = 16
_NUM_STREAMS = 64
_SETTLE_S = 3.0
_MONITORED_JOBS = 10  # per client
_END_MARK = "end-of-bench"


@dataclass(frozen=True, slots=True)
class SystemScale:
    """Sizes of the scenarios."""

    hop_samples: int = 100
    jobs_per_client: int = 60
    rq_jobs: int = 1000
    stream_tokens: int = 500
    idle_s: float = 20.0


QUICK = SystemScale(hop_samples=20, jobs_per_client=10, rq_jobs=100, stream_tokens=100, idle_s=3.0)


def measure_jobs(instance: Instance, scale: SystemScale) -> dict[str, float]:
    """Small jobs through HTTP, queue and worker; ``fake`` is loaded."""
    num_jobs = _CLIENTS * scale.jobs_per_client
    count = Post(instance.port, "/v1/internal/token-count", {"prompt": "How long am I?"})
    calls, started_at = _redis_calls(instance), time.perf_counter()
    asyncio.run(_from_all_clients(count, scale.jobs_per_client))
    elapsed_s = time.perf_counter() - started_at
    per_count = (_redis_calls(instance) - calls) / num_jobs
    return {
        JOBS_PER_S: num_jobs / elapsed_s,
        RQ_JOBS_PER_S: rq_jobs_per_s(scale.rq_jobs),
        COMMANDS_PER_JOB: per_count,
        SENT_PER_JOB: _sent_per_job(instance, count),
        COMMANDS_PER_GENERATION: _commands_per_generation(instance, scale),
    }


async def _from_all_clients(post: Post, each: int) -> None:
    await asyncio.gather(*(post_repeatedly(post, each) for _ in range(_CLIENTS)))


def _commands_per_generation(instance: Instance, scale: SystemScale) -> float:
    body = {"prompt": "Hello", "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    calls = _redis_calls(instance)
    post = Post(instance.port, "/v1/completions", body)
    asyncio.run(_from_all_clients(post, scale.jobs_per_client))
    return (_redis_calls(instance) - calls) / (_CLIENTS * scale.jobs_per_client)


def _sent_per_job(instance: Instance, post: Post) -> float:
    """Commands sent to Redis per job, counted with MONITOR."""
    with Redis.from_url(instance.redis_url) as redis, redis.monitor() as monitor:
        asyncio.run(_from_all_clients(post, _MONITORED_JOBS))
        redis.echo(_END_MARK)
        num_sent = 0
        while (seen := monitor.next_command())["command"] != f"ECHO {_END_MARK}":
            num_sent += seen["client_type"] != "lua"
    return num_sent / (_CLIENTS * _MONITORED_JOBS)


def _redis_calls(instance: Instance) -> int:
    """Commands that Redis has executed, including those in scripts and of heartbeats."""
    with Redis.from_url(instance.redis_url) as redis:
        stats = redis.info("commandstats")
    return sum(entry["calls"] for entry in stats.values())


def measure_streams(instance: Instance, scale: SystemScale) -> dict[str, float]:
    """64 concurrent streams from ``fake`` with 64 slots; each text must be exactly the engine's."""
    # Prompts of different lengths, so that no two streams have the same numbers.
    prompts = ["p" * (i + 1) for i in range(_NUM_STREAMS)]
    streams = asyncio.run(_streams(instance.port, prompts, scale.stream_tokens))
    elapsed_s = max(s.ended_at for s in streams) - min(s.started_at for s in streams)
    expected = [_engine_text(prompt, scale.stream_tokens) for prompt in prompts]
    pairs = zip(streams, expected, strict=True)
    return {
        DELIVERED_PER_S: sum(stream.num_tokens for stream in streams) / elapsed_s,
        NUM_WRONG: float(sum(stream.text != text for stream, text in pairs)),
    }


async def _streams(port: int, prompts: list[str], max_tokens: int) -> list[Stream]:
    usual = {"max_tokens": max_tokens, "stream": True, "temperature": 0, "ignore_eos": True}
    usage = {"stream_options": {"include_usage": True}}
    bodies = [{"prompt": prompt, **usual, **usage} for prompt in prompts]
    exchanges = [await Exchange.start(Post(port, "/v1/completions", body)) for body in bodies]
    return [await exchange.stream(ANSWER_S) for exchange in exchanges]


def _engine_text(prompt: str, max_tokens: int) -> str:
    """The fake engine's own text."""
    engine = open_fake(Path(FAKE), EngineOptions(), lambda fraction: None)
    sampling = Sampling(temperature=0.0, ignore_eos=True)
    tokens = engine.tokenizer.encode(prompt, add_special=True, parse_special=False)
    engine.submit(Sequence(1, tokens, max_tokens, sampling))
    pieces: list[bytes] = []
    while engine.has_work:
        events = engine.step()
        pieces += [engine.tokenizer.piece(e.token_id) for e in events if isinstance(e, Token)]
    return b"".join(pieces).decode()


def measure_idle(scale: SystemScale) -> dict[str, float]:
    """Idle API, supervisor and two workers, one per backend."""
    with running_instance() as instance:
        instance.load("demo", "0")
        instance.load("demo.gguf", "1")
        if len(instance.workers) != 2:
            raise BenchError(f"2 workers are needed, {len(instance.workers)} run")
        time.sleep(_SETTLE_S)
        own, redis = instance.own_processes, instance.redis_processes
        own_s, redis_s, started_at = cpu_s(own), cpu_s(redis), time.perf_counter()
        time.sleep(scale.idle_s)
        elapsed_s = time.perf_counter() - started_at
        return {
            CPU: (cpu_s(own) - own_s) / elapsed_s * 100,
            REDIS_CPU: (cpu_s(redis) - redis_s) / elapsed_s * 100,
        }


def measure_worker_memory(model: ModelFile) -> dict[str, float]:
    """A worker's resident memory after its first answer, without model file and KV cache."""
    with running_instance(model.path.parent) as instance:
        instance.load(model.path.name, slots=NUM_SLOTS, context_length=CONTEXT_LENGTH)
        body = {"prompt": "Hello", "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        asyncio.run(post_repeatedly(Post(instance.port, "/v1/completions", body), 1))
        resident = resident_mb(instance.workers)
        known_mb = (model.size_bytes + model.kv_bytes) / 1e6
        return {"worker MB": resident, "model and KV MB": known_mb, BEYOND: resident - known_mb}
