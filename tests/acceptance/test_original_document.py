"""Each command of the original project's document works as printed, but for the port."""

# ruff: noqa: E501 - the commands stand as they are printed

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(120)

LIST = "curl -X GET http://localhost:4000/v1/internal/model/list"
LOAD_MLX = """curl -X POST -H "Content-Type: application/json" -d '{"llm_model_name": "gemma-2b"}' http://localhost:4000/v1/internal/model/load"""
LOAD_GGUF = """curl -X POST -H "Content-Type: application/json" -d '{"llm_model_name": "gemma-2b.gguf","chat_format":"gemma" }' http://localhost:4000/v1/internal/model/load"""
COMPLETE = """curl -s -X POST -H "Content-Type: application/json" -d '{"prompt": "Your prompt here", "max_tokens": 50}' http://localhost:4000/v1/completions"""
CHAT = """curl -s -X POST -H "Content-Type: application/json" -H "X-Model-Id: 0" -d '{"messages": [{"role": "user", "content": "hello"}]}' http://localhost:4000/v1/chat/completions"""
COUNT = """curl -X POST -H "Content-Type: application/json" -d '{"prompt": "Your prompt here"}' http://localhost:4000/v1/internal/token-count"""
UNLOAD = "curl -X POST http://localhost:4000/v1/internal/model/unload"
LOAD_0 = """curl -X POST -H "Content-Type: application/json" -H "X-Model-Id: 0" -d '{"llm_model_name": "gemma-2b"}' http://localhost:4000/v1/internal/model/load"""
LOAD_1 = """curl -X POST -H "Content-Type: application/json" -H "X-Model-Id: 1" -d '{"llm_model_name": "gemma-2b.gguf"}' http://localhost:4000/v1/internal/model/load"""
LOAD_2 = """curl -X POST -H "Content-Type: application/json" -H "X-Model-Id: 2" -d '{"llm_model_name": "Mixtral-8x7B-Instruct-v0.1_Q4"}' http://localhost:4000/v1/internal/model/load"""
PROCESSES = """curl -s -X GET -H "Content-Type: application/json"  http://localhost:4000/management/processes"""
CLEAN_UP = """curl -X POST -H "Content-Type: application/json" -H "X-Model-Id: 1" -d '{"timeout": 1}' http://localhost:4000/management/process/clean-up"""


def run(server: Server, command: str) -> Any:
    """What the command prints, run by a shell as a reader would paste it."""
    pasted = command.replace("localhost:4000", f"localhost:{server.port}")
    return json.loads(subprocess.check_output(pasted, shell=True, stderr=subprocess.DEVNULL))


def check_completion(answer: Any, model: str) -> None:
    assert answer["object"] == "text_completion"
    assert answer["model"] == model
    assert isinstance(answer["choices"][0]["text"], str)
    usage = answer["usage"]
    assert 0 < usage["completion_tokens"] <= 50
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(("load", "model"), [(LOAD_MLX, "gemma-2b"), (LOAD_GGUF, "gemma-2b.gguf")])
def test_the_commands_for_one_model(server: Server, load: str, model: str) -> None:
    names = run(server, LIST)["model_names"]
    assert names == sorted(names)
    assert {"gemma-2b", "gemma-2b.gguf", "Mixtral-8x7B-Instruct-v0.1_Q4"} <= set(names)

    assert run(server, load) == {"load": "success"}
    check_completion(run(server, COMPLETE), model)

    chat = run(server, CHAT)
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"]["content"]

    count = run(server, COUNT)
    assert list(count) == ["length"]
    assert count["length"] > 0

    assert run(server, UNLOAD) == {"unload": "success"}
    assert server.processes_by_id() == {}


def test_the_commands_for_several_models_and_their_management(server: Server) -> None:
    for command in (LOAD_0, LOAD_1, LOAD_2):
        assert run(server, command) == {"load": "success"}

    processes = run(server, PROCESSES)["processes"]
    assert [entry["model_id"] for entry in processes] == ["0", "1", "2"]
    assert [entry["model_type"] for entry in processes] == ["mlx", "llama-cpp", "mlx"]
    for entry in processes:
        assert entry["model_path"].endswith(entry["model_name"])
        assert entry["process_id"] > 0
        assert entry["memory_usage"] > 10_000_000
        assert entry["context_length"] > 0
        assert entry["current_queue"] == {
            "request_queue_size": 0,
            "response_queue_size": 0,
            "batch_queue_size": 0,
            "pending_requests_count": 0,
            "queues": {},
        }
    assert run(server, CLEAN_UP)["process_clean_up"] == "success"


def test_the_chat_greets_back(server: Server) -> None:
    server.load("gemma-2b")
    answer = server.chat("hello").json()
    assert "ello" in answer["choices"][0]["message"]["content"]
