"""The headers that tell a client what is left of its key's requests and tokens per minute."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from starlette.types import Message, Send

from jobs.keys.limits import RateReport, RateState

_WINDOW_S = 60


def with_rate_headers(send: Send, report: RateReport, *, is_anthropic: bool) -> Send:
    """``send`` that adds the headers to an answer for which the key's limits were counted."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start" and report.state is not None:
            added = rate_headers(report.state, is_anthropic=is_anthropic)
            encoded = [(name.encode(), value.encode()) for name, value in added]
            message = {**message, "headers": [*message.get("headers", ()), *encoded]}
        await send(message)

    return send_on


def rate_headers(state: RateState, *, is_anthropic: bool) -> list[tuple[str, str]]:
    """The vendors' headers, and those of draft-ietf-httpapi-ratelimit-headers."""
    windows = list(_windows(state))
    reset = _instant(state.left_s) if is_anthropic else go_duration(state.left_s)
    found = []
    for _, what, limit, left in windows:
        for name, value in (("limit", str(limit)), ("remaining", str(left)), ("reset", reset)):
            is_theirs = f"anthropic-ratelimit-{what}-{name}"
            found.append((is_theirs if is_anthropic else f"x-ratelimit-{name}-{what}", value))
    policies = [
        f'"{policy}";q={limit};w={_WINDOW_S}' + (';qu="tokens"' if what == "tokens" else "")
        for policy, what, limit, _ in windows
    ]
    left_s = max(1, round(state.left_s))
    states = [f'"{policy}";r={left};t={left_s}' for policy, _, _, left in windows]
    return [*found, ("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(states))]


def _windows(state: RateState) -> Iterator[tuple[str, str, int, int]]:
    """Name of the limit, what it counts, the limit, what is left of it."""
    caller = state.caller
    if caller.rpm is not None:
        yield "rpm", "requests", caller.rpm, max(0, caller.rpm - state.num_requests)
    if caller.tpm is not None:
        yield "tpm", "tokens", caller.tpm, max(0, caller.tpm - state.num_tokens)


def go_duration(seconds: float) -> str:
    """A time of up to a minute as Go writes it: ``250ms``, ``12.5s``, ``1m0s``."""
    ms = round(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"


def _instant(seconds: float) -> str:
    """The time that many seconds from now, by RFC 3339."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    return end.isoformat(timespec="seconds").replace("+00:00", "Z")
