"""Jobs that need the tokenizer alone: tokens of texts, texts of tokens, prompts of chats."""

from __future__ import annotations

import pytest

from jobs.contract.errors import InvalidRequestError, UnsupportedParameterError
from jobs.contract.events import Event, EventKind
from jobs.contract.requests import (
    ApplyTemplateRequest,
    DetokenizeRequest,
    Message,
    Prompt,
    TokenCountRequest,
    TokenizeRequest,
)
from tests.helpers.loop_rig import LoopRig, fake_engine
from workers.engines.fake import FakeTokenizer
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder
from workers.generation.text_jobs import TextRequest, answer

TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def run(request: TextRequest) -> Event:
    """The one event that ends the job."""
    tokenizer = FakeTokenizer()
    outbox = Outbox(LoopRig(fake_engine()).publisher, "j", 1, 0)
    answer(request, tokenizer, PromptEncoder(tokenizer, None), outbox)
    (event,) = outbox.take()
    assert event.kind is EventKind.FINISHED
    return event


def test_a_text_becomes_tokens_and_comes_back() -> None:
    tokens = run(TokenizeRequest("é<|im_end|>")).token_ids
    assert tokens == [0xC3, 0xA9, 258]
    assert run(DetokenizeRequest(tokens)).text == "é<|im_end|>"


def test_control_tokens_are_read_unless_they_are_not_to_be() -> None:
    plain = run(TokenizeRequest("<|im_end|>", parse_special=False))
    assert bytes(plain.token_ids) == b"<|im_end|>"
    assert plain.pieces is None


def test_the_pieces_are_each_tokens_bytes() -> None:
    event = run(TokenizeRequest("é<|im_end|>", has_pieces=True))
    assert event.pieces == [b"\xc3", b"\xa9", b"<|im_end|>"]


def test_half_a_character_is_shown_as_one_that_is_broken() -> None:
    assert run(DetokenizeRequest([97, 0xC3])).text == "a\ufffd"
    assert run(DetokenizeRequest([])).text == ""


@pytest.mark.parametrize("token_id", [-1, 272, 2**31])
def test_a_token_outside_the_vocabulary_is_refused_by_name(token_id: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(DetokenizeRequest([97, token_id]))
    assert caught.value.param == "tokens"


def test_a_chat_becomes_the_text_that_the_model_reads() -> None:
    prompt = Prompt(messages=[Message("user", "hi")])
    whole = run(ApplyTemplateRequest(prompt)).text
    begun = run(ApplyTemplateRequest(prompt, add_generation_prompt=False)).text
    assert begun == "<|im_start|>user\nhi<|im_end|>\n"
    assert whole == begun + "<|im_start|>assistant\n"
    assert run(ApplyTemplateRequest(Prompt(text="hi", is_chat=True))).text == whole


def test_tools_that_a_template_does_not_know_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        run(ApplyTemplateRequest(Prompt(text="hi", is_chat=True, tools=[TOOL])))
    assert caught.value.param == "tools"


def test_a_count_counts() -> None:
    assert run(TokenCountRequest(Prompt(text="abc"))).num_tokens == 3
