"""The text printed when the API listens: its address, the models on disk, example commands."""

from __future__ import annotations

import json

from jobs.catalog.catalog import ModelEntry, list_models
from jobs.settings import Settings

_SHOWN = 20


def banner(settings: Settings) -> str:
    """Some lines of plain text, without a trailing newline."""
    url = base_url(settings)
    models = list_models(settings)
    lines = [f"mlx-gguf-server is at {url}", f"Page: {url}/ui/", *_model_lines(settings, models)]
    if models:
        lines += ["", "Try it:", *_commands(settings, url, models)]
    return "\n".join(lines)


def base_url(settings: Settings) -> str:
    """The base URL; the loopback address if the server listens on all addresses."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _model_lines(settings: Settings, models: list[ModelEntry]) -> list[str]:
    if not models:
        return [f"No models in {settings.models_dir}/: put MLX folders or .gguf files there"]
    lines = [f"Models in {', '.join(settings.model_places)}:"]
    lines += [f"  {entry.name}  ({entry.backend})" for entry in models[:_SHOWN]]
    return lines + ([f"  and {len(models) - _SHOWN} more"] if len(models) > _SHOWN else [])


def _commands(settings: Settings, url: str, models: list[ModelEntry]) -> list[str]:
    names = [entry.name for entry in models]
    name = "demo" if "demo" in names else names[0]
    chat = {"messages": [{"role": "user", "content": "Hello!"}]}
    listed = " -H 'Authorization: Bearer KEY'" if settings.has_keys else ""  # mgs keys add NAME
    key = " -H 'Authorization: Bearer '\"$MGS_API_KEY\"" if settings.api_key else listed
    manage = (
        " -H 'Authorization: Bearer '\"$MGS_MANAGEMENT_KEY\"" if settings.management_key else key
    )
    return [
        _curl(f"{url}/v1/internal/model/load", {"llm_model_name": name}, manage),
        _curl(f"{url}/v1/chat/completions", chat, key),
    ]


def _curl(url: str, body: object, key: str) -> str:
    data = json.dumps(body).replace("'", "'\\''")
    return f"  curl {url} -H 'Content-Type: application/json'{key} -d '{data}'"
