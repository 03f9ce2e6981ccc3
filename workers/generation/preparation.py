"""Builds the sequences of a request and checks its input: templates, token ids, limits."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from jobs.contract.errors import (
    ContextLengthExceededError,
    UnsupportedParameterError,
    deadline_passed,
)
from jobs.contract.events import Event, EventKind
from jobs.contract.requests import GenerateRequest, Prompt
from jobs.contract.sampling import choice_seed
from workers.engines.base import Constraint, Engine, Sequence
from workers.generation.attempts import Attempt
from workers.generation.echo import Echo
from workers.generation.ends import Ends, with_min_length
from workers.generation.job import Choice, GenerationJob
from workers.generation.outbox import Outbox
from workers.generation.prompts import PromptEncoder
from workers.markup.output_format import OutputFormat, OutputFormats

_sequence_ids = itertools.count(1)


@dataclass(slots=True)
class Logged:
    """What earlier attempts have sent of one choice; it will not change.

    ``num_echoed``: chunks of the echoed prompt. ``num_reasoning``: tokens of the reasoning.
    ``mirostat_mu``: ``mu`` after the last token.
    """

    token_ids: list[int] = field(default_factory=list)
    is_complete: bool = False
    num_echoed: int = 0
    num_reasoning: int = 0
    mirostat_mu: float | None = None

    def take(self, event: Event) -> None:
        """Add the choice's next chunk event."""
        self.token_ids += event.token_ids
        self.is_complete = self.is_complete or event.finish_reason is not None
        self.num_echoed += event.prompt is not None
        self.num_reasoning += len(event.token_ids) if event.reasoning else 0
        if event.mirostat_mu is not None:
            self.mirostat_mu = event.mirostat_mu


class _Encoded(NamedTuple):
    """A prompt's tokens; for ``num_opening`` see ``Sequence``."""

    ids: list[int]
    num_opening: int | None


def logged_choices(events: Iterable[Event]) -> dict[int, Logged]:
    """The chunks of a job's log, by choice."""
    found: dict[int, Logged] = defaultdict(Logged)
    for event in events:
        if event.kind is EventKind.CHUNK:
            found[event.choice].take(event)
    return dict(found)


def build_job(
    attempt: Attempt,
    request: GenerateRequest,
    logged: dict[int, Logged],
    outbox: Outbox,
    engine: Engine,
    encoder: PromptEncoder,
    max_run_s: float,
    adapter: str | None = None,
    formats: OutputFormats | None = None,
) -> GenerationJob:
    """The job with its open sequences, one per prompt and choice, ready to be admitted.

    Choices continue after the tokens in ``logged``. ``adapter``: name on disk of the requested
    adapter. ``formats``: needed if the request is for more than plain text. Raises
    ``InvalidRequestError`` or its subclasses before anything has started.
    """
    engine.check(request.sampling)
    if attempt.left_s is not None and attempt.left_s <= 0:
        raise deadline_passed()
    prompts = [_encoded(encoder, prompt, request) for prompt in request.prompts]
    for prompt in prompts:
        _check_length(len(prompt.ids), engine.info.context_length)
    num_logged = sum(len(earlier.token_ids) for earlier in logged.values())
    job = GenerationJob(
        job_id=attempt.job_id,
        request=request,
        outbox=outbox,
        choices={},
        prompt_lengths=[len(prompt.ids) for prompt in prompts],
        queued_s=attempt.queued_s,
        deadline=time.monotonic() + _left_s(attempt, max_run_s),
        job_class=attempt.job_class,
        caller=attempt.caller,
        weight=attempt.weight,
        num_yields=attempt.yields,
        num_generated=num_logged,
        num_logged=num_logged,
    )
    for index in range(len(prompts) * request.num_choices):
        earlier = logged.get(index, Logged())
        job.num_reasoning += earlier.num_reasoning
        if not earlier.is_complete:
            prompt = prompts[index // request.num_choices]
            choice = _choice(attempt, request, index, prompt, earlier, engine, adapter, formats)
            job.choices[choice.sequence.sequence_id] = choice
    return job


def _left_s(attempt: Attempt, max_run_s: float) -> float:
    """How long the job may run on. Where it gave way to others, only this attempt counts."""
    run_s = max_run_s if attempt.yields else max_run_s - attempt.ran_s
    return run_s if attempt.left_s is None else min(run_s, attempt.left_s)


def _choice(
    attempt: Attempt,
    request: GenerateRequest,
    index: int,
    prompt: _Encoded,
    earlier: Logged,
    engine: Engine,
    adapter: str | None,
    formats: OutputFormats | None,
) -> Choice:
    """The choice, in the state after the tokens of ``earlier``."""
    ids = prompt.ids
    tools = request.prompts[index // request.num_choices].tools
    output_format = _output_format(request, ids, tools, formats)
    constraint = output_format.new_constraint() if output_format is not None else None
    constraint = with_min_length(request, constraint, engine.tokenizer)
    if constraint is not None:
        for token_id in earlier.token_ids:
            constraint.accept(token_id)
    echo = _echo(request, index, ids, earlier)
    room = engine.info.context_length - len(ids)
    sequence = _sequence(request, index, prompt, earlier, room, echo, adapter, constraint)
    answer_id = f"{attempt.job_id}:{index}"
    reader = output_format.reader(answer_id) if output_format is not None else None
    is_only_echoed = request.max_tokens == 0
    choice = Choice(
        index,
        sequence,
        request.stop,
        engine.tokenizer,
        echo,
        is_only_echoed,
        reader,
        Ends.of(request),
    )
    choice.replay(earlier.token_ids)
    return choice


def _output_format(
    request: GenerateRequest,
    ids: list[int],
    tools: list[dict[str, Any]] | None,
    formats: OutputFormats | None,
) -> OutputFormat | None:
    """How the answers are read and constrained; ``None``: unconstrained plain text."""
    is_plain = request.grammar is None and request.tool_use is None
    if is_plain and not request.is_reasoning_split:
        return None
    if formats is None:
        param = request.grammar.param if request.grammar else "tools"
        raise UnsupportedParameterError(f"{param} is not supported here", param)
    return formats.of(request, ids, tools or [])


def _echo(request: GenerateRequest, index: int, ids: list[int], earlier: Logged) -> Echo | None:
    """The echo of the prompt; ``None`` if not requested or already sent."""
    if not request.is_prompt_scored:
        return None
    echo = Echo(request.prompts[index // request.num_choices].text, ids, earlier.num_echoed)
    return None if echo.is_sent else echo


def _sequence(
    request: GenerateRequest,
    index: int,
    prompt: _Encoded,
    earlier: Logged,
    room: int,
    echo: Echo | None,
    adapter: str | None,
    constraint: Constraint | None,
) -> Sequence:
    max_tokens = room if request.max_tokens is None else min(request.max_tokens, room)
    seed = choice_seed(request.sampling.seed, index)
    num_logged = len(earlier.token_ids)
    return Sequence(
        sequence_id=next(_sequence_ids),
        prompt=prompt.ids + earlier.token_ids,
        # An engine generates at least one token; if the prompt is only echoed, it is not shown.
        max_tokens=max(max_tokens, 1) - num_logged,
        sampling=msgspec.structs.replace(request.sampling, seed=seed),
        num_prompt_logprobs=request.sampling.num_logprobs if echo is not None else None,
        mirostat_mu=earlier.mirostat_mu,
        adapter=adapter,
        constraint=constraint,
        num_opening=None if prompt.num_opening is None else prompt.num_opening + num_logged,
    )


def _encoded(encoder: PromptEncoder, prompt: Prompt, request: GenerateRequest) -> _Encoded:
    ids = _cut(encoder.encode(prompt), request)
    return _Encoded(ids, encoder.num_opening(prompt, ids))


def _cut(ids: list[int], request: GenerateRequest) -> list[int]:
    """The prompt's last tokens, as many as the request wants."""
    return ids if request.truncate_prompt_tokens is None else ids[-request.truncate_prompt_tokens :]


def _check_length(num_tokens: int, context_length: int) -> None:
    if num_tokens >= context_length:
        raise ContextLengthExceededError(
            f"the prompt has {num_tokens} tokens; this model's context holds {context_length}, "
            "and the answer needs at least one",
            "messages",
        )
