"""Anthropic's Messages API of real models, through the official client with strict types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic import Anthropic, beta_tool

from tests.helpers.server import Server

pytestmark = pytest.mark.timeout(180)

MODELS = ["demo", "demo.gguf"]
GREEDY: Any = {"extra_body": {"temperature": 0}}  # the client has no name for it any more
HELLO: Any = [{"role": "user", "content": "Hello!"}]
ADD: Any = {
    "name": "add",
    "description": "Add two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}


@pytest.fixture
def claude(server: Server) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=server.url,
        api_key="none",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    ) as client:
        yield client


def chat_text(server: Server, text: str, **fields: Any) -> str:
    return str(server.chat(text, **fields).json()["choices"][0]["message"]["content"])


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", MODELS)
def test_a_message_says_what_the_chat_says_whole_and_streamed(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)
    expected = chat_text(server, "Hello!")
    whole = claude.messages.create(model=model, max_tokens=100, messages=HELLO, **GREEDY)
    assert text_of(whole) == expected
    assert (whole.model, whole.stop_reason) == (model, "end_turn")
    with claude.messages.stream(model=model, max_tokens=100, messages=HELLO, **GREEDY) as stream:
        deltas = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(deltas) == text_of(final) == expected
    assert final.stop_reason == "end_turn"


def test_a_message_names_the_tier_that_it_had(server: Server, claude: Anthropic) -> None:
    server.load("fake")
    asked: Any = {"model": "fake", "max_tokens": 9, "messages": HELLO}
    plain = claude.messages.create(**asked, service_tier="standard_only")
    assert plain.usage.service_tier == "standard"
    later = claude.messages.create(**asked, extra_body={"service_tier": "flex"})
    assert later.usage.service_tier == "batch"
    sooner = claude.messages.create(**asked, extra_body={"priority": -1})
    assert sooner.usage.service_tier == "priority"
    with claude.messages.stream(**asked, extra_body={"service_tier": "flex"}) as stream:
        assert stream.get_final_message().usage.service_tier == "batch"
    with pytest.raises(anthropic.BadRequestError, match="service_tier"):
        claude.messages.create(**asked, extra_body={"service_tier": "gold"})


@pytest.mark.parametrize("model", MODELS)
def test_a_streamed_message_comes_in_parts(server: Server, claude: Anthropic, model: str) -> None:
    server.load(model)
    # Long: on a busy machine tokens that wait for the client leave together.
    endless = {"temperature": 0, "ignore_eos": True}
    with claude.messages.stream(
        model=model, max_tokens=400, messages=HELLO, extra_body=endless
    ) as stream:
        deltas = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(deltas) == text_of(final)
    assert len(deltas) > 1
    assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 400)


@pytest.mark.parametrize("model", MODELS)
def test_the_count_of_tokens_is_what_the_message_then_uses(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)

    def prompt(mark: str) -> Any:
        billing = {"type": "text", "text": f"x-anthropic-billing-header: cch={mark};"}
        brief = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
        turns = [*HELLO, {"role": "system", "content": "Be kind."}]
        return {"model": model, "system": [billing, brief], "tools": [ADD], "messages": turns}

    counted = claude.messages.count_tokens(**prompt("0")).input_tokens
    for mark in ("1f3a", "77b"):
        usage = claude.messages.create(max_tokens=4, **prompt(mark)).usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    # The second time, most of it is read from the prompt cache, and not counted as input again.
    assert usage.cache_read_input_tokens
    without = claude.messages.count_tokens(model=model, messages=HELLO).input_tokens
    assert without < counted


@pytest.mark.parametrize("model", MODELS)
def test_a_message_goes_on_where_the_assistants_turn_ends(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)
    count: Any = [{"role": "user", "content": "Count from 1 to 9."}]
    whole = text_of(claude.messages.create(model=model, max_tokens=99, messages=count, **GREEDY))
    begun = [*count, {"role": "assistant", "content": whole[:10]}]
    rest = claude.messages.create(model=model, max_tokens=99, messages=begun, **GREEDY)
    assert whole[:10] + text_of(rest) == whole


@pytest.mark.parametrize("model", MODELS)
def test_a_message_ends_at_its_limit_or_at_a_stop_sequence(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)
    count: Any = [{"role": "user", "content": "Count from 1 to 20."}]
    cut = claude.messages.create(model=model, max_tokens=5, messages=count, **GREEDY)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 5)
    stopped = claude.messages.create(
        model=model, max_tokens=100, messages=count, stop_sequences=["x", "7"], **GREEDY
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "7")
    assert text_of(stopped).rstrip(", ").endswith("6")


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_request_raises_the_clients_errors(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)
    long: Any = [{"role": "user", "content": "long " * 5000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(model=model, max_tokens=5, messages=long)
    assert caught.value.api_message.startswith("prompt is too long")
    assert caught.value.error_code == "context_length_exceeded"
    image: Any = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/x.png"}}
    with pytest.raises(anthropic.BadRequestError, match="blocks of type 'image'"):
        claude.messages.create(
            model=model, max_tokens=5, messages=[{"role": "user", "content": [image]}]
        )
    server.unload()
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="nobody's", max_tokens=5, messages=HELLO)


def ask_to_add(claude: Anthropic, model: str, is_streamed: bool, **fields: Any) -> Any:
    """The model's turn, by way of a stream or not."""
    body: Any = {"model": model, "max_tokens": 100, "tools": [ADD], **GREEDY, **fields}
    if not is_streamed:
        return claude.messages.create(**body)
    with claude.messages.stream(**body) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("model", MODELS)
def test_a_tool_is_called_and_its_result_answered(
    server: Server, claude: Anthropic, model: str, is_streamed: bool
) -> None:
    server.load(model)
    question: Any = [{"role": "user", "content": "What is 12 + 30?"}]
    asked = ask_to_add(claude, model, is_streamed, messages=question)
    assert asked.stop_reason == "tool_use"
    (call,) = asked.content
    assert (call.type, call.name, call.input) == ("tool_use", "add", {"a": 12, "b": 30})
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "42"}
    turns = [*question, asked.to_param(), {"role": "user", "content": [result]}]
    answered = ask_to_add(claude, model, is_streamed, messages=turns)
    assert (answered.stop_reason, text_of(answered)) == ("end_turn", "12 + 30 = 42")


@pytest.mark.parametrize("model", MODELS)
def test_a_failed_tool_is_told_to_the_model(server: Server, claude: Anthropic, model: str) -> None:
    server.load(model)
    call: Any = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}}
    result: Any = {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": "timeout",
        "is_error": True,
    }
    turns = [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    answered = ask_to_add(claude, model, is_streamed=False, messages=turns)
    assert text_of(answered) == "The tool reported an error."


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_that_has_to_be_called_is_called(
    server: Server, claude: Anthropic, model: str
) -> None:
    server.load(model)
    for choice in ({"type": "any"}, {"type": "tool", "name": "add"}):
        single = {**choice, "disable_parallel_tool_use": True}
        forced = ask_to_add(claude, model, False, messages=HELLO, tool_choice=single)
        (call,) = forced.content
        assert (forced.stop_reason, call.name, set(call.input)) == ("tool_use", "add", {"a", "b"})
    free = ask_to_add(claude, model, False, messages=HELLO, tool_choice={"type": "none"})
    assert text_of(free) == chat_text(server, "Hello!")


@pytest.mark.parametrize("model", MODELS)
def test_the_clients_runner_calls_a_function_and_goes_on(
    server: Server, claude: Anthropic, model: str
) -> None:
    """It asks for a conversation that the server keeps, and does without when there is none."""
    server.load(model)

    @beta_tool(input_schema=ADD["input_schema"])
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return str(a + b)

    question: Any = [{"role": "user", "content": "What is 12 + 30?"}]
    runner = claude.beta.messages.tool_runner(
        model=model, max_tokens=100, tools=[add], messages=question, **GREEDY
    )
    asked, answered = list(runner)
    assert [block.type for block in asked.content] == ["tool_use"]
    assert text_of(answered) == "12 + 30 = 42"


def test_a_key_is_taken_from_the_clients_own_header(server: Server) -> None:
    headers = {"x-api-key": "any", "anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}
    server.load("demo")
    body = {"max_tokens": 4, "messages": HELLO}
    url = f"{server.url}/v1/messages?beta=true"
    answer = httpx.post(url, json=body, headers=headers, timeout=60)
    assert answer.json()["type"] == "message"
