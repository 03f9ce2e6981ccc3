"""A server for a check: its own port and state folder, the user's models."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.cli.client import CliError, Json
from api.cli.serve import project_root

_READY_S = 120.0  # the first start on a Mac has programs scanned
_STOP_S = 30.0
_ANSWER_S = 900.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Trial:
    """A running server."""

    url: str
    log: Path
    http: httpx.Client

    def post(self, path: str, body: Json, model_id: str = "0") -> httpx.Response:
        """Any answer, errors too."""
        return self.http.post(path, json=body, headers={"X-Model-Id": model_id})

    def load(self, name: str, model_id: str, **options: Any) -> float:
        """Load a model; seconds that it took. Raises ``CliError``."""
        started = time.monotonic()
        answer = self.post("/v1/internal/model/load", {"llm_model_name": name, **options}, model_id)
        if answer.is_error:
            raise CliError(f"{name} does not load: {error_of(answer)}")
        return time.monotonic() - started

    def unload(self, model_id: str) -> None:
        self.post("/v1/internal/model/unload", {}, model_id)

    def process(self, model_id: str) -> Json:
        """What ``mgs ps`` shows of a model. Raises ``CliError`` if it is not loaded."""
        for found in self.http.get("/management/processes").json()["processes"]:
            if found["model_id"] == model_id:
                return dict(found)
        raise CliError(f"model {model_id} has no process")

    def job(self, job_id: str) -> Json:
        return dict(self.http.get(f"/v1/jobs/{job_id}").json())


@contextlib.contextmanager
def trial(models_dir: Path, **settings: str) -> Iterator[Trial]:
    """Start a server and stop it after the block. Raises ``CliError`` if it does not start."""
    with tempfile.TemporaryDirectory(prefix="mgs-check-") as folder:
        port, log = _free_port(), Path(folder) / "server.log"
        given = {
            "MGS_PORT": str(port),
            "MGS_HOST": "127.0.0.1",
            "MGS_STATE_DIR": str(Path(folder) / "state"),
            "MGS_MODELS_DIR": str(models_dir),
            **settings,
        }
        process = _start(given, log)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=_ANSWER_S, trust_env=False
        )
        try:
            with client:
                _wait_ready(client, process, log)
                yield Trial(str(client.base_url), log, client)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def error_of(answer: httpx.Response) -> str:
    """The server's own words, after its status."""
    try:
        return f"{answer.status_code} {answer.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"


def _start(settings: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    # Only what a check sets: neither .env nor the shell changes what is measured.
    inherited = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251
        if not name.startswith("MGS_") and name != "REDIS_URL"
    }
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-c", "from api.cli.serve import serve; from jobs.settings import "
             "load_settings; raise SystemExit(serve(load_settings()))"],
            cwd=project_root(),
            env=inherited | settings,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health/ready").status_code == 200:
                return
        time.sleep(_POLL_S)
    raise CliError(f"the server does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
