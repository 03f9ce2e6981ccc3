"""Random JSON schemas at temperature 1, on both engines: valid output, or a 400 that says why."""

from __future__ import annotations

import asyncio
import json
import os

import httpx
import jsonschema_rs
import pytest

from tests.helpers.random_schemas import Schema, SchemaMaker
from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(600)

NUM_SCHEMAS = int(os.environ.get("NUM_SCHEMAS", "40"))


async def ask_all(server: Server, schemas: list[Schema]) -> list[httpx.Response]:
    limit = asyncio.Semaphore(12)
    async with httpx.AsyncClient(timeout=300) as client:

        async def one(seed: int, schema: Schema) -> httpx.Response:
            body = {
                "messages": [{"role": "user", "content": "Who are you?"}],
                "temperature": 1,
                "seed": seed,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": schema, "strict": True},
                },
            }
            async with limit:
                return await client.post(f"{server.url}/v1/chat/completions", json=body)

        return await asyncio.gather(*(one(n, schema) for n, schema in enumerate(schemas)))


@pytest.mark.parametrize("model", ["demo", "demo.gguf"])
def test_every_schema_is_followed_or_refused_by_name(server: Server, model: str) -> None:
    server.load(model)
    schemas = [SchemaMaker(seed).schema() for seed in range(NUM_SCHEMAS)]
    answers = asyncio.run(ask_all(server, schemas))
    num_valid = 0
    for schema, answer in zip(schemas, answers, strict=True):
        if answer.status_code == 400:
            error = answer.json()["error"]
            assert error["param"] == "response_format"
            assert any(word in error["message"] for word in ("not", "dependent", "Names")), error
            continue
        choice = answer.json()["choices"][0]
        assert choice["finish_reason"] == "stop", (schema, choice)
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        validator.validate(json.loads(choice["message"]["content"]))
        num_valid += 1
    print(f"{model}: {num_valid} valid, {len(schemas) - num_valid} refused by name")
    assert num_valid > len(schemas) * 0.7
