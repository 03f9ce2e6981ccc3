"""From a request to sequences: templates, token ids, limits. Wrong input ends here, by name."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from jobs.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    UnsupportedParameterError,
)
from jobs.events import Event, EventKind
from jobs.requests import GenerateRequest, Message, Prompt
from jobs.sampling import choice_seed
from workers.attempts import Attempt
from workers.echo import Echo
from workers.engines.base import Constraint, Engine, Sequence, Tokenizer
from workers.generation import Choice, GenerationJob
from workers.publisher import Outbox
from workers.text.chat_template import ChatTemplate
from workers.text.grammar import GrammarCompiler
from workers.text.written_text import Marker, has_control_tokens

_sequence_ids = itertools.count(1)


class PromptEncoder:
    """Turns prompts into token ids for one loaded model; may be used from any thread."""

    def __init__(self, tokenizer: Tokenizer, chat_format: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate.choose(
            chat_format, tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token
        )

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, at least one; ``InvalidRequestError`` names what is wrong."""
        if prompt.token_ids is not None:
            return self._check_ids(prompt.token_ids)
        if prompt.messages is not None or prompt.is_chat:
            return self._encode_chat(prompt)
        ids = self._tokenizer.encode(prompt.text or "", add_special=True, parse_special=False)
        if not ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        return ids

    def _encode_chat(self, prompt: Prompt) -> list[int]:
        if prompt.tools and not self._template.has_tools:
            raise UnsupportedParameterError("this model's chat template knows no tools", "tools")
        given = prompt.messages or [Message(role="user", content=prompt.text or "")]
        ids = self._encode_messages([_to_dict(message) for message in given], prompt.tools)
        if not ids:
            raise InvalidRequestError("the chat template makes no prompt of this", "messages")
        return ids

    def _encode_messages(
        self, messages: list[dict[str, object]], tools: list[dict[str, object]] | None
    ) -> list[int]:
        text = self._template.render(messages, tools=tools)
        # The template writes its own BOS where the model wants one.
        if not has_control_tokens(messages, self._tokenizer):
            return self._tokenizer.encode(text, add_special=False, parse_special=True)
        marker = Marker(text)
        marked = self._template.render(marker.mark(messages), tools=tools)
        return marker.encode(marked, self._tokenizer)

    def _check_ids(self, token_ids: list[int]) -> list[int]:
        if not token_ids:
            raise InvalidRequestError("the prompt is empty", "prompt")
        for token_id in token_ids:
            if not 0 <= token_id < self._tokenizer.vocab_size:
                raise InvalidRequestError(f"token {token_id} is not in the vocabulary", "prompt")
        return list(token_ids)


def _to_dict(message: Message) -> dict[str, object]:
    """The message as chat templates read it: plain dicts, ``arguments`` as an object."""
    fields: dict[str, object] = msgspec.to_builtins(message)
    fields.setdefault("content", "")
    return fields


@dataclass(slots=True)
class Logged:
    """What earlier attempts have sent of one choice: it stays as it is.

    ``num_echoed`` counts the parts of the echoed prompt, ``mirostat_mu`` is where mirostat stood.
    """

    token_ids: list[int] = field(default_factory=list)
    is_complete: bool = False
    num_echoed: int = 0
    mirostat_mu: float | None = None

    def take(self, event: Event) -> None:
        """Add the choice's next chunk."""
        self.token_ids += event.token_ids
        self.is_complete = self.is_complete or event.finish_reason is not None
        self.num_echoed += event.prompt is not None
        if event.mirostat_mu is not None:
            self.mirostat_mu = event.mirostat_mu


def logged_choices(events: Iterable[Event]) -> dict[int, Logged]:
    """What a job's log holds, by choice."""
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
    grammars: GrammarCompiler | None = None,
) -> GenerationJob:
    """The job with its open sequences, one per prompt and choice, ready to be admitted.

    Choices go on after the tokens in ``logged``. ``adapter`` is the name on disk of the one that
    the request asks for; ``grammars`` is needed for a request with one. Raises
    ``InvalidRequestError`` (also its context-length kind) before anything has started.
    """
    engine.check(request.sampling)
    prompts = [encoder.encode(prompt) for prompt in request.prompts]
    for ids in prompts:
        _check_length(len(ids), engine.info.context_length)
    job = GenerationJob(
        job_id=attempt.job_id,
        request=request,
        outbox=outbox,
        choices={},
        num_prompt_tokens=sum(len(ids) for ids in prompts),
        queued_s=attempt.queued_s,
        deadline=time.monotonic() + max_run_s,
        num_generated=sum(len(earlier.token_ids) for earlier in logged.values()),
    )
    for index in range(len(prompts) * request.num_choices):
        earlier = logged.get(index, Logged())
        if not earlier.is_complete:
            ids = prompts[index // request.num_choices]
            echo = _echo(request, index, ids, earlier)
            room = engine.info.context_length - len(ids)
            constraint = _constraint(request, earlier, grammars)
            sequence = _sequence(request, index, ids, earlier, room, echo, adapter, constraint)
            is_only_echoed = request.max_tokens == 0
            choice = Choice(index, sequence, request.stop, engine.tokenizer, echo, is_only_echoed)
            choice.replay(earlier.token_ids)
            job.choices[sequence.sequence_id] = choice
    return job


def _echo(request: GenerateRequest, index: int, ids: list[int], earlier: Logged) -> Echo | None:
    """What of the prompt the worker still has to send with its log-probabilities."""
    if not request.is_prompt_scored:
        return None
    echo = Echo(request.prompts[index // request.num_choices].text, ids, earlier.num_echoed)
    return None if echo.is_sent else echo


def _constraint(
    request: GenerateRequest, earlier: Logged, grammars: GrammarCompiler | None
) -> Constraint | None:
    """The request's grammar, at the place that the text has reached."""
    if request.grammar is None:
        return None
    if grammars is None:
        message = f"{request.grammar.param} is not supported here"
        raise UnsupportedParameterError(message, request.grammar.param)
    constraint = grammars.compile(request.grammar)
    for token_id in earlier.token_ids:
        constraint.accept(token_id)
    return constraint


def _sequence(
    request: GenerateRequest,
    index: int,
    prompt: list[int],
    earlier: Logged,
    room: int,
    echo: Echo | None,
    adapter: str | None,
    constraint: Constraint | None,
) -> Sequence:
    max_tokens = room if request.max_tokens is None else min(request.max_tokens, room)
    seed = choice_seed(request.sampling.seed, index)
    return Sequence(
        sequence_id=next(_sequence_ids),
        prompt=prompt + earlier.token_ids,
        # An engine makes one token at least: of a prompt that is only echoed, nobody sees it.
        max_tokens=max(max_tokens, 1) - len(earlier.token_ids),
        sampling=msgspec.structs.replace(request.sampling, seed=seed),
        num_prompt_logprobs=request.sampling.num_logprobs if echo is not None else None,
        mirostat_mu=earlier.mirostat_mu,
        adapter=adapter,
        constraint=constraint,
    )


def _check_length(num_tokens: int, context_length: int) -> None:
    if num_tokens >= context_length:
        raise ContextLengthExceededError(
            f"the prompt has {num_tokens} tokens; this model's context holds {context_length}, "
            "and the answer needs at least one",
            "messages",
        )
