"""From a request to sequences: templates, token ids, limits. Wrong input ends here, by name."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

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
from workers.chat_template import ChatTemplate
from workers.engines.base import Engine, Sequence, Tokenizer
from workers.generation import Choice, GenerationJob
from workers.publisher import Outbox

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
        messages = prompt.messages or [Message(role="user", content=prompt.text or "")]
        text = self._template.render([_to_dict(m) for m in messages], tools=prompt.tools)
        # The template writes its own BOS where the model wants one.
        ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        if not ids:
            raise InvalidRequestError("the chat template makes no prompt of this", "messages")
        return ids

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


@dataclass(frozen=True, slots=True)
class Logged:
    """What earlier attempts have sent of one choice: it never changes any more."""

    token_ids: list[int]
    is_complete: bool


def logged_choices(events: Iterable[Event]) -> dict[int, Logged]:
    """The tokens in a job's log, by choice."""
    token_ids: dict[int, list[int]] = defaultdict(list)
    complete = set()
    for event in events:
        if event.kind is EventKind.CHUNK:
            token_ids[event.choice] += event.token_ids
            if event.finish_reason is not None:
                complete.add(event.choice)
    return {choice: Logged(ids, choice in complete) for choice, ids in token_ids.items()}


def build_job(
    attempt: Attempt,
    request: GenerateRequest,
    logged: dict[int, Logged],
    outbox: Outbox,
    engine: Engine,
    encoder: PromptEncoder,
    max_run_s: float,
) -> GenerationJob:
    """The job with its open sequences, one per prompt and choice, ready to be admitted.

    Choices go on after the tokens in ``logged``. Raises ``InvalidRequestError`` (also its
    context-length kind) before anything has started.
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
        earlier = logged.get(index, Logged([], is_complete=False))
        if not earlier.is_complete:
            choice = _choice(index, prompts[index // request.num_choices], earlier, job, engine)
            job.choices[choice.sequence.sequence_id] = choice
    return job


def _choice(
    index: int, prompt: list[int], earlier: Logged, job: GenerationJob, engine: Engine
) -> Choice:
    request = job.request
    room = engine.info.context_length - len(prompt)
    seed = choice_seed(request.sampling.seed, index)
    sequence = Sequence(
        sequence_id=next(_sequence_ids),
        prompt=prompt + earlier.token_ids,
        max_tokens=min(request.max_tokens or room, room) - len(earlier.token_ids),
        sampling=msgspec.structs.replace(request.sampling, seed=seed),
    )
    choice = Choice(index, sequence, request.stop, engine.tokenizer)
    choice.replay(earlier.token_ids)
    return choice


def _check_length(num_tokens: int, context_length: int) -> None:
    if num_tokens >= context_length:
        raise ContextLengthExceededError(
            f"the prompt has {num_tokens} tokens; this model's context holds {context_length}, "
            "and the answer needs at least one",
            "messages",
        )
