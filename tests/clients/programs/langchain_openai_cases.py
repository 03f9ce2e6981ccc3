"""langchain-openai: ChatOpenAI and OpenAIEmbeddings with a base URL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import BadRequestError
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.clients.programs.run import Target


class _Sum(BaseModel):
    """The form of an answer."""

    a: int
    b: int
    total: int


@tool
def _add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


_add.name = "add"


def chat(target: Target) -> None:
    answer = _chat(target).invoke("What is 2 + 3?")
    assert answer.content == "2 + 3 = 5"
    assert answer.usage_metadata["total_tokens"] > 8
    assert answer.response_metadata["finish_reason"] == "stop"


def stream(target: Target) -> None:
    chunks = list(_chat(target).stream("Count from 1 to 5."))
    assert "".join(chunk.content for chunk in chunks) == "1, 2, 3, 4, 5"


def stream_asynchronous(target: Target) -> None:
    async def ask() -> str:
        chunks = _chat(target).astream("Count from 1 to 5.")
        return "".join([chunk.content async for chunk in chunks])

    assert asyncio.run(ask()) == "1, 2, 3, 4, 5"


def structured_output(target: Target) -> None:
    for method in ("json_schema", "json_mode", "function_calling"):
        model = _chat(target).with_structured_output(_Sum, method=method)
        answer = model.invoke("What is 2 + 3? Answer in JSON.")
        assert isinstance(answer, _Sum), (method, answer)
        if method != "function_calling":
            assert answer == _Sum(a=2, b=3, total=5), method


def tools(target: Target) -> None:
    model = _chat(target).bind_tools([_add])
    question = HumanMessage("What is 2 + 3?")
    first = model.invoke([question])
    [call] = first.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
    result = _add.invoke(call)
    assert isinstance(result, ToolMessage)
    assert model.invoke([question, first, result]).content == "2 + 3 = 5"


def tools_stream(target: Target) -> None:
    whole: BaseMessageChunk | None = None
    for chunk in _chat(target).bind_tools([_add]).stream("What is 2 + 3?"):
        whole = chunk if whole is None else whole + chunk
    [call] = whole.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})


def responses(target: Target) -> None:
    model = _chat(target, use_responses_api=True)
    assert model.invoke("What is 2 + 3?").text == "2 + 3 = 5"
    streamed = "".join(chunk.text for chunk in model.stream("Count from 1 to 5."))
    assert streamed == "1, 2, 3, 4, 5"


def embeddings(target: Target) -> None:
    # Otherwise it cuts texts by a tokenizer that it downloads.
    model = OpenAIEmbeddings(
        model=target.model,
        base_url=target.openai_url,
        api_key="none",
        check_embedding_ctx_length=False,
    )
    vectors = model.embed_documents(["Hello!", "What is 2 + 3?"])
    assert len(vectors) == 2
    assert len(vectors[0]) > 8
    query = model.embed_query("Hello!")
    assert max(abs(a - b) for a, b in zip(query, vectors[0], strict=True)) < 1e-3


def errors(target: Target) -> None:
    model = _chat(target, temperature=3)
    error = target.error_of(BadRequestError, model.invoke, input="What is 2 + 3?")
    assert error.param == "temperature"


def _chat(target: Target, **options: Any) -> Any:
    return ChatOpenAI(
        **{
            "model": target.model,
            "base_url": target.openai_url,
            "api_key": "none",
            "temperature": 0,
            "max_retries": 0,
            "timeout": 60,
            **options,
        }
    )
