"""What /openapi.json says of the API."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from api.app import create_app
from jobs.settings import Settings

HEAVY = ("mlx", "mlx_lm", "llama_cpp", "transformers", "torch", "numpy")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_of_the_contract_is_there(schema: dict[str, Any]) -> None:
    expected = """
        GET /v1/internal/model/list
        POST /v1/internal/model/load
        POST /v1/internal/model/unload
        PATCH /v1/internal/model
        POST /v1/internal/model/pull
        POST /v1/internal/model/delete
        GET /v1/internal/model/info
        GET /v1/internal/model/info/{model_name}
        POST /v1/internal/token-count
        POST /v1/completions
        POST /v1/chat/completions
        GET /v1/internal/adapter/list
        POST /v1/messages
        POST /v1/messages/count_tokens
        POST /v1/embeddings
        POST /v1/rerank
        POST /v1/tokenize
        POST /v1/detokenize
        POST /v1/apply-template
        GET /v1/models
        GET /management/processes
        POST /management/process/clean-up
        GET /v1/jobs
        GET /v1/jobs/{job_id}
        DELETE /v1/jobs/{job_id}
        GET /v1/jobs/{job_id}/events
        GET /health
        GET /health/ready
        GET /metrics
    """
    wanted = {line.strip() for line in expected.strip().splitlines()}
    assert wanted <= {name for name, _ in operations(schema)}


def test_every_answer_is_typed_and_no_422_is_promised(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        assert "422" not in operation["responses"], name
        answers = operation["responses"]
        contents = answers["200" if "200" in answers else "202"]["content"]
        shapes = [content["schema"] for content in contents.values()]
        assert all(shapes), name


def test_all_references_lead_somewhere(schema: dict[str, Any]) -> None:
    known = set(schema["components"]["schemas"])
    used = {part.split('"')[0] for part in json.dumps(schema).split("#/components/schemas/")[1:]}
    assert used <= known


def test_importing_the_api_loads_no_engine() -> None:
    code = f"import sys, api.__main__; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
