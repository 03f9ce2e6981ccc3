"""GET /v1/usage: jobs and tokens per key, model and day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from api.admin.keys.usage_schema import KeyFacts, UsageEntry, UsageList
from api.execution.services import Services, ServicesDep
from api.web.error_schema import ERRORS
from jobs.contract.errors import InvalidRequestError
from jobs.keys.caller import Caller
from jobs.keys.usage import KEPT_DAYS, Usage, read_usage, summed, today

router = APIRouter(tags=["jobs"], responses=ERRORS)
_FIELDS = {"key": "caller", "model": "model", "day": "day"}
_DEFAULT_DAYS = 30


@router.get("/v1/usage")
async def usage(
    services: ServicesDep,
    first: Annotated[str | None, Query(alias="from")] = None,
    last: Annotated[str | None, Query(alias="to")] = None,
    group_by: str = "key,model,day",
) -> UsageList:
    """What the caller's key has used, for a manager all keys, on days like 2026-11-30 (UTC)."""
    end = _day(last, "to") or today()
    start = _day(first, "from") or end - timedelta(_DEFAULT_DAYS - 1)
    if start > end:
        raise InvalidRequestError("from: is after to", "from")
    groups = _groups(group_by)
    start = max(start, today() - timedelta(KEPT_DAYS))  # what is older is not kept
    data = await services.runner.in_thread(_entries, services, start, end, groups)
    keys = await services.runner.in_thread(_keys, services)
    return UsageList(first=str(start), last=str(end), group_by=groups, data=data, keys=keys)


def _day(text: str | None, field: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(f"{field}: must be a day, such as 2026-11-30", field) from None


def _groups(text: str) -> list[str]:
    groups = [part.strip() for part in text.split(",")]
    if set(groups) - set(_FIELDS) or len(set(groups)) < len(groups):
        expected = ", ".join(_FIELDS)
        raise InvalidRequestError(f"group_by: must be some of {expected}, each once", "group_by")
    return groups


def _entries(services: Services, first: date, last: date, groups: list[str]) -> list[UsageEntry]:
    """Synchronous. Sorted by the groups."""
    last = min(last, today())
    used = read_usage(services.store.redis, first, last) if first <= last else []
    seen = [one for one in used if services.caller.may_see(one.caller)]
    found = summed(seen, [_FIELDS[group] for group in groups])
    key_names = services.key_names()
    entries = [
        _entry(dict(zip(groups, values, strict=True)), usage, key_names)
        for values, usage in found.items()
    ]
    return sorted(entries, key=lambda entry: [getattr(entry, group) for group in groups])


def _keys(services: Services) -> list[KeyFacts]:
    """Synchronous: the keys file may have changed."""
    seen = [one for one in services.keys.callers if services.caller.may_see(one.id)]
    return [_facts(one) for one in sorted(seen, key=lambda one: one.name)]


def _facts(caller: Caller) -> KeyFacts:
    return KeyFacts(
        name=caller.name,
        is_manager=caller.is_manager,
        weight=caller.weight,
        classes=sorted(caller.classes),
        models=list(caller.models),
        max_jobs=caller.max_jobs,
        max_running=caller.max_running or None,
        rpm=caller.rpm,
        tpm=caller.tpm,
    )


def _entry(group: dict[str, str], usage: Usage, key_names: Mapping[str, str]) -> UsageEntry:
    caller = group.get("key")
    return UsageEntry(
        day=group.get("day"),
        key=None if caller is None else key_names.get(caller, caller),
        model=group.get("model"),
        num_jobs=usage.finished + usage.failed + usage.cancelled,
        num_failed=usage.failed,
        num_cancelled=usage.cancelled,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
    )
