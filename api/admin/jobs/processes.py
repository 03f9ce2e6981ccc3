"""The original server's view of its processes and their queues."""

from __future__ import annotations

from typing import Any

import msgspec

from api.admin.jobs.management_schema import CurrentQueue, NodeMemory, ProcessEntry
from api.dialects.sampling_fields import OURS
from api.execution.services import Services
from jobs.contract.errors import ContractError, JobNotFoundError
from jobs.contract.records import JobRecord, NodeStatus
from jobs.contract.requests import GenerateRequest, Message, Prompt
from jobs.storage import names
from jobs.storage.desired_models import LoadedModel

_MAX_LISTED = 100


def list_processes(services: Services) -> list[ProcessEntry]:
    """One entry per model that is loaded, loading or parked. Synchronous."""
    nodes = services.desired_models.nodes()
    waiting = {slug: since for node in nodes for slug, since in node.waiting.items()}
    reserved = {slug: size for node in nodes for slug, size in node.reserved.items()}
    return [
        _entry(services, model, waiting.get(model.slug), reserved.get(model.slug))
        for model in services.desired_models.loaded()
    ]


def list_nodes(services: Services) -> list[NodeMemory]:
    """The memory of each machine with a supervisor. Synchronous."""
    return [_node(status) for status in services.desired_models.nodes()]


def _node(status: NodeStatus) -> NodeMemory:
    reserved, budget = sum(status.reserved.values()), status.budget_bytes
    return NodeMemory(
        node=status.node,
        memory_bytes=status.memory_bytes,
        device_bytes=status.device_bytes or None,
        budget_bytes=budget,
        binding=status.binding or None,
        reserved_bytes=reserved,
        available_bytes=None if budget is None else max(0, budget - reserved),
    )


def _entry(
    services: Services, model: LoadedModel, waiting_since: float | None, reserved: int | None
) -> ProcessEntry:
    load, status, desired = model.desired.load, model.status, model.desired
    path = str(services.settings.models_dir / load.model_name)
    return ProcessEntry(
        model_id=model.desired.model_id,
        model_name=load.model_name,
        model_path=status.model_path if status and status.model_path else path,
        model_type=load.backend,
        context_length=(status.context_length if status else 0) or load.context_length or 0,
        process_id=None if desired.is_parked else status.pid if status else 0,
        cpu_usage=status.cpu_percent if status else 0.0,
        memory_usage=status.memory_bytes if status else 0,
        current_queue=_queue(services, model),
        trust_remote_code=load.trust_remote_code,
        state=model.state,
        origin=desired.origin,
        ttl_s=desired.ttl_s,
        pinned=desired.pinned,
        priority=desired.priority,
        idle_s=status.unused_s if status else None,
        expires_at=model.expires_at,
        waiting_since=waiting_since,
        reserved_bytes=reserved or None,
        prompt_cache_bytes=status.prompt_cache_bytes if status else None,
        load_fraction=status.load_fraction if status else None,
        node=status.node if status else None,
    )


def _queue(services: Services, model: LoadedModel) -> CurrentQueue:
    store, status = services.store, model.status
    queues = [names.generation_queue(model.slug), names.batch_queue(model.slug)]
    ids = store.pending_ids(model.slug, max_waiting=_MAX_LISTED, queues=queues)
    records = store.records(ids)
    pending = sorted(
        (record for record in records if not (record.status.is_terminal or record.is_deleted)),
        key=lambda record: record.created_at,
    )
    waiting, batch_waiting = (store.queue(name).count for name in queues)
    return CurrentQueue(
        request_queue_size=waiting,
        response_queue_size=status.unpublished if status else 0,
        batch_queue_size=batch_waiting,
        pending_requests_count=waiting + batch_waiting + (status.running if status else 0),
        queues=dict(_listed(services, pending[:_MAX_LISTED])),
    )


def _listed(services: Services, records: list[JobRecord]) -> list[tuple[str, dict[str, Any]]]:
    listed = []
    for record in records:
        try:
            request = services.store.request(record.job_id)
        except (JobNotFoundError, ContractError):
            continue  # it ended meanwhile, or was written by another version
        if isinstance(request, GenerateRequest):
            name = "completions_stream" if request.stream else "completions"
            entry = {
                name: parameters(request),
                "start_time": record.created_at,
                "type": "stream" if request.stream else "request",
                "has_result": None if request.stream else False,
            }
            listed.append((record.job_id, entry))
    return listed


def parameters(request: GenerateRequest) -> dict[str, Any]:
    """The request's parameters under the original server's names."""
    sampling, first = request.sampling, request.prompts[0]
    return {
        **OURS.shown(sampling),
        "model": request.model,
        "prompt": _prompt_value(request.prompts),
        "messages": [_message(message) for message in first.messages or ()],
        "max_tokens": request.max_tokens,
        "stream": request.stream,
        "apply_chat_template": first.is_chat or first.messages is not None,
        "complete_text": request.complete_text,
        "stop": request.stop,
        "logit_bias": {str(key): value for key, value in sampling.logit_bias.items()} or None,
        "n": request.num_choices,
    }


def _prompt_value(prompts: list[Prompt]) -> Any:
    values = [prompt.text if prompt.text is not None else prompt.token_ids for prompt in prompts]
    return (values[0] or "") if len(values) == 1 else values


def _message(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            msgspec.to_builtins(call) | {"type": "function"} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown
