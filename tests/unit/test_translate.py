"""Checked bodies to jobs: what each field means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.dialects.openai.generation.schema import ChatBody, CompletionBody, TokenCountBody
from api.dialects.openai.generation.translate import to_generate_request, to_token_count_request
from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.requests import (
    FunctionCall,
    GenerateRequest,
    GenerationDefaults,
    Message,
    Prompt,
    ToolCall,
)
from jobs.contract.sampling import Sampling

HI: Any = [{"role": "user", "content": "hi"}]


def chat(defaults: GenerationDefaults | None = None, **fields: Any) -> GenerateRequest:
    body = ChatBody.model_validate({"messages": HI, **fields})
    return to_generate_request(body, defaults or GenerationDefaults(), "demo")


def text(defaults: GenerationDefaults | None = None, **fields: Any) -> GenerateRequest:
    body = CompletionBody.model_validate({"prompt": "x", **fields})
    return to_generate_request(body, defaults or GenerationDefaults(), "demo")


def test_what_is_absent_is_off() -> None:
    job = chat(seed=1)
    assert job.sampling == Sampling(seed=1)
    assert (job.max_tokens, job.num_choices, job.stop, job.stream) == (None, 1, [], False)
    assert (job.api, job.model) == ("chat", "demo")


def test_null_is_absent() -> None:
    fields = "max_tokens temperature top_p n stop seed stream logit_bias tools".split()
    assert chat(**dict.fromkeys(fields), user=None).sampling.temperature == 1.0


def test_text_completions_have_openais_default_length() -> None:
    assert text().max_tokens == 16
    assert text(GenerationDefaults(max_tokens=9)).max_tokens == 9
    assert text(GenerationDefaults(max_tokens=9), max_tokens=4).max_tokens == 4


def test_both_names_of_the_length_may_be_given_when_equal() -> None:
    assert chat(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    assert chat(max_completion_tokens=6).max_tokens == 6


@pytest.mark.parametrize("name", ["repet_penalty", "repeat_penalty", "repetition_penalty"])
def test_the_repetition_penalty_has_three_names(name: str) -> None:
    defaults = GenerationDefaults(repetition_penalty=1.5)
    assert chat(defaults, **{name: 1.2}).sampling.repetition_penalty == 1.2
    assert chat(defaults).sampling.repetition_penalty == 1.5


def test_every_sampling_field_arrives() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.9,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repetition_context_size": 64,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "mirostat_mode": 2,
        "mirostat_tau": 3.0,
        "mirostat_eta": 0.2,
        "ignore_eos": True,
        "seed": 7,
    }
    sampling = text(logit_bias={"5": -100}, logprobs=3, **given).sampling
    assert {name: getattr(sampling, name) for name in given} == given
    assert (sampling.logit_bias, sampling.num_logprobs) == ({5: -100.0}, 3)


def test_a_zero_in_the_request_wins_over_a_default() -> None:
    defaults = GenerationDefaults(temperature=0.7, logit_bias={1: 2.0})
    job = chat(defaults, temperature=0, logit_bias={})
    assert (job.sampling.temperature, job.sampling.logit_bias) == (0.0, {})


def test_seeds_are_drawn_when_none_is_given_and_fit_64_bits() -> None:
    assert chat().sampling.seed != chat().sampling.seed
    assert chat(seed=-1).sampling.seed != chat(seed=-1).sampling.seed
    assert chat(seed=-2).sampling.seed == 2**64 - 2


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", [Prompt(text="a")]),
        (["a", "b"], [Prompt(text="a"), Prompt(text="b")]),
        ([1, 2], [Prompt(token_ids=[1, 2])]),
        ([[1], [2, 3]], [Prompt(token_ids=[1]), Prompt(token_ids=[2, 3])]),
    ],
)
def test_a_prompt_has_four_shapes(prompt: Any, expected: list[Prompt]) -> None:
    assert text(prompt=prompt).prompts == expected


@pytest.mark.parametrize("prompt", ["", [], [""]])
def test_a_prompt_must_say_something(prompt: Any) -> None:
    with pytest.raises(InvalidRequestError):
        text(prompt=prompt)


@pytest.mark.parametrize("prompt", [[[]], [True], [1.5], [None], {}, 5, [2**31], ["a", 1]])
def test_no_other_shape_is_a_prompt(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        text(prompt=prompt)


def test_a_template_is_applied_to_a_text_or_to_messages() -> None:
    job = text(apply_chat_template=True)
    assert (job.api, job.prompts) == ("chat", [Prompt(text="x", is_chat=True)])
    job = text(prompt="", messages=HI)
    assert job.api == "chat"
    with pytest.raises(InvalidRequestError, match="one text"):
        text(prompt=[1], apply_chat_template=True)


def test_messages_are_joined_and_renamed() -> None:
    job = chat(
        messages=[
            {"role": "developer", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1}}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]
    )
    system, user, assistant, tool = job.prompts[0].messages or []
    assert system == Message("system", "be brief")
    assert user.content == "a\nb"
    assert assistant.tool_calls
    assert assistant.tool_calls[0].function.arguments == '{"x": 1}'
    assert (tool.role, tool.tool_call_id) == ("tool", "c1")


THOUGHT = Message("assistant", "", reasoning_content="hm")


def called(call_id: str, arguments: str) -> Message:
    return Message("assistant", tool_calls=[ToolCall(call_id, FunctionCall("f", arguments))])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": None, "reasoning_content": "hm"}, THOUGHT),
        ({"content": None, "reasoning": "hm"}, THOUGHT),
        ({"reasoning_content": "hm"}, THOUGHT),
        ({"content": None, "refusal": "no"}, Message("assistant", "no")),
        ({"content": "", "refusal": "no"}, Message("assistant", "no")),
        ({"content": "a", "refusal": None, "reasoning": {"x": 1}}, Message("assistant", "a")),
        ({"content": None}, Message("assistant", "")),
        ({"content": None, "tool_calls": [], "function_call": None}, Message("assistant", "")),
        ({"content": "a", "tool_calls": None, "audio": None, "annotations": []},
         Message("assistant", "a")),
        ({"content": "a", "name": "bo", "phase": 1, "extra": {"b": []}},
         Message("assistant", "a", name="bo")),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, Message("assistant", "no")),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
         Message("assistant", "a")),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, called("", "{}")),
        ({"tool_calls": [{"function": {"name": "f", "arguments": None}, "id": None, "index": 0}]},
         called("", "{}")),
        ({"tool_calls": [{"type": "custom", "id": "c", "custom": {"name": "f", "input": "x"}}]},
         called("c", '{"input": "x"}')),
        ({"role": "function", "name": "f", "content": "5"}, Message("tool", "5", name="f")),
        ({"role": "tool", "content": None, "tool_call_id": "c"},
         Message("tool", "", tool_call_id="c")),
        ({"role": "tool", "content": [], "tool_call_id": "c"},
         Message("tool", "", tool_call_id="c")),
        ({"role": "developer", "content": "be brief"}, Message("system", "be brief")),
    ],
)  # fmt: skip
def test_a_history_is_taken_as_other_servers_wrote_it(fields: Any, expected: Message) -> None:
    messages = [*HI, {"role": "assistant", **fields}, *HI]
    assert (chat(messages=messages).prompts[0].messages or [])[1] == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "tool"}, "messages[1].content"),
        ({"tool_calls": [{"id": "c"}]}, "messages[1].tool_calls[0].function"),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[1].content[0]"),
    ],
)
def test_a_message_without_anything_to_read_is_refused(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat(messages=[*HI, {"role": "assistant", **fields}])
    assert caught.value.param == param


TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_tools_reach_the_template_unless_they_must_not_be_used() -> None:
    assert chat(tools=[TOOL]).prompts[0].tools == [TOOL]
    assert chat(tools=[TOOL], tool_choice="none").prompts[0].tools is None
    assert chat(tools=[]).prompts[0].tools is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"functions": [{}]}, "functions"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
    ],
)
def test_what_is_not_there_yet_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_what_asks_for_nothing_is_not_refused() -> None:
    job = chat(
        response_format={"type": "text"},
        tool_choice="auto",
        functions=[],
        parallel_tool_calls=True,
        user="me",
        metadata={"a": "b"},
    )
    assert job.api == "chat"
    assert text(suffix="", best_of=1, echo=False).echo is False


def test_an_assistants_last_message_may_be_gone_on_with() -> None:
    messages = [*HI, {"role": "assistant", "content": "Well, "}]
    assert not chat(messages=messages).prompts[0].is_continued
    fields: dict[str, Any] = {"messages": messages, "continue_final_message": True}
    assert chat(**fields).prompts[0].is_continued
    assert chat(**fields, add_generation_prompt=False).prompts[0].is_continued


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"continue_final_message": True}, "continue_final_message"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
    ],
)
def test_nothing_else_can_be_gone_on_with(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_a_suffix_makes_a_gap_after_each_prompt() -> None:
    found = text(prompt=["a", "b"], suffix="z").prompts
    assert found == [Prompt(text="a", suffix="z"), Prompt(text="b", suffix="z")]
    assert text(prompt=[1, 2], suffix="z").prompts == [Prompt(token_ids=[1, 2], suffix="z")]
    assert text(prompt="", suffix="z").prompts == [Prompt(text="", suffix="z")]


def test_a_prompt_can_be_echoed_with_its_log_probabilities() -> None:
    job = text(echo=True, logprobs=3, max_tokens=0)
    assert (job.echo, job.is_prompt_scored, job.max_tokens) == (True, True, 0)
    assert text(prompt=[1, 2], echo=True, logprobs=0).is_prompt_scored
    assert not text(echo=True).is_prompt_scored
    assert not text(logprobs=1).is_prompt_scored


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2], "echo": True}, "echo"),
        ({"apply_chat_template": True, "echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "", "messages": HI, "echo": True}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": False}, "max_tokens"),
    ],
)
def test_what_cannot_be_echoed_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        text(**fields)
    assert caught.value.param == param


def test_an_adapter_is_named_or_not_at_all() -> None:
    assert chat(adapter_name="tuned").adapter == "tuned"
    assert text(adapter_name="").adapter is None
    assert chat().adapter is None


def test_the_number_of_choices_is_bounded_over_all_prompts() -> None:
    assert text(prompt=["a"] * 16, n=16).num_choices == 16
    with pytest.raises(InvalidRequestError, match="256"):
        text(prompt=["a"] * 17, n=16)


@pytest.mark.parametrize("where", ["prompt", "stop"])
def test_half_a_surrogate_pair_is_refused(where: str) -> None:
    fields: dict[str, Any] = {where: "a\udc00"}
    with pytest.raises(InvalidRequestError, match="surrogate"):
        text(**fields)


def test_a_whole_pair_is_a_character() -> None:
    assert text(prompt="\U0001f600").prompts[0].text == "\U0001f600"


def test_tokens_are_counted_of_one_text() -> None:
    def count(**fields: Any) -> Prompt:
        return to_token_count_request(TokenCountBody.model_validate(fields)).prompt

    assert count(prompt="a") == Prompt(text="a")
    assert count(text="a", prompt="") == Prompt(text="a")
    assert count(prompt="") == Prompt(text="")
    assert count(messages=HI, prompt="").messages == [Message("user", "hi")]
