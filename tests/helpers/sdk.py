"""OpenAI's official client for a test server."""

from __future__ import annotations

from openai import OpenAI


def openai_client(
    url: str, model_id: str = "0", *, timeout_s: float = 60.0, is_strict: bool = True
) -> OpenAI:
    """A client without retries; ``url`` is the server's, without ``/v1``.

    ``is_strict``: a field of a wrong type raises. Not for log-probabilities of a prompt (the
    first is null) and base64 embeddings, which the client's types do not allow.
    """
    return OpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        default_headers={"X-Model-Id": model_id},
        max_retries=0,
        timeout=timeout_s,
        _strict_response_validation=is_strict,
    )
