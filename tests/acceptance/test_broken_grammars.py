"""A grammar that breaks down in the middle of an answer: an error by name, for its client alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import APIError, BadRequestError, OpenAI

from tests.helpers.grammars import RUNS_FULL
from tests.helpers.sdk import openai_client
from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)


def liking_letters(client: OpenAI) -> dict[str, Any]:
    """A request whose answer is letters without an end, as far as its grammar goes."""
    ids = [client.post("/tokenize", body={"text": one}, cast_to=dict)["tokens"] for one in "abcdef"]
    return {
        "model": "dummy",
        "messages": [{"role": "user", "content": "Who are you?"}],
        "logit_bias": {str(token_id): 100 for (token_id,) in ids},
        "temperature": 1.0,
        "extra_body": {"grammar": RUNS_FULL.text},
    }


@pytest.mark.parametrize("model", ["demo", "demo.gguf", "fake"])
def test_its_client_is_told_and_a_neighbour_notices_nothing(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    counting: Any = {"model": "dummy", "prompt": "Count from 1 to 9.", "max_tokens": 300,
                     "temperature": 0.0, "extra_body": {"ignore_eos": True}}  # fmt: skip
    alone = client.completions.create(**counting).choices[0].text
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(lambda: client.completions.create(**counting).choices[0].text)
        broken = liking_letters(client)
        with pytest.raises(BadRequestError) as caught:
            client.chat.completions.create(**broken)
        assert (caught.value.code, caught.value.param) == ("grammar_failed", "grammar")
        said, error = streamed(client, broken)
        assert error.code == "grammar_failed"
        assert set(said) <= set("abcdef")
        assert said
        assert beside.result() == alone


def streamed(client: OpenAI, request: dict[str, Any]) -> tuple[str, APIError]:
    """What a stream says, and the error that ends it."""
    said: list[str] = []
    with pytest.raises(APIError) as caught:
        read(client.chat.completions.create(**request, stream=True), said)
    return "".join(said), caught.value


def read(stream: Any, said: list[str]) -> None:
    """Add the text of each chunk; none says that the answer is finished."""
    for chunk in stream:
        assert chunk.choices[0].finish_reason is None
        said.append(chunk.choices[0].delta.content or "")
