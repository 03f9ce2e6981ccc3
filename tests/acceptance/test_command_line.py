"""``mgs`` as a user types it, from any folder: serve, load, look, stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.batches import chat_line, jsonl

_ROOT = Path(__file__).resolve().parents[2]
_READY_S = 30.0


class Served:
    """A server started by ``mgs serve`` from a folder that is not the project's."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
        self._env = kept | {
            "MGS_PORT": str(self.port),
            "MGS_STATE_DIR": str(folder / "state"),
            "MGS_FAKE_ENGINE": "1",
            "PYTHONPATH": str(_ROOT),
        }
        self.folder = folder
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command("serve"),
                cwd=folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def mgs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another ``mgs`` beside it."""
        return subprocess.run(
            self._command(*arguments),
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        pytest.fail(f"not ready in time:\n{self.log.read_text()}")

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "api.cli.main", *arguments]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("served"))
    one.wait_until_ready()
    yield one
    one.process.terminate()
    one.process.wait(20)


def test_a_model_is_loaded_seen_and_unloaded(served: Served) -> None:
    loaded = served.mgs("load", "fake", "--id", "7")
    assert "fake is loaded as model 7" in loaded.stdout, loaded.stderr
    assert "fake" in served.mgs("ps").stdout
    assert served.mgs("models").stdout.count("fake") == 1
    assert "load" in served.mgs("jobs", "--id", "7").stdout
    assert "model 7 is unloaded" in served.mgs("unload", "--id", "7").stdout
    assert "no model is loaded" in served.mgs("ps").stdout


def test_queues_are_held_shown_and_resumed(served: Served) -> None:
    assert served.mgs("load", "fake").returncode == 0
    held = served.mgs("hold", "fake", "--class", "interactive")
    assert held.returncode == 0, held.stderr
    assert [line.split()[2:4] for line in held.stdout.splitlines()[1:]] == [
        ["interactive", "hold"],
        ["batch", "open"],
    ]
    body = {"messages": [{"role": "user", "content": "hi"}], "background": True, "priority": 4}
    url = f"http://127.0.0.1:{served.port}/v1/chat/completions"
    job_id = httpx.post(url, json=body).json()["id"]
    shown = served.mgs("jobs", "--queue").stdout.splitlines()
    assert shown[-1].split()[:4] == ["0", "interactive", "1", "4"]
    assert shown[-1].split()[-1] == job_id
    assert "hold" in served.mgs("drain", "0", "--class", "batch").stdout
    refused = served.mgs("hold", "nobody")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert served.mgs("hold", "0", "--class", "odd").returncode == 1
    assert served.mgs("resume", "0").stdout.count("open") == 2
    assert served.mgs("unload").returncode == 0


def test_a_wrong_model_is_one_line(served: Served) -> None:
    failed = served.mgs("load", "nothing-of-that-name")
    assert failed.returncode == 1
    assert failed.stderr.startswith("mgs: ")
    assert failed.stderr.count("\n") == 1


def test_a_file_of_requests_is_answered_beside_it(served: Served) -> None:
    file = served.folder / "requests.jsonl"
    file.write_bytes(jsonl(chat_line(n, temperature=9 if n == 3 else 0) for n in range(5)))
    done = served.mgs("batch", "requests.jsonl", "--wait")
    assert done.returncode == 0, done.stderr
    assert "completed: 4 answered, 1 not" in done.stdout
    output = (served.folder / "requests.output.jsonl").read_text().splitlines()
    assert [json.loads(one)["custom_id"] for one in output] == ["r0", "r1", "r2", "r4"]
    assert (served.folder / "requests.errors.jsonl").read_text().count("\n") == 1
    listed = served.mgs("batches").stdout
    batch_id = next(word for word in listed.split() if word.startswith("batch_"))
    assert "5/5" in listed
    assert "is accepted" in served.mgs("batches", "--retry", batch_id).stdout
    refused = served.mgs("batches", "--cancel", batch_id)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_redis_opens_and_shows_how(served: Served) -> None:
    opened = served.mgs("redis-cli", "ping")
    assert opened.stdout.strip() == "PONG"
    assert "redis-cli -s " in opened.stderr


def test_the_doctor_finds_nothing(served: Served) -> None:
    examined = served.mgs("doctor")
    assert examined.returncode == 0, examined.stdout
    assert "problem" not in examined.stdout


def test_the_end_says_where_and_what_to_try(served: Served) -> None:
    log = served.log.read_text()
    assert f"http://127.0.0.1:{served.port}" in log
    assert "curl" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_within_five_seconds(tmp_path: Path, number: int) -> None:
    one = Served(tmp_path)
    one.wait_until_ready()
    assert one.mgs("load", "fake").returncode == 0
    family = psutil.Process(one.process.pid).children(recursive=True)
    started = time.monotonic()
    # Twice, and to the whole group, as a terminal and an impatient user would.
    os.killpg(one.process.pid, number)
    os.killpg(one.process.pid, number)
    assert one.process.wait(20) == 0
    assert time.monotonic() - started < 5
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


def test_without_a_server_the_doctor_says_what_is_missing(tmp_path: Path) -> None:
    state = {"MGS_STATE_DIR": str(tmp_path), "MGS_PORT": "1"}
    command = [sys.executable, "-m", "api.cli.main", "doctor"]
    environment = {**os.environ, **state}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "start it with `mgs serve`" in done.stdout
