"""The official client of OpenAI against a server of ours."""

from __future__ import annotations

from openai import OpenAI


def openai_client(
    url: str, model_id: str = "0", *, timeout_s: float = 60.0, is_strict: bool = True
) -> OpenAI:
    """A client that tries once; ``url`` is the server's, without ``/v1``.

    A field off its type raises with ``is_strict``. Scores of a prompt need a client without it: the
    first token has none, which the client's types do not know, and neither do they know vectors as
    base64, which it asks for itself.
    """
    return OpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        default_headers={"X-Model-Id": model_id},
        max_retries=0,
        timeout=timeout_s,
        _strict_response_validation=is_strict,
    )
