"""Dumps the Redis data of an older version that was killed under load, for the tests.

  python scripts/make_upgrade_dump.py path/to/old/checkout tests/data/redis_50ffc2d.aof.gz

Starts Redis, API and supervisor of that checkout with the fake engine, loads models, ends some
jobs, starts and queues others, kills all processes and writes Redis' data as the commands of an
append-only file. ``tests/helpers/upgrade_dump.py`` reads it.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if __package__ in (None, ""):  # run as a file: makes the package `jobs` importable
    sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
import psutil  # noqa: E402
from redis import Redis  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402

from jobs.embedded_redis.binary import find_redis_binary  # noqa: E402

HASHED_ID = "my model/x"
PROMPT = "k" * 8
_DEADLINE_S = 30.0
_ENDED = ("finished", "failed", "cancelled")


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + _DEADLINE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit(f"not within {_DEADLINE_S:g} s: {what}")
        time.sleep(0.02)
    return found


class OldProduct:
    """Processes of the old checkout on one Redis."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._checkout = checkout
        self._folder = folder
        self._port = _free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        url = f"unix://{folder / 'redis.sock'}?db=0"
        self.redis = Redis.from_url(url, protocol=2)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
        self._env = {
            **kept,
            "REDIS_URL": url,
            "MGS_PORT": str(self._port),
            "MGS_STATE_DIR": str(folder / "state"),
            "MGS_MODELS_DIR": str(folder / "models"),
            "MGS_FAKE_ENGINE": "1",
            "PYTHONPATH": str(checkout),
        }

    def start(self) -> None:
        """Start the processes; return when the API is ready."""
        self._check_origin()
        (self._folder / "models").mkdir()
        _start_redis(self._folder, self.redis)
        for module in ("api", "workers.supervisor"):
            self._processes.append(self._spawn("-m", module))
        wait_for(self._is_ready, "the old server is ready")

    def _check_origin(self) -> None:
        """Fail if the modules are those of another installed checkout."""
        code = "import api, jobs, workers; print(api.__file__, jobs.__file__, workers.__file__)"
        command = [sys.executable, "-c", code]
        said = subprocess.check_output(command, cwd=self._checkout, env=self._env, text=True)
        if any(self._checkout not in Path(file).parents for file in said.split()):
            sys.exit(f"not the code of {self._checkout}: {said}")

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "product.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self._checkout,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.call("GET", "/health/ready").status_code == 200
        return False

    def call(self, method: str, path: str, body: Any = None, model_id: str = "0") -> httpx.Response:
        url = f"http://127.0.0.1:{self._port}{path}"
        headers = {"X-Model-Id": model_id}
        return httpx.request(method, url, json=body, headers=headers, timeout=60)

    def post(self, path: str, body: Any = None, model_id: str = "0") -> dict[str, Any]:
        answer = self.call("POST", path, body, model_id)
        if answer.status_code >= 300:
            sys.exit(f"{path}: {answer.text}")
        return dict(answer.json())

    def post_and_wait(self, path: str, body: Any, model_id: str = "0") -> None:
        """Send a request in a thread that waits for its answer without end."""

        def wait() -> None:
            with contextlib.suppress(httpx.TransportError):
                self.call("POST", path, body, model_id)

        threading.Thread(target=wait, daemon=True).start()

    def complete(self, num_tokens: int, model_id: str = "0", **fields: Any) -> str:
        """Submit a background completion; returns its job's id."""
        body = {"prompt": PROMPT, "max_tokens": num_tokens, "temperature": 0, "background": True}
        answer = self.call("POST", "/v1/completions", {**body, **fields}, model_id)
        return str(answer.json()["id"])

    def wait_ended(self, job_id: str) -> None:
        def is_ended() -> bool:
            return self.call("GET", f"/v1/jobs/{job_id}").json()["status"] in _ENDED

        wait_for(is_ended, f"job {job_id} ends")

    def wait_running(self, job_id: str, num_events: int = 20) -> None:
        log = f"mgs:log:{job_id}"
        wait_for(lambda: self.redis.xlen(log) >= num_events, f"job {job_id} runs")

    def wait_length(self, key: str, length: int = 1) -> None:
        wait_for(lambda: self.redis.llen(key) == length, f"{length} in {key}")

    def pause_supervisor(self) -> None:
        os.kill(self._processes[1].pid, signal.SIGSTOP)

    def pause_worker(self, model_id: str) -> None:
        listed = self.call("GET", "/management/processes").json()["processes"]
        pids = {one["model_id"]: one["process_id"] for one in listed}
        os.kill(pids[model_id], signal.SIGSTOP)

    def kill(self) -> None:
        """Kill all processes but Redis, as in a power failure."""
        parents = [psutil.Process(process.pid) for process in self._processes]
        family = parents + [child for one in parents for child in one.children(recursive=True)]
        for signum in (
            signal.SIGSTOP,
            signal.SIGKILL,
        ):  # stopped first, so that none reacts to another's death
            for process in family:
                process.send_signal(signum)
        for popen in self._processes:
            popen.wait()
        psutil.wait_procs(family, timeout=10)


def end_some_jobs(old: OldProduct) -> None:
    """Create stored responses, and jobs with each kind of end."""
    body = {"input": "one", "max_output_tokens": 16, "temperature": 0}
    first = old.post("/v1/responses", body, "1")
    old.post("/v1/responses", {**body, "input": "two", "previous_response_id": first["id"]}, "1")
    old.wait_ended(old.complete(16, "1"))
    old.wait_ended(old.complete(16, "1", logit_bias={"500": 1}))  # no such token: it fails
    cancelled = old.complete(400, HASHED_ID)
    old.wait_running(cancelled, 5)
    old.call("DELETE", f"/v1/jobs/{cancelled}")
    old.wait_ended(cancelled)
    old.post("/v1/internal/model/load", {"llm_model_name": "fake"}, "gone")
    old.wait_ended(old.complete(16, "gone"))
    old.post("/v1/internal/model/unload", None, "gone")


def start_some_jobs(old: OldProduct) -> None:
    """Create running jobs, jobs that wait for a slot, and a response in progress."""
    running = [old.complete(400), old.complete(300), old.complete(200, HASHED_ID)]
    body = {"input": "three", "max_output_tokens": 200, "temperature": 0, "background": True}
    running.append(old.post("/v1/responses", body, HASHED_ID)["id"])
    for job_id in running:
        old.wait_running(job_id)
    for number in range(3):
        old.complete(16 + number)
    body = {"prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    old.post_and_wait("/v1/completions", body)
    old.complete(20, HASHED_ID)
    old.wait_length("rq:queue:gen-0", 4)


def leave_control_jobs(old: OldProduct) -> None:
    """Create a load that has not begun, a job that is being taken, and a queued one."""
    old.pause_supervisor()
    old.post_and_wait("/v1/internal/model/load", {"llm_model_name": "fake"}, "2")
    old.wait_length("rq:queue:ctl-2")
    old.pause_worker("0")
    old.post_and_wait("/v1/embeddings", {"input": ["some text", "more text"]})
    old.wait_length("rq:queue:ctl-0:intermediate")
    old.post_and_wait("/v1/internal/token-count", {"prompt": "five!"})
    old.wait_length("rq:queue:ctl-0")


def main() -> int:
    """Write the file; exit status 1 when a step failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the old version")
    parser.add_argument("out", type=Path, help="file to write, .aof.gz")
    arguments = parser.parse_args()
    with _folder() as folder:
        old = OldProduct(arguments.checkout.resolve(), folder)
        try:
            old.start()
            old.post("/v1/internal/model/load", {"llm_model_name": "fake-20ms", "slots": 2})
            old.post("/v1/internal/model/load", {"llm_model_name": "fake"}, "1")
            body = {"llm_model_name": "fake-20ms", "slots": 2}
            old.post("/v1/internal/model/load", body, HASHED_ID)
            end_some_jobs(old)
            start_some_jobs(old)
            leave_control_jobs(old)
        finally:
            old.kill()
        data = _append_only_file(folder, old.redis)
    arguments.out.write_bytes(gzip.compress(data, mtime=0))
    return 0


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder with a short path, for sockets; its Redis is ended at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="mgs-old-", dir="/tmp"))
    try:
        yield folder
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder / "redis.pid").read_text()), signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _start_redis(folder: Path, client: Redis) -> None:
    flags = f"--port 0 --unixsocket {folder / 'redis.sock'} --dir {folder} --daemonize yes"
    flags += f" --pidfile {folder / 'redis.pid'} --logfile {folder / 'redis.log'}"
    # Only commands, with their times, without an RDB preamble.
    flags += " --appendonly yes --aof-use-rdb-preamble no --aof-timestamp-enabled yes"
    command = [str(find_redis_binary().path), *flags.split(), "--save", ""]
    subprocess.run(command, check=True)

    def is_up() -> bool:
        with contextlib.suppress(RedisError):
            return bool(client.ping())
        return False

    wait_for(is_up, "Redis answers")


def _append_only_file(folder: Path, client: Redis) -> bytes:
    """The rewritten append-only file: about one command per key."""
    client.bgrewriteaof()
    wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the rewrite")
    parts = (folder / "appendonlydir").glob("*.base.aof")
    return max(parts, key=lambda path: path.stat().st_mtime).read_bytes()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
