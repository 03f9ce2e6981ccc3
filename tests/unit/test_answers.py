"""Events to OpenAI's answers: stream and whole say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.openai.generation.answers import whole_answer
from api.dialects.openai.generation.chunks import DONE, ChunkEncoder
from jobs.contract.events import Event, EventKind, Timings, TokenLogprob, Usage
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import Sampling


def request(**fields: Any) -> GenerateRequest:
    values = {"prompts": [Prompt(text="P")], "sampling": Sampling(), "model": "demo", **fields}
    return GenerateRequest(**values)


def event(kind: EventKind, **fields: Any) -> Event:
    return Event(job="j", attempt=1, seq=1, kind=kind, t=0.0, **fields)


def chunk(text: str, choice: int = 0, end: str | None = None, **fields: Any) -> Event:
    return event(EventKind.CHUNK, text=text, choice=choice, finish_reason=end, **fields)


STARTED = event(EventKind.STARTED)
FINISHED = event(
    EventKind.FINISHED,
    usage=Usage(4, 2, 1),
    timings=Timings(queue_ms=1.0, ttft_ms=2.0, prefill_ms=500.0, decode_ms=1500.0),
)
USAGE = {
    "prompt_tokens": 4,
    "completion_tokens": 2,
    "total_tokens": 6,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 0},
    "prompt_eval_time": 0.5,
    "generation_time": 1.5,
}


def stream(job: GenerateRequest, *events: Event) -> list[Any]:
    encoder = ChunkEncoder("id-1", 123, job)
    data = b"".join(map(encoder.feed, events))
    assert data.endswith(DONE)
    frames = data.removesuffix(DONE).decode().split("\n\n")[:-1]
    assert all(frame.startswith("data: ") for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason() -> None:
    role, content, finish = stream(request(api="chat"), STARTED, chunk("Hi", end="stop"), FINISHED)
    facts = {
        "id": "id-1",
        "object": "chat.completion.chunk",
        "created": 123,
        "model": "demo",
        "service_tier": "default",
    }
    assert role == {
        **facts,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    assert content["choices"][0]["delta"] == {"content": "Hi"}
    assert content["choices"][0]["finish_reason"] is None
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {"content": ""},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert finish["timings"]["ttft_ms"] == 2.0


def test_usage_comes_in_a_chunk_of_its_own_and_is_null_before() -> None:
    *others, usage = stream(
        request(api="chat", include_usage=True), STARTED, chunk("Hi", end="stop"), FINISHED
    )
    assert [frame["usage"] for frame in others] == [None, None, None]
    assert (usage["choices"], usage["usage"]) == ([], USAGE)
    assert usage["timings"]["queue_ms"] == 1.0
    assert "timings" not in others[-1]


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_complete_text_is_last_with_usage(include_usage: bool) -> None:
    job = request(complete_text=True, include_usage=include_usage, echo=True)
    *_, last = stream(job, STARTED, chunk(" a"), chunk("b", end="stop"), FINISHED)
    assert last["choices"] == [{"index": 0, "text": "", "complete_text": "P ab"}]
    assert last["usage"] == USAGE


def test_an_attempt_that_begins_again_repeats_no_role() -> None:
    frames = stream(
        request(api="chat"), STARTED, chunk("a"), STARTED, chunk("b", end="stop"), FINISHED
    )
    assert sum("role" in frame["choices"][0]["delta"] for frame in frames) == 1


def test_each_choice_has_its_role_text_and_reason() -> None:
    job = request(api="chat", num_choices=2)
    frames = stream(
        job, STARTED, chunk("b", 1, "length"), chunk("a", 0), chunk("", 0, "stop"), FINISHED
    )
    choices = [frame["choices"][0] for frame in frames]
    assert [(c["index"], c["delta"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "", None),
        (1, "", None),
        (1, "b", None),
        (1, "", "length"),
        (0, "a", None),
        (0, "", "stop"),
    ]
    assert ["timings" in frame for frame in frames] == [False] * 5 + [True]


def test_text_streams_have_neither_role_nor_empty_frames() -> None:
    frames = stream(request(), STARTED, chunk(""), chunk("a"), chunk("", end="stop"), FINISHED)
    assert [frame["choices"][0]["text"] for frame in frames] == ["a", ""]
    assert frames[0]["object"] == "text_completion"


def token(text: str) -> TokenLogprob:
    return TokenLogprob(1, text, -0.25, list(text.encode()))


def test_log_probabilities_are_shown_even_while_the_text_is_held_back() -> None:
    frames = stream(
        request(), STARTED, chunk("", logprobs=[token("a")]), chunk("ab", logprobs=[token("b")]),
        chunk("", end="stop"), FINISHED,
    )  # fmt: skip
    first, second = (frame["choices"][0]["logprobs"] for frame in frames[:2])
    assert (first["tokens"], first["text_offset"]) == (["a"], [0])
    assert (second["tokens"], second["text_offset"]) == (["b"], [1])


def test_progress_is_no_chunk() -> None:
    encoder = ChunkEncoder("id", 1, request(api="chat"))
    assert encoder.feed(event(EventKind.PROGRESS, phase="prefill", fraction=0.5)) == b""


@pytest.mark.parametrize("api", ["chat", "text"])
def test_the_whole_answer_says_what_the_stream_said(api: Any) -> None:
    job = request(api=api, num_choices=2, include_usage=True)
    events = [STARTED, chunk("b", 1), chunk("a", 0, "length"), chunk("c", 1, "stop"), FINISHED]
    whole = whole_answer("id-1", 123, job, events)
    frames = stream(job, *events)
    for choice in whole["choices"]:
        parts = [
            frame["choices"][0]
            for frame in frames
            if frame["choices"] and frame["choices"][0]["index"] == choice["index"]
        ]
        shown = choice["message"]["content"] if api == "chat" else choice["text"]
        streamed = [p["delta"]["content"] if api == "chat" else p["text"] for p in parts]
        assert "".join(streamed) == shown
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
    assert whole["usage"] == frames[-1]["usage"] == USAGE
    assert whole["timings"] == frames[-1]["timings"]
    assert whole["object"] == ("chat.completion" if api == "chat" else "text_completion")


def test_timings_have_llama_servers_names_too() -> None:
    events = [STARTED, chunk("a", 0, "stop"), FINISHED]
    timings = whole_answer("id-1", 123, request(), events)["timings"]
    assert (timings["prompt_n"], timings["cache_n"], timings["predicted_n"]) == (3, 1, 2)
    assert (timings["prompt_ms"], timings["predicted_ms"]) == (500.0, 1500.0)
    assert timings["prompt_per_token_ms"] == 500.0 / 3
    assert timings["predicted_per_token_ms"] == 1500.0


def test_text_is_not_escaped_beyond_json() -> None:
    content = 'ä "\\\u2028\x00</script>😀'
    frames = stream(request(), STARTED, chunk(content, end="stop"), FINISHED)
    assert frames[0]["choices"][0]["text"] == content


def echoed(text: str, first: bool = False) -> TokenLogprob:
    return TokenLogprob(1, text, None if first else -1.5, [], [] if first else [other()])


def other() -> TokenLogprob:
    return TokenLogprob(2, "?", -0.5, [])


ECHO_EVENTS = (
    STARTED,
    event(EventKind.CHUNK, text="Once upon", prompt=[echoed("Once", True), echoed(" up")]),
    event(EventKind.CHUNK, text="", prompt=[echoed("on")]),
    chunk(" a", logprobs=[echoed(" a")]),
    chunk("", end="length"),
    FINISHED,
)
ECHO_LOGPROBS = {
    "tokens": ["Once", " up", "on", " a"],
    "token_logprobs": [None, -1.5, -1.5, -1.5],
    "top_logprobs": [
        None,
        {"?": -0.5, " up": -1.5},
        {"?": -0.5, "on": -1.5},
        {"?": -0.5, " a": -1.5},
    ],
    "text_offset": [0, 4, 7, 9],
}


def echo_request(**fields: Any) -> GenerateRequest:
    prompts = [Prompt(text="Once upon")]
    return request(echo=True, prompts=prompts, sampling=Sampling(num_logprobs=1), **fields)


def test_an_echoed_prompts_log_probabilities_come_before_the_answers() -> None:
    answer = whole_answer("id-1", 123, echo_request(), ECHO_EVENTS)
    (choice,) = answer["choices"]
    assert choice["text"] == "Once upon a"
    assert choice["logprobs"] == ECHO_LOGPROBS
    assert choice["finish_reason"] == "length"


def test_a_stream_says_the_same_of_an_echoed_prompt() -> None:
    *chunks, last = stream(echo_request(complete_text=True), *ECHO_EVENTS)
    assert last["choices"][0]["complete_text"] == "Once upon a"
    choices = [frame["choices"][0] for frame in chunks]
    assert "".join(choice["text"] for choice in choices) == "Once upon a"
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    joined = {key: [item for part in logprobs for item in part[key]] for key in ECHO_LOGPROBS}
    assert joined == ECHO_LOGPROBS


def test_a_prompt_that_was_only_echoed_ends_without_a_token() -> None:
    events = (*ECHO_EVENTS[:3], chunk("", end="length"), FINISHED)
    (choice,) = whole_answer("id-1", 123, echo_request(max_tokens=0), events)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Once upon", "length")
    assert choice["logprobs"]["tokens"] == ["Once", " up", "on"]
