"""Requests: the same after the wire, and nothing that is not in the allow-list."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.errors import ContractError
from jobs.contract.requests import (
    TASKS,
    ApplyTemplateRequest,
    CacheLimitRequest,
    DetokenizeRequest,
    EmbedRequest,
    FunctionCall,
    GenerateRequest,
    GenerationDefaults,
    LoadRequest,
    Message,
    Prompt,
    Request,
    Task,
    TokenCountRequest,
    TokenizeRequest,
    ToolCall,
    UnloadRequest,
    decode_request,
    encode_request,
)
from jobs.contract.rerank import Rerank
from jobs.contract.sampling import Sampling
from tests.helpers.samples import generate

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PROMPTS = st.builds(
    Prompt,
    text=st.none() | TEXTS,
    token_ids=st.none() | st.lists(st.integers(0, 10**6), max_size=5),
    messages=st.none() | st.lists(st.builds(Message, role=TEXTS, content=st.none() | TEXTS)),
    is_chat=st.booleans(),
    suffix=st.none() | TEXTS,
)
SAMPLINGS = st.builds(
    Sampling,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0, 2),
    logit_bias=st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
    num_logprobs=st.none() | st.integers(0, 20),
)
GENERATIONS = st.builds(
    GenerateRequest,
    prompts=st.lists(PROMPTS, min_size=1, max_size=2),
    sampling=SAMPLINGS,
    max_tokens=st.none() | st.integers(1, 10**6),
    num_choices=st.integers(1, 8),
    stop=st.lists(TEXTS, max_size=3),
    on_worker_loss=st.sampled_from(["resume", "fail"]),
)


EMBEDDINGS = st.builds(
    EmbedRequest,
    st.lists(PROMPTS, max_size=3),
    dimensions=st.none() | st.integers(1, 9999),
    input_type=st.sampled_from([None, "query", "document"]),
    prompt_name=st.none() | st.text(max_size=5),
    rerank=st.none() | st.builds(Rerank, top_n=st.none() | st.integers(1, 9)),
)


TEXT_JOBS = (
    st.builds(TokenCountRequest, PROMPTS)
    | st.builds(TokenizeRequest, TEXTS, st.booleans(), st.booleans(), st.booleans())
    | st.builds(DetokenizeRequest, st.lists(st.integers(0, 10**6), max_size=5))
    | st.builds(ApplyTemplateRequest, PROMPTS, st.booleans())
    | st.builds(CacheLimitRequest, st.integers(0, 2**50))
)


@given(GENERATIONS | EMBEDDINGS | TEXT_JOBS)
def test_a_request_is_the_same_after_the_wire(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


def test_tool_calls_and_schemas_survive() -> None:
    call = ToolCall("call-1", FunctionCall("add", '{"a": 1}'))
    message = Message("assistant", tool_calls=[call])
    schema = {"type": "function", "function": {"name": "add", "parameters": {"x": [1, None]}}}
    request = generate(prompts=[Prompt(messages=[message], tools=[schema])])
    assert decode_request(encode_request(request)) == request


def test_load_options_survive() -> None:
    defaults = GenerationDefaults(temperature=0.5, logit_bias={7: -1.5})
    request = LoadRequest("demo", "mlx", chat_format="chatml", slots=3, defaults=defaults)
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"type":"unload","v":2}',
        b'{"type":"os.system"}', b'{"type":"generate"}', b'{"type":"load","model_name":7}',
        b'{"type":"generate","prompts":[{}],"sampling":{},"on_worker_loss":"explode"}',
    ],
)  # fmt: skip
def test_anything_else_is_a_contract_error(data: bytes) -> None:
    with pytest.raises(ContractError):
        decode_request(data)


def test_a_request_of_another_version_names_it() -> None:
    fields = {**json.loads(encode_request(UnloadRequest())), "v": 41}
    with pytest.raises(ContractError, match="41"):
        decode_request(json.dumps(fields).encode())


def test_every_kind_of_request_has_a_task_of_its_own() -> None:
    assert sorted(TASKS.values()) == sorted(Task)
    assert len(set(TASKS)) == len(TASKS)


def test_no_task_can_be_imported() -> None:
    """RQ would import ``a.b`` of a job's function name; ours are names of nothing."""
    for task in Task:
        with pytest.raises(ModuleNotFoundError):
            __import__(task.value.rpartition(".")[0])
