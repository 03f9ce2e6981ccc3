"""Makes submissions from requests: job ids, facts for dashboards (never a prompt), background."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.execution.runner import JobRunner, Ticket
from jobs.contract.pulls import PullRequest
from jobs.contract.records import DesiredModel, JobClass
from jobs.contract.requests import (
    ApplyTemplateRequest,
    CacheLimitRequest,
    DetokenizeRequest,
    EmbedRequest,
    GenerateRequest,
    LoadRequest,
    TokenCountRequest,
    TokenizeRequest,
    UnloadRequest,
)
from jobs.contract.requests import Request as AnyRequest
from jobs.storage.submitter import Submission

_PREFIXES = {
    EmbedRequest: "embd",
    TokenCountRequest: "tok",
    TokenizeRequest: "tokens",
    DetokenizeRequest: "detok",
    ApplyTemplateRequest: "tmpl",
    CacheLimitRequest: "limit",
    LoadRequest: "load",
    UnloadRequest: "unload",
    PullRequest: "pull",
}


NO_HEADERS: Mapping[str, str] = MappingProxyType({})
LONGEST_DEADLINE_S = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Order:
    """When a job runs: its class, its priority (lower first), the seconds until its deadline."""

    job_class: JobClass = "interactive"
    priority: int = 0
    deadline_s: float | None = None

    @property
    def deadline_at(self) -> float | None:
        """The deadline in epoch seconds, if the job is submitted now."""
        return None if self.deadline_s is None else time.time() + self.deadline_s


AS_IT_COMES = Order()


def service_tier(submission: Submission) -> str:
    """OpenAI's word for the order that the job got: what an answer names."""
    return tier_of(submission.job_class, submission.priority)


def tier_of(job_class: JobClass, priority: int) -> str:
    """``flex`` for the batch class, ``priority`` for a job that goes before others."""
    if job_class == "batch":
        return "flex"
    return "priority" if priority < 0 else "default"


def new_job_id(request: AnyRequest, suffix: str = "") -> str:
    """The id that the client sees; 128 random bits unless there is a ``suffix``."""
    if isinstance(request, GenerateRequest):
        prefix = "chatcmpl" if request.api == "chat" else "cmpl"
    else:
        prefix = _PREFIXES[type(request)]
    return f"{prefix}-{suffix or secrets.token_hex(16)}"


def new_submission(
    runner: JobRunner,
    model_id: str,
    model_name: str,
    request: AnyRequest,
    *,
    is_background: bool = False,
    keep_alive_s: float | None = None,
    order: Order = AS_IT_COMES,
) -> Submission:
    """A submission with a new job id."""
    return Submission(
        job_id=new_job_id(request, runner.new_suffix()),
        model_id=model_id,
        request=request,
        facts={"model": model_name, **_facts(request)},
        is_background=is_background,
        owner=runner.name,
        keep_alive_s=keep_alive_s,
        job_class=runner.job_class or order.job_class,
        priority=runner.caller_info.clamped(order.priority),
        deadline_at=order.deadline_at,
    )


def _facts(request: AnyRequest) -> dict[str, Any]:
    if not isinstance(request, GenerateRequest):
        return {}
    facts: dict[str, Any] = {"api": request.api, "mode": "stream" if request.stream else "whole"}
    return facts if request.max_tokens is None else {**facts, "max_tokens": request.max_tokens}


def new_ticket(
    runner: JobRunner,
    desired: DesiredModel,
    request: AnyRequest,
    *,
    is_background: bool = False,
    keep_alive_s: float | None = None,
    order: Order = AS_IT_COMES,
) -> Ticket:
    """A submission for a loaded model."""
    name = desired.load.model_name
    submission = new_submission(
        runner,
        desired.model_id,
        name,
        request,
        is_background=is_background,
        keep_alive_s=keep_alive_s,
        order=order,
    )
    return Ticket(submission, desired)


def is_background(request: Request, in_body: bool | None) -> bool:
    """``"background": true``, or ``Prefer: respond-async`` (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("prefer")).lower().split(",")
    names = {preference.split(";")[0].strip() for preference in preferences}
    return bool(in_body) or "respond-async" in names


def accepted(job_id: str, place: Mapping[str, str] = NO_HEADERS) -> Response:
    """202 with the job's id and URL, and the headers that tell its place."""
    body = msgspec.json.encode({"id": job_id, "object": "job", "status": "queued"})
    headers = {"Location": f"/v1/jobs/{job_id}", "X-Job-Id": job_id, **place}
    return Response(body, 202, headers, media_type="application/json")
