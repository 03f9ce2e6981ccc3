"""The deliveries of webhooks for /metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from jobs.webhooks.totals import DeliveryTotals


def webhook_families(totals: DeliveryTotals) -> Iterator[Metric]:
    """Numbers of all endpoints together: neither callers nor addresses are named."""
    ended = CounterMetricFamily(
        "mgs_webhook_deliveries", "Deliveries of webhooks that have ended.", labels=["status"]
    )
    for status, number in totals.ended.items():
        ended.add_metric([status], number)
    yield ended
    help_text = "Failed attempts of deliveries, after which another follows."
    yield CounterMetricFamily("mgs_webhook_retries", help_text, value=totals.num_retries)
    help_text = "Deliveries that wait for their first or next attempt, or for its end."
    yield GaugeMetricFamily("mgs_webhook_pending", help_text, value=totals.num_pending)
