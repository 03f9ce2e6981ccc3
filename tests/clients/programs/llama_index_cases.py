"""LlamaIndex: OpenAILike and OpenAILikeEmbedding."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.clients.programs.run import Target


class _Sum(BaseModel):
    """The form of an answer."""

    a: int
    b: int
    total: int


def _add(a: int, b: int) -> int:
    return a + b


_ADD = FunctionTool.from_defaults(_add, name="add", description="Add two numbers.")


def chat(target: Target) -> None:
    answer = _model(target).chat([ChatMessage(role="user", content="What is 2 + 3?")])
    assert answer.message.content == "2 + 3 = 5"


def complete_through_chat(target: Target) -> None:
    assert _model(target).complete("What is 2 + 3?").text == "2 + 3 = 5"


def complete(target: Target) -> None:
    model = _model(target, is_chat_model=False, max_tokens=8)
    whole = model.complete("1, 2, 3,").text
    assert whole
    assert "".join(chunk.delta for chunk in model.stream_complete("1, 2, 3,")) == whole


def stream(target: Target) -> None:
    question = [ChatMessage(role="user", content="Count from 1 to 5.")]
    chunks = list(_model(target).stream_chat(question))
    assert "".join(chunk.delta or "" for chunk in chunks) == "1, 2, 3, 4, 5"
    assert chunks[-1].message.content == "1, 2, 3, 4, 5"


def stream_asynchronous(target: Target) -> None:
    async def ask() -> str:
        chunks = await _model(target).astream_complete("Count from 1 to 5.")
        return "".join([chunk.delta or "" async for chunk in chunks])

    assert asyncio.run(ask()) == "1, 2, 3, 4, 5"


def structured_output(target: Target) -> None:
    prompt = PromptTemplate("What is 2 + 3? Answer in JSON.")
    model = _model(target, should_use_structured_outputs=True)
    assert model.structured_predict(_Sum, prompt) == _Sum(a=2, b=3, total=5)


def structured_output_by_a_tool(target: Target) -> None:
    prompt = PromptTemplate("What is 2 + 3? Answer in JSON.")
    answer = _model(target, is_function_calling_model=True).structured_predict(_Sum, prompt)
    assert isinstance(answer, _Sum)


def tools(target: Target) -> None:
    model = _model(target, is_function_calling_model=True)
    question = ChatMessage(role="user", content="What is 2 + 3?")
    first = model.chat_with_tools([_ADD], chat_history=[question])
    [call] = model.get_tool_calls_from_response(first)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})
    result = ChatMessage(role="tool", content="5", additional_kwargs={"tool_call_id": call.tool_id})
    last = model.chat_with_tools([_ADD], chat_history=[question, first.message, result])
    assert last.message.content == "2 + 3 = 5"


def tools_stream(target: Target) -> None:
    model = _model(target, is_function_calling_model=True)
    question = ChatMessage(role="user", content="What is 2 + 3?")
    *_, last = model.stream_chat_with_tools([_ADD], chat_history=[question])
    [call] = model.get_tool_calls_from_response(last)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})


def embeddings(target: Target) -> None:
    model = OpenAILikeEmbedding(
        model_name=target.model, api_base=target.openai_url, api_key="none", timeout=60
    )
    vectors = model.get_text_embedding_batch(["Hello!", "What is 2 + 3?"])
    assert len(vectors) == 2
    assert len(vectors[0]) > 8


def _model(target: Target, **options: Any) -> Any:
    return OpenAILike(
        **{
            "model": target.model,
            "api_base": target.openai_url,
            "api_key": "none",
            "is_chat_model": True,
            "context_window": 2048,
            "temperature": 0,
            "max_retries": 0,
            "timeout": 60,
            **options,
        }
    )
