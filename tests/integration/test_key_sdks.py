"""The two vendors' clients see what a key refuses as errors of their own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from tests.integration.test_key_limits import Locked, locked, spend

__all__ = ["locked"]

_MESSAGES: Any = [{"role": "user", "content": "hi"}]


def _openai(locked: Locked, key: str) -> None:
    with openai.OpenAI(base_url=f"{locked.rig.url}/v1", api_key=key, max_retries=0) as client:
        client.chat.completions.create(model="fake", messages=_MESSAGES)


def _anthropic(locked: Locked, key: str) -> None:
    with anthropic.Anthropic(base_url=locked.rig.url, api_key=key, max_retries=0) as client:
        client.messages.create(model="fake", max_tokens=5, messages=_MESSAGES)


_VENDORS = pytest.mark.parametrize(
    ("vendor", "ask"), [(openai, _openai), (anthropic, _anthropic)], ids=["openai", "anthropic"]
)


@_VENDORS
def test_what_a_key_refuses(
    locked: Locked, vendor: Any, ask: Callable[[Locked, str], None]
) -> None:
    locked.add("night", classes=["batch"])
    locked.add("tiny", models=["tiny*"])
    locked.add("full", max_jobs=1)
    body = {"messages": _MESSAGES, "background": True}
    assert locked.post("full", body).status_code == 202
    with pytest.raises(vendor.AuthenticationError):
        ask(locked, "wrong")
    with pytest.raises(vendor.PermissionDeniedError, match="not for interactive jobs"):
        ask(locked, locked.keys["night"])
    with pytest.raises(vendor.NotFoundError):
        ask(locked, locked.keys["tiny"])
    with pytest.raises(vendor.RateLimitError, match="1 jobs of this key") as caught:
        ask(locked, locked.keys["full"])
    assert caught.value.response.headers["Retry-After"] == "1"


@_VENDORS
def test_a_used_up_minute(locked: Locked, vendor: Any, ask: Callable[[Locked, str], None]) -> None:
    locked.add("slow", rpm=1)
    spend(locked, "slow", requests=1)
    with pytest.raises(vendor.RateLimitError, match="1 requests per minute") as caught:
        ask(locked, locked.keys["slow"])
    headers = caught.value.response.headers
    assert 1 <= int(headers["Retry-After"]) <= 60
    is_theirs = "anthropic-ratelimit-requests" if vendor is anthropic else "x-ratelimit"
    assert [value for name, value in headers.items() if name.startswith(is_theirs)]


def test_a_client_reads_what_is_left(locked: Locked) -> None:
    key = locked.add("alice", rpm=10, tpm=5000)
    with openai.OpenAI(base_url=f"{locked.rig.url}/v1", api_key=key, max_retries=0) as client:
        body = {"background": True}
        raw = client.chat.completions.with_raw_response.create(
            model="fake", messages=_MESSAGES, max_tokens=100, extra_body=body
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "9"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "4900"
        assert "fake" in [model.id for model in client.models.list()]
