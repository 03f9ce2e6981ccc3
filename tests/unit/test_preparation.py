"""From requests to sequences: limits, wrong input by its name, and going on after a cut."""

from __future__ import annotations

import pytest

from jobs.contract.errors import (
    ContextLengthExceededError,
    GrammarError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.contract.events import Event, EventKind, TokenLogprob
from jobs.contract.requests import GenerateRequest, Message, Prompt
from jobs.contract.sampling import choice_seed
from tests.helpers.grammars import LETTERS, RUNS_FULL
from tests.helpers.loop_rig import LoopRig, fake_engine
from tests.helpers.samples import event, generate
from workers.engines.base import PromptLogprobs
from workers.engines.fake import FakeTokenizer
from workers.generation.attempts import Attempt
from workers.generation.echo import CHUNK_TOKENS
from workers.generation.job import GenerationJob
from workers.generation.outbox import Outbox
from workers.generation.preparation import Logged, build_job, logged_choices
from workers.generation.prompts import PromptEncoder
from workers.markup.output_format import OutputFormats

PLAIN_TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
TOOL_TEMPLATE = "{% if tools %}[{{ tools | length }}]{% endif %}" + PLAIN_TEMPLATE
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


class TemplateTokenizer(FakeTokenizer):
    def __init__(self, template: str | None) -> None:
        self.chat_templates = {} if template is None else {"default": template}


def encoder(template: str | None = PLAIN_TEMPLATE) -> PromptEncoder:
    return PromptEncoder(TemplateTokenizer(template), None)


def build(
    request: GenerateRequest,
    logged: dict[int, Logged] | None = None,
    context_length: int = 100,
    ran_s: float = 0.0,
) -> GenerationJob:
    engine = fake_engine(context_length=context_length)
    outbox = Outbox(LoopRig(engine).publisher, "j", 1, 0)
    attempt = Attempt("j", 1, 0, b"", 1.5, ran_s=ran_s)
    return build_job(attempt, request, logged or {}, outbox, engine, encoder(), 60.0)


def test_the_time_that_a_job_may_run_is_that_of_all_its_attempts() -> None:
    first, second = build(generate("x")), build(generate("x"), ran_s=59.0)
    assert 50.0 < first.deadline - second.deadline < 60.0
    assert build(generate("x"), ran_s=3600.0).deadline < first.deadline - 60.0


def test_control_tokens_of_a_text_act() -> None:
    assert encoder().encode(Prompt(text="<|im_start|>é")) == [257, *"é".encode()]


class BosTokenizer(FakeTokenizer):
    """Puts a BOS before what a client gives."""

    bos_token = "<|endoftext|>"

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        ids = super().encode(text, add_special=add_special, parse_special=parse_special)
        return [256, *ids] if add_special else ids


def test_a_bos_that_a_text_begins_with_is_not_doubled() -> None:
    encode = PromptEncoder(BosTokenizer(), None).encode
    assert encode(Prompt(text="a")) == [256, 97]
    assert encode(Prompt(text="<|endoftext|>a")) == [256, 97]
    assert encode(Prompt(text="<|endoftext|>")) == [256]
    assert encode(Prompt(text="<|endoftext|><|endoftext|>a")) == [256, 256, 97]


def test_a_chat_goes_through_the_template() -> None:
    messages = [Message("user", "hi"), Message("assistant", None)]
    assert bytes(encoder().encode(Prompt(messages=messages))) == b"user:hi;assistant:;"
    assert bytes(encoder().encode(Prompt(text="hi", is_chat=True))) == b"user:hi;"


def test_a_models_control_tokens_are_read_in_a_template() -> None:
    ids = encoder("<|im_start|>{{ messages[0].content }}").encode(Prompt(text="x", is_chat=True))
    assert ids == [257, ord("x")]


def test_tools_reach_a_template_that_knows_them() -> None:
    prompt = Prompt(text="hi", is_chat=True, tools=[TOOL])
    assert bytes(encoder(TOOL_TEMPLATE).encode(prompt)) == b"[1]user:hi;"


def test_tools_are_refused_by_name_where_the_template_knows_none() -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        encoder().encode(Prompt(text="hi", is_chat=True, tools=[TOOL]))
    assert caught.value.param == "tools"


OPEN = [Message("user", "hi"), Message("assistant", "Well, ")]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_an_answer_may_go_on_where_the_last_message_ends() -> None:
    prompt = Prompt(messages=OPEN, is_continued=True)
    assert bytes(encoder().encode(prompt)) == b"user:hi;assistant:Well, "
    ids = encoder(CHATML).encode(prompt)
    assert ids[-len("assistant\nWell, ") - 1 :] == [257, *b"assistant\nWell, "]


THINKING = CHATML.replace("\n{% endif %}", "\n{% if quick %}-{% endif %}{% endif %}")


def num_opening(prompt: Prompt, template: str = THINKING) -> int | None:
    made = encoder(template)
    return made.num_opening(prompt, made.encode(prompt))


def test_the_tokens_that_open_a_chats_answer_are_counted() -> None:
    assert num_opening(Prompt(text="hi", is_chat=True)) == 1 + len("assistant\n")
    assert num_opening(Prompt(messages=OPEN)) == 1 + len("assistant\n")


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(text="<|im_start|>assistant\n"),
        Prompt(messages=OPEN, is_continued=True),
        Prompt(token_ids=[1, 2], is_chat=True),
        Prompt(text="hi", is_chat=True, template_options={"quick": True}),
    ],
)
def test_the_opening_of_other_prompts_is_unknown(prompt: Prompt) -> None:
    assert num_opening(prompt) is None


def test_the_opening_of_a_template_that_opens_nothing_is_unknown() -> None:
    assert num_opening(Prompt(text="hi", is_chat=True), PLAIN_TEMPLATE) is None


def test_a_sequence_knows_its_opening_and_counts_what_an_earlier_attempt_has_sent() -> None:
    request = generate(prompts=[Prompt(text="hi", is_chat=True)])
    engine = fake_engine(context_length=100)
    outbox = Outbox(LoopRig(engine).publisher, "j", 1, 0)
    attempt = Attempt("j", 1, 0, b"", 1.5)
    for logged in ([], [5, 6, 7]):
        earlier = {0: Logged(token_ids=logged)}
        job = build_job(attempt, request, earlier, outbox, engine, encoder(CHATML), 60.0)
        (choice,) = job.choices.values()
        assert choice.sequence.num_opening == 1 + len("assistant\n") + len(logged)


@pytest.mark.parametrize("attack", ["a<|im_end|>b", "\ufdd0", "x\ufdd0<|im_end|>"])
def test_what_goes_on_may_hold_anything(attack: str) -> None:
    messages = [Message("user", attack), Message("assistant", attack)]
    ids = encoder(CHATML).encode(Prompt(messages=messages, is_continued=True))
    assert bytes(i for i in ids if i < 256).decode().endswith(f"assistant\n{attack}")
    assert [i for i in ids if i > 255] == [257, 258, 257]


def test_a_template_that_hides_the_last_message_cannot_go_on() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encoder("{{ messages[0].content }}").encode(Prompt(messages=OPEN, is_continued=True))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("prompt", [Prompt(text=""), Prompt(token_ids=[])])
def test_an_empty_prompt_is_refused(prompt: Prompt) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        encoder().encode(prompt)
    assert caught.value.param == "prompt"


def test_a_chat_that_renders_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        encoder("{{ '' }}").encode(Prompt(text="hi", is_chat=True))


@pytest.mark.parametrize("token_id", [-1, 272, 2**40])
def test_a_token_outside_the_vocabulary_is_named(token_id: int) -> None:
    with pytest.raises(InvalidRequestError, match=str(token_id)) as caught:
        encoder().encode(Prompt(token_ids=[1, token_id]))
    assert caught.value.param == "prompt"


def test_token_ids_are_taken_as_they_are() -> None:
    assert encoder().encode(Prompt(token_ids=[271, 0])) == [271, 0]


def test_every_prompt_gets_its_choices_with_seeds_of_their_own() -> None:
    prompts = [Prompt(text="a"), Prompt(text="bb")]
    job = build(generate(prompts=prompts, num_choices=3, sampling={"seed": 9}))
    choices = list(job.choices.values())
    assert [choice.index for choice in choices] == list(range(6))
    assert [len(choice.sequence.prompt) for choice in choices] == [1, 1, 1, 2, 2, 2]
    assert [choice.sequence.sampling.seed for choice in choices] == [
        choice_seed(9, index) for index in range(6)
    ]
    assert job.num_prompt_tokens == 3
    assert job.usage.completion_tokens == 0


@pytest.mark.parametrize(("asked", "given"), [(None, 90), (5, 5), (90, 90), (1000, 90)])
def test_an_answer_has_the_room_that_the_context_leaves(asked: int | None, given: int) -> None:
    (choice,) = build(generate("x" * 10, asked)).choices.values()
    assert choice.sequence.max_tokens == given


def test_a_prompt_may_leave_room_for_one_token_and_not_for_none() -> None:
    (choice,) = build(generate("x" * 99, None)).choices.values()
    assert choice.sequence.max_tokens == 1
    with pytest.raises(ContextLengthExceededError, match="100"):
        build(generate("x" * 100, None))
    with pytest.raises(ContextLengthExceededError):
        build(generate(prompts=[Prompt(text="x"), Prompt(text="x" * 200)]))


def test_what_the_engine_cannot_honour_is_refused_before_it_starts() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        build(generate(sampling={"logit_bias": {272: 1.0}}))
    assert caught.value.param == "logit_bias"


def chunk(seq: int, choice: int, token_ids: list[int], reason: str | None = None) -> Event:
    return event(seq=seq, choice=choice, token_ids=token_ids, finish_reason=reason)


def test_the_log_tells_each_choices_tokens_over_all_attempts() -> None:
    events = [
        event(EventKind.STARTED, 1),
        chunk(2, 0, [1, 2]),
        chunk(3, 1, [9]),
        event(EventKind.STARTED, 4, attempt=2),
        chunk(5, 0, [3], "stop"),
        event(EventKind.PROGRESS, 6, attempt=2),
    ]
    assert logged_choices(events) == {
        0: Logged([1, 2, 3], is_complete=True),
        1: Logged([9], is_complete=False),
    }


def test_a_choice_goes_on_after_its_logged_tokens() -> None:
    logged = {0: Logged([48, 49], is_complete=False)}
    job = build(generate("x" * 10, 20), logged)
    (choice,) = job.choices.values()
    assert choice.sequence.prompt == [120] * 10 + [48, 49]
    assert choice.sequence.max_tokens == 18
    assert choice.num_tokens == 2
    assert (job.num_prompt_tokens, job.usage.completion_tokens) == (10, 2)


def test_a_choice_that_was_complete_does_not_run_again() -> None:
    logged = {0: Logged([48], is_complete=True)}
    job = build(generate(num_choices=2), logged)
    assert [choice.index for choice in job.choices.values()] == [1]
    both = {**logged, 1: Logged([48, 49], is_complete=True)}
    job = build(generate(num_choices=2), both)
    assert job.choices == {}
    assert job.usage.completion_tokens == 3


def test_a_choice_cut_at_its_very_last_token_has_room_for_it() -> None:
    """A logged choice without a reason has at least one token to go: both are one event."""
    logged = {0: Logged([48] * 19, is_complete=False)}
    (choice,) = build(generate("x" * 10, 20), logged).choices.values()
    assert choice.sequence.max_tokens == 1


def test_mirostat_goes_on_from_the_last_value_in_the_log() -> None:
    events = [
        event(seq=1, choice=0, token_ids=[1], mirostat_mu=9.5),
        event(seq=2, choice=1, token_ids=[2]),
        event(seq=3, choice=0, token_ids=[3], mirostat_mu=0.0),
        event(seq=4, choice=0, token_ids=[]),
    ]
    logged = logged_choices(events)
    assert logged[0] == Logged([1, 3], mirostat_mu=0.0)
    assert logged[1] == Logged([2])
    job = build(generate("x" * 10, 20, num_choices=2), logged)
    assert [c.sequence.mirostat_mu for c in job.choices.values()] == [0.0, None]


def scored(text: str = "x" * 10, max_tokens: int | None = 20, **fields: object) -> GenerateRequest:
    return generate(text, max_tokens, echo=True, sampling={"num_logprobs": 2}, **fields)


def test_a_prompt_is_scored_when_it_is_echoed_with_log_probabilities() -> None:
    def num_asked(request: GenerateRequest) -> int | None:
        (choice,) = build(request).choices.values()
        return choice.sequence.num_prompt_logprobs

    assert num_asked(scored()) == 2
    assert num_asked(generate(echo=True)) is None
    assert num_asked(generate(sampling={"num_logprobs": 2})) is None


def test_a_prompt_that_was_echoed_is_not_scored_again() -> None:
    whole = event(seq=1, choice=0, prompt=[TokenLogprob(120, "x", None)])
    (choice,) = build(scored(), logged_choices([whole])).choices.values()
    assert choice.sequence.num_prompt_logprobs is None


def test_a_prompt_that_was_echoed_in_part_is_scored_again() -> None:
    part = event(seq=1, choice=0, prompt=[TokenLogprob(120, "x", None)] * CHUNK_TOKENS)
    text = "x" * (CHUNK_TOKENS + 10)
    job = build(scored(text), logged_choices([part]), context_length=999)
    (choice,) = job.choices.values()
    assert choice.sequence.num_prompt_logprobs == 2
    entries = PromptLogprobs(1, ((-1.0, ()),) * (len(text) - 1))
    assert [len(tokens) for _, tokens in choice.echo(entries)] == [10]


def test_a_prompt_that_is_only_echoed_needs_one_token_that_nobody_sees() -> None:
    (choice,) = build(scored(max_tokens=0)).choices.values()
    assert (choice.is_only_echoed, choice.sequence.max_tokens) == (True, 1)


def test_a_choice_whose_grammar_breaks_down_in_what_was_said_ends_by_name() -> None:
    """As of a worker that was killed between the token and the end that it made."""
    request = generate("x" * 10, None, grammar=RUNS_FULL)
    engine = fake_engine(context_length=1000)
    outbox = Outbox(LoopRig(engine).publisher, "j", 1, 0)
    attempt = Attempt("j", 2, 1, b"", 1.5)
    logged = {0: Logged(list(LETTERS))}
    formats = OutputFormats(engine.tokenizer, PLAIN_TEMPLATE)
    with pytest.raises(GrammarError) as caught:
        build_job(attempt, request, logged, outbox, engine, encoder(), 60.0, formats=formats)
    assert caught.value.param == "grammar"
