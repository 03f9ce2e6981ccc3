"""llama-server's own completions: its fields under our names, its answers, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from api.dialects.llama_server.answers import NativeEncoder, NativeView
from api.dialects.llama_server.schema import InfillBody, NativeCompletion, NativeCompletionBody
from api.dialects.llama_server.translate import to_native_request
from api.execution.shapes import Shape
from jobs.contract.errors import InvalidRequestError
from jobs.contract.events import Event, EventKind, PromptUsage, Timings, TokenLogprob, Usage
from jobs.contract.grammars import Grammar, GrammarKind
from jobs.contract.requests import GenerateRequest, GenerationDefaults, Prompt, View
from tests.helpers.samples import event

NONE = GenerationDefaults()


def to_job(**fields: Any) -> GenerateRequest:
    return to_native_request(NativeCompletionBody(**{"prompt": "x", **fields}), NONE, "m")


def infill(**fields: Any) -> GenerateRequest:
    return to_native_request(InfillBody(**fields), NONE, "m")


def test_absent_means_off_and_no_limit() -> None:
    job = to_job()
    assert job.prompts == [Prompt(text="x")]
    assert (job.max_tokens, job.stop, job.stream, job.model) == (None, [], False, "m")
    assert (job.sampling.temperature, job.sampling.top_k) == (1.0, 0)
    assert job.sampling.num_logprobs is None
    assert to_job(n_predict=-1).max_tokens is None


def test_each_field_has_its_place() -> None:
    job = to_job(
        n_predict=7, stop=["a"], seed=5, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1,
        repeat_penalty=1.1, repeat_last_n=64, presence_penalty=0.2, frequency_penalty=0.3,
        mirostat=2, mirostat_tau=4.0, mirostat_eta=0.2, logit_bias=[[5, 1.5], [6, False]],
        grammar='root ::= "a"', n_probs=4, stream=True, cache_prompt=True, id_slot=3,
    )  # fmt: skip
    sampling = job.sampling
    assert (job.max_tokens, job.stop, job.stream) == (7, ["a"], True)
    assert (sampling.seed, sampling.temperature, sampling.top_k) == (5, 0.5, 3)
    assert (sampling.repetition_penalty, sampling.repetition_context_size) == (1.1, 64)
    assert (sampling.mirostat_mode, sampling.mirostat_tau, sampling.mirostat_eta) == (2, 4.0, 0.2)
    assert sampling.logit_bias == {5: 1.5, 6: -100.0}
    assert sampling.num_logprobs == 4
    assert job.grammar == Grammar(GrammarKind.GBNF, 'root ::= "a"', "grammar")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2], [Prompt(token_ids=[1, 2])]),
        (["a", [1], {"prompt_string": "b"}],
         [Prompt(text="a"), Prompt(token_ids=[1]), Prompt(text="b")]),
        ({"prompt_string": "a"}, [Prompt(text="a")]),
    ],
)  # fmt: skip
def test_a_prompt_has_many_shapes(given: Any, expected: list[Prompt]) -> None:
    assert to_job(prompt=given).prompts == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": ["a"] * 257}, "prompt"),
        ({"prompt": {"prompt_string": "a", "multimodal_data": "b"}}, "prompt.multimodal_data"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"lora": [{"id": 0, "scale": 1.0}]}, "lora"),
        ({"grammar": "root ::= a", "json_schema": {}}, "grammar"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        to_job(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("biases", [[["a", 1]], [[5, "x"]], {"a": 1}, [5]])
def test_a_bias_of_no_token_is_refused(biases: Any) -> None:
    with pytest.raises(ValidationError, match="logit_bias"):
        to_job(logit_bias=biases)


def test_what_asks_for_nothing_is_taken() -> None:
    job = to_job(
        dry_multiplier=0.0, xtc_probability=0.0, seed=-1, top_k=-1, t_max_predict_ms=0, grammar="",
        lora=[], post_sampling_probs=False, stop=["", ""], json_schema=None,
    )  # fmt: skip
    assert job.sampling.top_k == 0
    assert (job.predict_limit_ms, job.grammar, job.stop) == (None, None, [])


def test_a_time_limit_and_no_tokens_are_honoured() -> None:
    job = to_job(n_predict=0, t_max_predict_ms=1)
    assert (job.max_tokens, job.predict_limit_ms) == (0, 1)


def test_a_gap_is_between_prefix_and_suffix() -> None:
    extra = [{"filename": "a.h", "text": "int a;"}]
    job = infill(input_prefix="p\n", prompt="q", input_suffix="s", input_extra=extra)
    assert job.prompts == [Prompt(text="a.h\nint a;\np\nq", suffix="s")]
    assert infill().prompts == [Prompt(text="", suffix="")]


def chunk(text: str, *tokens: int, choice: int = 0, **fields: Any) -> Event:
    return event(EventKind.CHUNK, text=text, token_ids=list(tokens), choice=choice, **fields)


FINISHED = event(EventKind.FINISHED, usage=Usage(9, 3, 4), timings=Timings(decode_ms=10.0))


def whole(
    job: GenerateRequest,
    *events: Event,
    has_tokens: bool = False,
    fields: Any = (),
    end: Event = FINISHED,
) -> Any:
    view = View(Shape.NATIVE, has_tokens=has_tokens, fields=list(fields))
    return json.loads(NativeView(replace(job, view=view)).whole([*events, end]))


def frames(job: GenerateRequest, *events: Event, end: Event = FINISHED) -> list[Any]:
    encoder = NativeEncoder(NativeView(job))
    data = b"".join(encoder.feed(one) for one in (*events, end)).decode()
    assert "[DONE]" not in data
    return [json.loads(line.removeprefix("data: ")) for line in data.split("\n\n") if line]


def test_a_whole_answer_is_one_object() -> None:
    found = whole(to_job(n_predict=3), chunk("a\n", 1, 2), chunk("b", 3, finish_reason="length"))
    assert (found["content"], found["tokens"], found["stop"]) == ("a\nb", [], True)
    assert (found["stop_type"], found["has_new_line"], found["prompt"]) == ("limit", True, "x")
    assert (found["tokens_predicted"], found["tokens_evaluated"], found["tokens_cached"]) == (
        3,
        9,
        4,
    )
    assert (found["timings"]["predicted_n"], found["timings"]["prompt_n"]) == (3, 5)
    assert found["generation_settings"]["n_predict"] == 3
    assert "completion_probabilities" not in found


def test_several_prompts_are_a_list() -> None:
    job = to_job(prompt=["x", [7]])
    found = whole(job, chunk("b", 2, choice=1), chunk("a", 1), has_tokens=True)
    assert [(one["index"], one["content"], one["tokens"]) for one in found] == [
        (0, "a", [1]),
        (1, "b", [2]),
    ]
    assert found[1]["prompt"] == [7]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"finish_reason": "stop"}, ("eos", "")),
        ({"finish_reason": "stop", "stop": "z"}, ("word", "z")),
        ({"finish_reason": "length"}, ("limit", "")),
        ({}, ("none", "")),
    ],
)
def test_what_stopped_a_text_is_told_whole_and_streamed(
    fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    job = to_job(stop=["y", "z"])
    whole_one = whole(job, chunk("a", 1, **fields))
    *_, streamed = frames(job, chunk("a", 1, **fields))
    for shown in (whole_one, streamed):
        assert (shown["stop_type"], shown["stopping_word"]) == expected
        assert NativeCompletion.model_validate(shown).stop_type == expected[0]


def test_each_prompt_has_its_own_counts() -> None:
    job = to_job(prompt=["x", [7]])
    texts = (chunk("a", 1, finish_reason="stop"), chunk("b", 2, choice=1, finish_reason="length"))
    parts = [PromptUsage(6, 4), PromptUsage(3)]
    end = event(EventKind.FINISHED, usage=Usage(9, 2, 4, prompts=parts))
    streamed = frames(job, *texts, end=end)[-2:]
    for shown in (whole(job, *texts, end=end), streamed):
        assert [(one["tokens_evaluated"], one["tokens_cached"]) for one in shown] == [
            (6, 4),
            (3, 0),
        ]
        assert [one["stop_type"] for one in shown] == ["eos", "limit"]


def test_fields_can_be_chosen() -> None:
    fields = ["content", "generation_settings/n_predict", "none", "content/x"]
    assert whole(to_job(n_predict=3), chunk("a", 1), fields=fields) == {
        "content": "a",
        "generation_settings/n_predict": 3,
    }


def test_a_stream_ends_with_the_facts() -> None:
    end = chunk("b", 3, finish_reason="stop", stop="z")
    *chunks, last = frames(to_job(stop=["y", "z"]), chunk("a", 1), chunk("", 2), end)
    assert [(one["content"], one["tokens"], one["stop"]) for one in chunks] == [
        ("a", [1], False), ("", [2], False), ("b", [3], False),
    ]  # fmt: skip
    assert (last["content"], last["stop"]) == ("", True)
    assert (last["stop_type"], last["stopping_word"]) == ("word", "z")
    assert last["tokens_predicted"] == 3


def test_probabilities_come_one_token_at_a_time() -> None:
    logprobs = [TokenLogprob(1, "a", -0.5, [97], [TokenLogprob(1, "a", -0.5, [97])])]
    logprobs.append(TokenLogprob(2, "b", -1.0, [98]))
    first, second, _ = frames(to_job(n_probs=1), chunk("ab", 1, 2, logprobs=logprobs))
    assert (first["tokens"], first["content"]) == ([1], "")
    assert (second["tokens"], second["content"]) == ([2], "ab")
    entry = {"id": 1, "token": "a", "bytes": [97], "logprob": -0.5}
    assert first["completion_probabilities"] == [{**entry, "top_logprobs": [entry]}]
    found = whole(to_job(n_probs=1), chunk("ab", 1, 2, logprobs=logprobs))
    assert [one["id"] for one in found["completion_probabilities"]] == [1, 2]
