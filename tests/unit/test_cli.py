"""The command line against a stub server: what it sends, what it prints, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import main
from api.cli.client import CliError, Server, ServerError
from api.cli.tables import to_age_text, to_size_text
from jobs.settings import Settings
from tests.helpers.stores import add_gguf

_PROCESSES = {
    "processes": [
        {
            "model_id": "0",
            "model_name": "demo",
            "model_path": "models/demo",
            "model_type": "mlx",
            "context_length": 2048,
            "process_id": 4711,
            "cpu_usage": 12.4,
            "memory_usage": 123_400_000,
            "current_queue": {"request_queue_size": 3, "response_queue_size": 0, "queues": {}},
        }
    ]
}


class Stub:
    """A server with canned answers that notes what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], str]] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.requests.append((self.command, self.path, headers, body))
                status, more, text = stub.answers[f"{self.command} {self.path}"]
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, what: str, body: Any, status: int = 200, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.answers[what] = (status, headers, text)


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


def _run(stub: Stub, *arguments: str) -> str:
    result = CliRunner().invoke(main.app, [*arguments, "--url", stub.url], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def _events(*events: dict[str, Any]) -> str:
    blocks = [
        f"id: 1-{n}\nevent: {e['kind']}\ndata: {json.dumps(e)}\n" for n, e in enumerate(events)
    ]
    return ": keep-alive\n\n" + "\n".join(blocks) + "\n"


def test_purge_names_the_class_and_says_what_ended(stub: Stub) -> None:
    answer = {"process_clean_up": "success", "num_waiting": 3, "num_running": 1}
    stub.answer("POST /management/process/clean-up", answer)
    output = _run(stub, "purge", "--older-than", "60", "--id", "7", "--class", "batch")
    assert "3 waiting and 1 running jobs ended" in output
    _, _, headers, body = stub.requests[0]
    assert headers["x-model-id"] == "7"
    assert body == {"timeout": 60.0, "class": "batch", "dry_run": False}
    assert "would end" in _run(stub, "purge", "--older-than", "0", "--dry-run")


def test_load_follows_the_job_to_its_end(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/load", {"id": "load-1"}, 202, Location="/v1/jobs/load-1")
    progress = {"kind": "progress", "phase": "load", "fraction": 0.42}
    stub.answer("GET /v1/jobs/load-1/events", _events(progress, {"kind": "finished"}))
    output = _run(
        stub, "load", "demo.gguf", "--id", "7", "--chat-format", "gemma", "--context", "512"
    )
    assert "demo.gguf is loaded as model 7" in output
    _, _, headers, body = stub.requests[0]
    assert headers["x-model-id"] == "7"
    assert headers["prefer"] == "respond-async"
    assert body == {
        "llm_model_name": "demo.gguf",
        "chat_format": "gemma",
        "context_length": 512,
    }


def test_a_load_passes_every_option_on(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/load", {"load": "success"})
    options = "--adapter tuned --kv-bits 8 --draft small --draft-tokens 3 --slots 2"
    _run(stub, "load", "demo", *options.split())
    assert stub.requests[0][3] == {
        "llm_model_name": "demo",
        "slots": 2,
        "adapter_name": "tuned",
        "kv_bits": 8,
        "draft_model": "small",
        "num_draft_tokens": 3,
    }


def test_load_of_a_loaded_model_is_done_at_once(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/load", {"load": "success"})
    assert "demo is loaded as model 0" in _run(stub, "load", "demo")


def test_a_failed_load_says_why(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/load", {"id": "load-1"}, 202, Location="/v1/jobs/load-1")
    failed = {"kind": "failed", "error": {"code": "model_load_failed", "message": "not a GGUF"}}
    stub.answer("GET /v1/jobs/load-1/events", _events(failed))
    with pytest.raises(CliError, match=r"^not a GGUF$"):
        _run(stub, "load", "broken.gguf")


def test_events_go_on_after_a_broken_connection(stub: Stub) -> None:
    promise = {"Content-Length": "999"}  # More than it sends.
    stub.answers["GET /j/events"] = (200, promise, _events({"kind": "started"}))
    found = []
    for event in Server(Settings(), stub.url).events("/j/events"):
        found.append(event["kind"])
        stub.answer("GET /j/events", _events({"kind": "finished"}))
    assert found == ["started", "finished"]
    assert stub.requests[1][2]["last-event-id"] == "1-0"


def test_pull_follows_the_job_to_its_end(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/pull", {"id": "pull-1"}, 202, Location="/v1/jobs/pull-1")
    sizes = {"phase": "pull", "fraction": 0.5, "completed": 2_000_000, "total": 4_000_000}
    progress = {"kind": "progress", "file": "tiny-Q8_0.gguf", **sizes}
    finished = {"kind": "finished", "text": "tiny-Q8_0.gguf"}
    stub.answer("GET /v1/jobs/pull-1/events", _events({"kind": "started"}, progress, finished))
    memory = {"total_bytes": 9_000_000, "fits": False}
    stub.answer("GET /v1/internal/model/estimate?llm_model_name=tiny-Q8_0.gguf", memory)
    output = _run(stub, "pull", "org/tiny:Q8_0", "--force", "--node", "mini")
    assert "org/tiny:Q8_0: 4.0 MB on disk, 2.0 MB of it are there" in output
    assert "is in the models folder as tiny-Q8_0.gguf" in output
    assert "it needs about 9.0 MB of memory, more than all models" in output
    assert stub.requests[0][3] == {
        "model": "org/tiny:Q8_0",
        "revision": "main",
        "force": True,
        "background": True,
        "node": "mini",
    }


def test_a_failed_pull_says_why(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/pull", {"id": "pull-1"}, 202, Location="/v1/jobs/pull-1")
    failed = {"kind": "failed", "error": {"code": "disk_full", "message": "the disk is full"}}
    stub.answer("GET /v1/jobs/pull-1/events", _events(failed))
    with pytest.raises(CliError, match=r"^the disk is full$"):
        _run(stub, "pull", "org/tiny")


def test_rm_removes_a_model_or_what_downloads_have_left(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/delete", {"delete": "success", "freed_bytes": 4_000_000})
    assert "tiny removed: 4.0 MB are free again" in _run(stub, "rm", "tiny")
    assert "unfinished downloads removed" in _run(stub, "rm", "--partial")
    assert [one[3] for one in stub.requests] == [
        {"partial": False, "model": "tiny"},
        {"partial": True},
    ]
    with pytest.raises(CliError, match="name a model"):
        _run(stub, "rm")


def test_unload_names_the_model_id(stub: Stub) -> None:
    stub.answer("POST /v1/internal/model/unload", {"unload": "success"})
    assert "model 3 is unloaded" in _run(stub, "unload", "--id", "3")
    assert stub.requests[0][2]["x-model-id"] == "3"


def test_ps_is_a_table(stub: Stub) -> None:
    stub.answer("GET /management/processes", _PROCESSES)
    head, row = _run(stub, "ps").strip().splitlines()
    assert head.split()[:2] == ["ID", "MODEL"]
    assert row.split() == ["0", "demo", "mlx", "2048", "4711", "12", "%", "123.4", "MB", "3"]


def test_ps_without_models_says_what_to_do(stub: Stub) -> None:
    stub.answer("GET /management/processes", {"processes": []})
    assert "mgs load NAME" in _run(stub, "ps")


def test_models_shows_facts_and_which_are_loaded(stub: Stub) -> None:
    demo = {
        "id": "demo", "model_id": "0", "model_name": "demo", "backend": "mlx", "state": "ready",
        "size_bytes": 3_992_192, "num_parameters": 1_990_000, "context_length": 2048,
        "source": "models", "aliases": ["gpt-4o"],
    }  # fmt: skip
    other: dict[str, object] = {
        "id": "x.gguf", "model_id": None, "model_name": "x.gguf", "backend": "llama-cpp",
        "state": "unloaded", "size_bytes": 5 * 10**9, "num_parameters": 8_030_000_000,
        "quantization": "Q4_K_M", "context_length": 131072, "source": "hf", "aliases": [],
    }  # fmt: skip
    stub.answer("GET /v1/models", {"data": [demo, {**demo, "id": "gpt-4o"}, other]})
    head, *rows = [line.split() for line in _run(stub, "models").strip().splitlines()]
    assert (
        head == "MODEL FORMAT SIZE PARAMETERS QUANTIZATION CONTEXT SOURCE LOADED AS ALIASES".split()
    )
    assert rows == [
        "demo MLX 4.0 MB 2.0M 2048 models 0 (ready) gpt-4o".split(),
        "x.gguf GGUF 5.0 GB 8.0B Q4_K_M 131072 hf".split(),
    ]


def test_models_check_needs_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGS_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("MGS_MODEL_ALIASES", "small.gguf=demo")
    add_gguf(tmp_path / "small.gguf")
    add_gguf(tmp_path / "big-00001-of-00002.gguf")
    (tmp_path / "models.toml").write_text('["gone"]\nttl = 5\n')
    done = CliRunner().invoke(main.app, ["models", "--check"])
    assert (done.exit_code, done.stdout.splitlines()) == (0, [
        "big-00001-of-00002.gguf (models) is not complete: missing: big-00002-of-00002.gguf",
        'models.toml: ["gone"] means no model here',
        "alias 'small.gguf' has no effect: it is the name of a model",
        "models.toml: 1 tables; 1 models are listed",
    ])  # fmt: skip
    (tmp_path / "models.toml").write_text("[a]\nttl = true")
    done = CliRunner().invoke(main.app, ["models", "--check"])
    assert done.exit_code == 1
    assert done.stdout.startswith(f'{tmp_path}/models.toml:2: ["a"] ttl: ')


def test_jobs_pass_the_filters_on(stub: Stub) -> None:
    job = {
        "id": "chatcmpl-1",
        "task": "generate",
        "model_id": "0",
        "status": "running",
        "created_at": 0,
    }
    stub.answer("GET /v1/jobs?limit=20&status=running&model=0", {"data": [job]})
    output = _run(stub, "jobs", "--status", "running", "--id", "0")
    assert "chatcmpl-1" in output
    assert "running" in output


def test_the_key_goes_along(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGS_API_KEY", "user")
    monkeypatch.setenv("MGS_MANAGEMENT_KEY", "manager")
    stub.answer("GET /management/processes", {"processes": []})
    _run(stub, "ps")
    assert stub.requests[0][2]["authorization"] == "Bearer manager"


def test_an_error_of_the_server_is_its_message(stub: Stub) -> None:
    body = {"error": {"message": "there is no model 'x'"}, "detail": "there is no model 'x'"}
    stub.answer("POST /v1/internal/model/load", body, 404)
    with pytest.raises(ServerError, match="there is no model 'x'") as error:
        _run(stub, "load", "x")
    assert error.value.status == 404


def test_a_missing_key_says_which_setting(stub: Stub) -> None:
    stub.answer("GET /management/processes", {"error": {"message": "no key"}}, 401)
    with pytest.raises(ServerError, match="MGS_API_KEY"):
        _run(stub, "ps")


def test_another_server_on_the_port_is_detected(stub: Stub) -> None:
    stub.answer("GET /management/processes", "<html>")
    with pytest.raises(CliError, match="is not an mlx-gguf-server"):
        _run(stub, "ps")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://", "ftp://x"])
def test_no_server_is_one_line_and_status_1(url: str) -> None:
    command = [sys.executable, "-m", "api.cli.main", "ps", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("mgs: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:4000"),
        ("0.0.0.0", "http://127.0.0.1:4000"),
        ("::", "http://[::1]:4000"),
        ("::1", "http://[::1]:4000"),
    ],
)
def test_the_address_follows_the_settings(host: str, url: str) -> None:
    assert Server(Settings(host=host, api_key="k")).url == url


def test_sizes_and_ages_read_well() -> None:
    assert [to_size_text(n) for n in (0, 999, 12_345, 3_827_122_176)] == [
        "0 B",
        "999 B",
        "12 kB",
        "3.8 GB",
    ]
    assert [to_age_text(s) for s in (-1, 4, 600, 10_800, 400_000)] == [
        "0 s",
        "4 s",
        "10 min",
        "3 h",
        "5 d",
    ]
