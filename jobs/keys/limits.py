"""What a key may do at once and per minute: counted in Redis, for all API processes together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jobs.contract.errors import KeyPermissionError, ModelNotFoundError, RateLimitError
from jobs.contract.prompt_facts import prompt_length
from jobs.contract.records import DesiredModel, JobClass
from jobs.contract.requests import GenerateRequest, Request
from jobs.keys.caller import Caller
from jobs.storage import names, object_names
from jobs.storage.connection import AsyncRedis
from jobs.storage.lua import key_scripts
from jobs.storage.submitter import MANAGEMENT, Submission
from jobs.storage.totals import Sum

_CHARS_PER_TOKEN = 4
_UNKNOWN_ANSWER = 256  # tokens, of a request that does not limit its answer
MAX_WAIT_S = 120.0
"""The longest pause that a client is told: OpenAI's clients give up beyond."""


@dataclass(frozen=True, slots=True)
class RateState:
    """A caller's minute. ``reserved`` are the tokens that the request was counted with."""

    caller: Caller
    num_requests: int
    num_tokens: int
    left_s: float
    reserved: int = 0


class RateReport:
    """The state after the last request of one HTTP call, for its headers; ``None``: no request."""

    state: RateState | None = None


class KeyLimits:
    """Counts the requests of callers whose keys limit them."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._script = redis.register_script(key_scripts.COUNT_REQUEST)

    def check_model(self, desired: DesiredModel, caller: Caller) -> None:
        """Raise ``ModelNotFoundError`` for a model that the caller's key is not for."""
        if not caller.may_use(desired.load.model_name):
            message = f"no model is loaded under model_id {desired.model_id!r}"
            raise ModelNotFoundError(message, "model")

    async def apply(
        self, submission: Submission, caller: Caller, report: RateReport | None = None
    ) -> Submission:
        """The submission as the caller's, with what its key says about order and limits.

        Counts it as a request. Raises ``KeyPermissionError`` and ``RateLimitError``.
        """
        if submission.task in MANAGEMENT:
            return replace(submission, caller=caller.id)
        check_class(caller, submission.job_class)
        reserved = 0
        if caller.has_rates and not submission.batch:
            reserved = await self._count(caller, submission.request, report)
        return replace(
            submission,
            caller=caller.id,
            priority=caller.clamped(submission.priority),
            weight=caller.weight,
            max_running=caller.max_running,
            max_jobs=caller.max_jobs,
            reserved_tokens=reserved,
        )

    async def wait_s(self, submission: Submission) -> float:
        """When one of the caller's jobs will have ended: as many run as it may have, at most."""
        one_s = await self._time_of_a_job(submission.model_id)
        return min(MAX_WAIT_S, one_s / (submission.max_jobs or 1))

    async def _count(self, caller: Caller, request: Request, report: RateReport | None) -> int:
        """Count a request. Returns the tokens that it was counted with.

        Raises ``RateLimitError`` when the minute's requests or tokens are used up.
        """
        rpm, tpm = caller.rpm or 0, caller.tpm or 0
        tokens = min(expected_tokens(request), tpm) if tpm else 0
        answer = await self._script(
            keys=[object_names.rate_key(caller.id)], args=[rpm, tpm, tokens]
        )
        is_counted, num_requests, num_tokens, left_ms = map(int, answer)
        state = RateState(caller, num_requests, max(0, num_tokens), left_ms / 1000, tokens)
        if report is not None:
            report.state = state
        if not is_counted:
            raise _refusal(state, tokens)
        return tokens

    async def _time_of_a_job(self, model_id: str) -> float:
        """Mean time in seconds in which a job of this model runs; 0 if none has ended."""
        wanted = (Sum.TIMED_JOBS, Sum.PREFILL_S, Sum.DECODE_S)
        found = await self._redis.hmget(names.TOTALS, [f"{one.value} {model_id}" for one in wanted])
        try:
            num, prefill_s, decode_s = (float(value or 0) for value in found)
        except ValueError:
            return 0.0
        mean = (prefill_s + decode_s) / num if num else 0.0
        return mean if math.isfinite(mean) else 0.0


def check_class(caller: Caller, job_class: JobClass) -> None:
    """Raise ``KeyPermissionError`` if the caller's key is not for jobs of this class."""
    if job_class not in caller.classes:
        raise KeyPermissionError(f"the key {caller.name!r} is not for {job_class} jobs")


def expected_tokens(request: Request) -> int:
    """A guess before the prompt is read: what the request may take at most, if it says so."""
    length = prompt_length(request)
    if not isinstance(request, GenerateRequest):
        return max(1, length // _CHARS_PER_TOKEN)
    given = any(prompt.token_ids for prompt in request.prompts)
    prompts = length if given else length // _CHARS_PER_TOKEN
    answer = _UNKNOWN_ANSWER if request.max_tokens is None else request.max_tokens
    return max(1, prompts + answer * request.num_choices * len(request.prompts))


def _refusal(state: RateState, tokens: int) -> RateLimitError:
    caller = state.caller
    if caller.rpm is not None and state.num_requests >= caller.rpm:
        what = f"{caller.rpm} requests per minute"
    else:
        what = f"{caller.tpm} tokens per minute: {state.num_tokens} are used, this needs {tokens}"
    error = RateLimitError(f"the key {caller.name!r} has {what}")
    error.retry_after_s = min(MAX_WAIT_S, state.left_s)
    return error
