"""A real API on a loopback port, and a worker whose every event a test decides."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from api.__main__ import listen, uvicorn_config
from jobs.contract.errors import ErrorInfo
from jobs.contract.events import Event, EventKind, Timings, Usage
from jobs.contract.records import DesiredModel, JobRecord, NodeStatus, WorkerState, WorkerStatus
from jobs.contract.requests import GenerationDefaults, LoadRequest, Request, decode_request
from jobs.settings import Settings
from jobs.storage import names
from jobs.storage.connection import SyncRedis, connect
from jobs.storage.desired_models import DesiredModels
from jobs.storage.event_log import EventWriter
from jobs.storage.store import JobStore
from tests.helpers.taking import open_attempt
from tests.helpers.waiting import wait_until

WORKER = "0.gen.scripted"
DEADLINE_S = 20.0


@dataclass
class Taken:
    """A job in the scripted worker's hands, its attempt open."""

    job_id: str
    request: Any
    attempt: int
    seq: int
    cancel_reason: str
    writer: EventWriter
    text: list[str] = field(default_factory=list)

    def _event(self, kind: EventKind, **fields: Any) -> Event:
        self.seq += 1
        return Event(
            job=self.job_id,
            attempt=self.attempt,
            seq=self.seq,
            kind=kind,
            t=time.time(),
            **fields,
        )

    def started(self, prompt_tokens: int = 3) -> None:
        usage = Usage(prompt_tokens=prompt_tokens)
        assert self.writer.append([self._event(EventKind.STARTED, usage=usage)]) == [True]

    def chunk(self, text: str, **fields: Any) -> None:
        event = self._event(EventKind.CHUNK, text=text, token_ids=[7], **fields)
        assert self.writer.append([event]) == [True]

    def progress(self, phase: str, fraction: float, **fields: Any) -> None:
        event = self._event(EventKind.PROGRESS, phase=phase, fraction=fraction, **fields)
        self.writer.append([event])

    def finished(
        self, num_tokens: int | None = None, completion_tokens: int = 2, **fields: Any
    ) -> None:
        timings = Timings(queue_ms=1.5, prefill_ms=2.5, decode_tokens_per_s=100.0)
        numbers = {"usage": Usage(3, completion_tokens, 1), "timings": timings}
        event = self._event(EventKind.FINISHED, num_tokens=num_tokens, **{**numbers, **fields})
        assert self.writer.settle(event)

    def answer(self, *texts: str) -> None:
        """A whole job in one go: started, the texts, stop, finished."""
        self.started()
        for text in texts[:-1]:
            self.chunk(text)
        self.chunk(texts[-1], finish_reason="stop")
        self.finished()

    def failed(self, code: str, message: str, param: str | None = None) -> None:
        event = self._event(EventKind.FAILED, error=ErrorInfo(code, message, param))
        assert self.writer.settle(event)

    def cancelled(self) -> None:
        error = ErrorInfo("job_cancelled", self.cancel_reason or "cancelled")
        self.writer.settle(self._event(EventKind.CANCELLED, error=error))


class Rig:
    """The API under test with its Redis, and what a worker and a supervisor would do there."""

    def __init__(self, settings: Settings, port: int) -> None:
        self.settings = settings
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.app: Any = None
        self.redis: SyncRedis = connect(settings.effective_redis_url)
        self.store = JobStore(self.redis, settings)
        self.desired_models = DesiredModels(self.redis)
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE_S)
        self._threads = ThreadPoolExecutor(8)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.http.close()
        self.redis.close()

    def load(
        self,
        model_id: str = "0",
        model_name: str = "fake",
        defaults: GenerationDefaults | None = None,
    ) -> DesiredModel:
        """Make a model wanted and its worker ready, as after a load."""
        desired = DesiredModel(
            model_id=model_id,
            uid=f"uid-{model_id}",
            load=LoadRequest(model_name, "fake", defaults=defaults or GenerationDefaults()),
            load_job=f"load-{model_id}",
            created_at=time.time(),
            was_ready=True,
        )
        slug = names.slug_of(model_id)
        assert self.desired_models.put(slug, desired)
        self.heartbeat(desired)
        return desired

    def heartbeat(self, desired: DesiredModel, **fields: Any) -> None:
        """A worker's status that lasts for the whole test."""
        status = WorkerStatus(
            **{
                "model_id": desired.model_id,
                "state": WorkerState.READY,
                "pid": 4711,
                "node": "here",
                "names": [WORKER],
                "model_name": desired.load.model_name,
                "model_path": f"models/{desired.load.model_name}",
                "backend": "fake",
                "context_length": 512,
                "cpu_percent": 12.5,
                "memory_bytes": 1000,
                **fields,
            }
        )
        slug = names.slug_of(desired.model_id)
        self.desired_models.heartbeat(slug, status)
        self.redis.persist(names.status_key(slug))

    def supervise(self) -> None:
        """A supervisor that is alive for the whole test."""
        self.desired_models.heartbeat_node(NodeStatus("here", 1, 0, uid="here"))
        self.redis.persist(names.node_key("here"))

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(
            path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    def post_soon(self, path: str, body: Any = None, **headers: str) -> Future[httpx.Response]:
        """The same in a thread: the answer waits for what the worker does."""
        return self._threads.submit(self.post, path, body, **headers)

    def chat_soon(self, **fields: Any) -> Future[httpx.Response]:
        body = {"messages": [{"role": "user", "content": "hi"}], **fields}
        return self.post_soon("/v1/chat/completions", body)

    def take(self, queue: str | None = None) -> Taken:
        """The next job of the queue, opened in the worker's name."""
        name = queue or names.generation_queue("0")
        key = self.store.queue(name).key
        job_id = wait_until(lambda: self.redis.lindex(key, 0), f"a job on {name}").decode()
        slug = names.slug_of(self.record(job_id).model_id)
        attempt = open_attempt(self.redis, names.worker_name(slug, "gen", "scripted"), job_id)
        writer = self.store.writer
        request: Request = decode_request(attempt.request_data)
        return Taken(job_id, request, attempt.attempt, attempt.seq, attempt.cancel_reason, writer)

    def take_control(self) -> Taken:
        return self.take(names.control_queue("0"))

    def record(self, job_id: str) -> JobRecord:
        return self.store.record(job_id)

    def waiting_ids(self) -> list[str]:
        key = self.store.queue(names.generation_queue("0")).key
        return [job_id.decode() for job_id in self.redis.lrange(key, 0, -1)]

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def send_raw(self, path: str, body: Any) -> socket.socket:
        """A POST on a socket of its own, for who wants to close it."""
        client = self.connect()
        client.sendall(raw_post(path, body))
        return client


def raw_post(path: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def read_until(client: socket.socket, mark: bytes) -> bytes:
    """What the server sent, up to ``mark`` at least."""
    data = b""
    while mark not in data:
        part = client.recv(65536)
        assert part, data
        data += part
    return data


def check_error_shape(body: Any) -> None:
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"]


@contextmanager
def running_api(folder: Path, redis_url: str, **changes: Any) -> Iterator[Rig]:
    """An API in a thread, with a models folder that holds one GGUF file and the fake model."""
    models = folder / "models"
    models.mkdir(exist_ok=True)
    (models / "tiny.gguf").write_bytes(b"GGUF")
    values = {
        "REDIS_URL": redis_url,
        "models_dir": models,
        "adapters_dir": folder / "adapters",
        "state_dir": folder / "state",
    }
    settings = Settings(**{**values, "fake_engine": True, "grace_s": 1, **changes})
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(settings))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    rig = Rig(settings, listener.getsockname()[1])
    rig.app = server.config.app
    try:
        wait_until(lambda: server.started, "the API")
        yield rig
    finally:
        server.should_exit = True
        rig.close()
        thread.join(DEADLINE_S)
        listener.close()
        assert not thread.is_alive()
