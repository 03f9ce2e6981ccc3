"""The Responses API of real models, through the official client with strict types."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from tests.helpers.sdk import openai_client
from tests.helpers.server import Server
from tests.helpers.thinking import add_thinking_model
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

MODELS = ["demo", "demo.gguf"]


class Person(BaseModel):
    """What is asked for as structured output."""

    name: str
    age: int


def chat_text(server: Server, text: str, **fields: Any) -> str:
    return str(server.chat(text, **fields).json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize("model", MODELS)
def test_a_response_says_what_the_chat_says_whole_and_streamed(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    expected = chat_text(server, "Hello!")
    whole = client.responses.create(model=model, input="Hello!", temperature=0)
    assert whole.output_text == expected
    assert whole.status == "completed"
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    with client.responses.stream(model=model, input="Hello!", temperature=0) as stream:
        deltas = [e.delta for e in stream if e.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == expected
    assert client.responses.retrieve(final.id).output_text == expected


@pytest.mark.parametrize("model", MODELS)
def test_a_conversation_goes_on_by_the_last_responses_id(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    first = client.responses.create(model=model, input="Hello!", temperature=0)
    second = client.responses.create(
        model=model, input="What is 2 + 3?", previous_response_id=first.id, temperature=0
    )
    messages = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is 2 + 3?"},
    ]
    body = {"messages": messages, "temperature": 0}
    chat = server.post("/v1/chat/completions", body).json()
    assert second.output_text == chat["choices"][0]["message"]["content"]
    assert second.usage is not None
    assert second.usage.input_tokens == chat["usage"]["prompt_tokens"]


@pytest.mark.parametrize("model", MODELS)
def test_a_pydantic_model_is_parsed(server: Server, model: str) -> None:
    server.load(model)
    answer = openai_client(server.url).responses.parse(
        model=model,
        input="Who are you?",
        text_format=Person,
        max_output_tokens=200,
        extra_body={"seed": 3},
    )
    if answer.status == "completed":
        assert isinstance(answer.output_parsed, Person)
    else:
        assert answer.incomplete_details is not None


@pytest.mark.parametrize("model", MODELS)
def test_log_probabilities_cover_the_text(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    asked: Any = {"model": model, "input": "Count from 1 to 5.", "temperature": 0}
    asked |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = client.responses.create(**asked)
    part = whole.output[0].content[0]
    assert "".join(p.token for p in part.logprobs).startswith(part.text)
    assert all(len(p.top_logprobs) == 2 and p.logprob <= 0 for p in part.logprobs)
    with client.responses.stream(**asked) as stream:
        deltas = [e for e in stream if e.type == "response.output_text.delta"]
    assert [p.token for e in deltas for p in e.logprobs] == [p.token for p in part.logprobs]


@pytest.mark.parametrize("model", MODELS)
def test_a_limit_makes_a_response_incomplete(server: Server, model: str) -> None:
    server.load(model)
    answer = openai_client(server.url).responses.create(
        model=model, input="Count from 1 to 100.", temperature=0, max_output_tokens=5
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5


@pytest.mark.parametrize("model", MODELS)
def test_a_background_response_can_be_followed_from_anywhere(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    text = "Count from 1 to 20."
    queued = client.responses.create(model=model, input=text, temperature=0, background=True)
    followed = list(client.responses.retrieve(queued.id, stream=True))
    assert [e.sequence_number for e in followed] == list(range(len(followed)))
    assert followed[-1].type == "response.completed"
    assert followed[-1].response.output_text == chat_text(server, text)
    rest = list(client.responses.retrieve(queued.id, stream=True, starting_after=7))
    assert rest == followed[8:]


def test_a_background_response_is_cancelled_while_it_runs(server: Server) -> None:
    server.load("fake")
    client = openai_client(server.url)
    running = client.responses.create(
        model="fake", input="x", background=True, extra_body={"ignore_eos": True}
    )
    wait_until(lambda: client.responses.retrieve(running.id).status == "in_progress", "it runs")
    client.responses.cancel(running.id)
    wait_until(lambda: client.responses.retrieve(running.id).status == "cancelled", "its end")


@pytest.mark.parametrize("model", MODELS)
def test_input_tokens_are_those_that_the_response_uses(server: Server, model: str) -> None:
    server.load(model)
    client = openai_client(server.url)
    asked: dict[str, Any] = {"model": model, "input": "Hello!", "instructions": "Be brief."}
    counted = client.responses.input_tokens.count(**asked).input_tokens
    answer = client.responses.create(**asked, max_output_tokens=1)
    assert answer.usage is not None
    assert answer.usage.input_tokens == counted
    unversioned = httpx.post(f"{server.url}/responses/input_tokens", json=asked, timeout=30).json()
    assert unversioned == {"object": "response.input_tokens", "input_tokens": counted}


def test_thoughts_are_an_item_of_their_own(server: Server) -> None:
    add_thinking_model(server.folder / "models" / "thinker")
    server.load("thinker")
    client = openai_client(server.url)
    asked: Any = {"model": "thinker", "input": "Hello!", "temperature": 0, "max_output_tokens": 40}
    asked["extra_body"] = {"thinking_budget": 5}
    answer = client.responses.create(**asked)
    reasoning, message = answer.output
    assert (reasoning.type, message.type) == ("reasoning", "message")
    assert reasoning.content
    assert "think" not in reasoning.content[0].text + answer.output_text
    assert answer.usage is not None
    assert 5 < answer.usage.output_tokens_details.reasoning_tokens < 20
    events = list(client.responses.create(**asked, stream=True))
    assert events[-1].response.output_text == answer.output_text
    kinds = [event.type for event in events]
    assert kinds.index("response.reasoning_text.done") < kinds.index("response.output_text.delta")
    off = client.responses.create(model="thinker", input="Hello!", reasoning={"effort": "none"})
    assert [item.type for item in off.output] == ["message"]
    again = client.responses.create(**{**asked, "previous_response_id": answer.id})
    assert again.status in ("completed", "incomplete")
