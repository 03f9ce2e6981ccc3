"""The use of keys for /metrics, labelled with the names of the keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from jobs.keys.usage import Usage

REMOVED = "(removed)"
"""The label of keys that are gone: no id of a caller is shown."""
_ENDS = ("finished", "failed", "cancelled")
_TOKENS = {
    "prompt": "prompt_tokens",
    "cached": "cached_tokens",
    "generated": "generated_tokens",
}


def usage_families(totals: Mapping[str, Usage], key_names: Mapping[str, str]) -> Iterator[Metric]:
    """Jobs and tokens by key; nothing on a server without keys."""
    by_name: dict[str, Usage] = defaultdict(Usage)
    for caller, usage in totals.items():
        if caller:
            by_name[key_names.get(caller, REMOVED)].add(usage)
    jobs = CounterMetricFamily("mgs_key_jobs_ended", "Ended jobs by key.", labels=["key", "status"])
    tokens = CounterMetricFamily(
        "mgs_key_tokens", "Tokens of ended jobs by key.", labels=["key", "kind"]
    )
    for name, usage in by_name.items():
        for status in _ENDS:
            jobs.add_metric([name, status], getattr(usage, status))
        for kind, field in _TOKENS.items():
            tokens.add_metric([name, kind], getattr(usage, field))
    yield from (jobs, tokens)
