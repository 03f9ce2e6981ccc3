"""All settings: read once from the environment, frozen, passed to where they are needed.

Each field is the environment variable ``MGS_<FIELD>`` (other programs' have no prefix) and a line
of docs/settings.md. An invalid value stops the start with a message that names it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import quote

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from jobs.catalog.entry import Source
from jobs.catalog.model_aliases import Aliases, parse_aliases
from jobs.catalog.models_file import ModelsFile, ModelsFileError, aliases_in
from jobs.embedded_redis.password import embedded_password
from jobs.keys.keys_file import KeysFileError
from jobs.memory.budget_setting import parse_budget
from jobs.platform.current import current_platform
from jobs.scheduling.queue_settings import QueueSettings

_MAX_SOCKET_PATH_BYTES = 100  # macOS allows 104, Linux 108
_END_MARGIN_S = 60.0


class Settings(QueueSettings):
    """The settings. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix="MGS_", frozen=True, extra="ignore", allow_inf_nan=False
    )

    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    """Redis to use, ``redis://`` or ``unix://``; unset: the embedded one in the state folder."""
    redis_port: int | None = Field(default=None, ge=1, le=65535)
    """Also open the embedded Redis on this loopback port, with a password."""
    host: str = "127.0.0.1"
    port: int = Field(default=4000, ge=1, le=65535)
    models_dir: Path = Path("models")
    model_sources: str = "models"
    """Where models are looked for: of ``models``, ``hf``, ``lmstudio`` and ``ollama``, in the order
    in which they get a name that several have."""
    hf_home: Path = Field(default=Path("~/.cache/huggingface"), validation_alias="HF_HOME")
    hf_hub_cache: Path | None = Field(default=None, validation_alias="HF_HUB_CACHE")
    lmstudio_dir: Path = Path("~/.lmstudio/models")
    ollama_models: Path | None = Field(default=None, validation_alias="OLLAMA_MODELS")
    adapters_dir: Path = Path("adapters")
    state_dir: Path = Path(".state")
    files_dir: Path | None = None
    """Folder of the files of /v1/files and of batches; unset: ``files`` in the state folder."""
    files_max_bytes: int = Field(default=20 * 10**9, ge=1)
    """All files of /v1/files together."""
    max_file_bytes: int = Field(default=200 * 10**6, ge=1024)
    """Largest file of /v1/files."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    api_key: str | None = None
    management_key: str | None = None
    allowed_hosts: str = ""
    """Host header names accepted besides loopback ones and ``host``, comma separated; * for all."""
    cors_origins: str = ""
    """Origins whose pages may call the API from a browser, comma separated; * for all."""
    grace_s: float = Field(default=3.0, ge=0, le=600)
    orphan_s: float = Field(default=30.0, ge=5, le=86400)
    """A process without a heartbeat for this long counts as dead. It sends one each second."""
    log_ttl_s: int = Field(default=3600, ge=10, le=30 * 86400)
    failure_ttl_s: int = Field(default=86400, ge=10, le=90 * 86400)
    response_ttl_s: int = Field(default=86400, ge=10, le=90 * 86400)
    """How long /v1/responses keeps responses. One that nobody reads is only its job's log."""
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1024)
    max_queued_per_model: int = Field(default=1000, ge=1)
    max_jobs_per_key: int | None = Field(default=None, ge=1)
    """Waiting and running jobs per API key. Without keys, all clients count as one."""
    max_jobs: int | None = Field(default=None, ge=1)
    """Waiting and running jobs of all clients."""
    autoload: bool = True
    """Load a model when a request names it."""
    ttl_s: float = Field(default=3600.0, ge=0)
    """After this time without a job, a model that a request loaded is parked; 0: never."""
    default_model: str = ""
    """The model of requests that name none, when nothing is loaded under id 0."""
    models_max: int | None = Field(default=None, ge=1)
    """Models with a process at once on this machine; unset: as many as fit."""
    swap_after_s: float = Field(default=20.0, ge=0)
    """A job that has waited this long for memory makes a busy model give way."""
    room_timeout_s: float = Field(default=300.0, ge=1)
    """How long jobs wait for their model to be loaded."""
    load_timeout_s: float = Field(default=600.0, ge=1)
    request_timeout_s: float = Field(default=3600.0, ge=1)
    """How long a generation may run, over all its attempts, without its wait in the queue."""
    queue_timeout_s: float = Field(default=3600.0, ge=1)
    """How long a generation may wait in its queue."""
    stall_s: float = Field(default=30.0, ge=1)
    """A worker whose decode loop makes no step for this long is killed and restarted."""
    gpu_stall_s: float = Field(default=120.0, ge=1)
    """The same for a model on a GPU that another model uses. Its jobs are tried again."""
    slots: int | None = Field(default=None, ge=1, le=256)
    """Sequences that run at once per model; unset: the engine's default."""
    cpu_tuning: bool = True
    step_budget_ms: int = Field(default=200, ge=10, le=10_000)
    """Target time for prefill in one engine step. Other streams pause for that long."""
    prompt_cache_bytes: int | None = Field(default=None, ge=0)
    """Size of the prompt cache per model; unset: the engine's default, 0: no cache."""
    prompt_cache_dir: Path | None = None
    """Folder in which engines save the prompt cache across restarts; unset: not saved."""
    memory_budget: str = ""
    """Memory of all models together, see ``jobs/memory/budget_setting.py``; empty: the rule."""
    unknown_model: Literal["error", "default"] = "error"
    """What a ``model`` that is nobody's name gets: 404, or the model under id 0."""
    strict_schemas: bool = False
    """Refuse schemas of which something cannot be held, in place of leaving that out."""
    model_aliases: str = ""
    """Aliases of models, see ``jobs/catalog/model_aliases.py``."""
    gpu_turns: Literal["auto", "on", "off"] = "auto"
    """Whether the workers of a machine compute one after the other; auto: on a Mac's GPU."""
    pull: bool = True
    """Allow downloads of models into the models folder."""
    keep_awake: bool = True
    """On macOS, prevent idle sleep while jobs run."""
    fake_engine: bool = False
    """Offer the model ``fake``: deterministic text without a model file, for load tests."""

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Env file templates contain ``MGS_SLOTS=`` for settings that keep their default."""
        stripped = {k: v.strip() if isinstance(v, str) else v for k, v in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("log_level", "unknown_model", "gpu_turns", mode="before")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower() if isinstance(value, str) else value

    @field_validator("model_aliases")
    @classmethod
    def _check_aliases(cls, value: str) -> str:
        parse_aliases(value)
        return value

    @field_validator("memory_budget")
    @classmethod
    def _check_budget(cls, value: str) -> str:
        parse_budget(value)
        return value

    @field_validator("model_sources")
    @classmethod
    def _check_sources(cls, value: str) -> str:
        known = get_args(Source)
        parts = [part.strip() for part in value.split(",")]
        for part in parts:
            if part not in known or parts.count(part) > 1:
                raise ValueError(f"{part!r}: expected are {', '.join(known)}, each once at most")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        for origin in _listed(value) - {"*"}:
            scheme, _, host = origin.partition("://")
            if not scheme or not host or "/" in host:
                raise ValueError(f"{origin}: an origin is http://host, https://host:port or *")
        return value

    @model_validator(mode="after")
    def _refuse_open_listening(self) -> Settings:
        if not is_loopback(self.host) and not self.has_keys:
            keys = "MGS_API_KEY or MGS_KEYS_FILE"
            raise ValueError(f"MGS_HOST={self.host} listens beyond this machine: set {keys} first")
        return self

    @property
    def aliases(self) -> Aliases:
        """Those of ``model_aliases`` and of ``models.toml``, as they are now."""
        return aliases_in(self.models_file.read(), self._own_aliases)

    @cached_property
    def _own_aliases(self) -> Aliases:
        return parse_aliases(self.model_aliases)

    @cached_property
    def models_file(self) -> ModelsFile:
        """``models.toml`` of the models folder."""
        return ModelsFile(self.models_dir / "models.toml", self._own_aliases)

    @property
    def sources(self) -> list[Source]:
        """``model_sources``, one by one."""
        return [cast(Source, part.strip()) for part in self.model_sources.split(",")]

    @property
    def model_places(self) -> list[str]:
        """The sources, for people: the models folder by its path."""
        return [f"{self.models_dir}/" if one == "models" else one for one in self.sources]

    @property
    def files_folder(self) -> Path:
        """``files_dir``, or its default."""
        return (self.files_dir or self.state_dir / "files").expanduser()

    @property
    def hf_cache(self) -> Path:
        """The cache of Hugging Face's libraries."""
        return (self.hf_hub_cache or self.hf_home / "hub").expanduser()

    @property
    def ollama_store(self) -> Path:
        """Ollama's store: of the user, or of its service on Linux."""
        own, service = (
            Path("~/.ollama/models").expanduser(),
            Path("/usr/share/ollama/.ollama/models"),
        )
        found = self.ollama_models or (service if service.is_dir() and not own.is_dir() else own)
        return found.expanduser()

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key, also while the keys file has none."""
        return self.api_key is not None or self.keys_file is not None

    @cached_property
    def known_origins(self) -> frozenset[str]:
        """``cors_origins``, one by one, as browsers write them; or ``*``."""
        return _listed(self.cors_origins.lower())

    @property
    def answer_timeout_s(self) -> float:
        """How long the API waits for a generation. The worker and supervisor time out earlier."""
        return self.queue_timeout_s + self.request_timeout_s + _END_MARGIN_S

    @property
    def socket_dir(self) -> Path:
        """Folder of the embedded Redis' socket: the state folder, or one with a shorter path."""
        state = self.state_dir.resolve()
        if len(os.fsencode(state / "redis.sock")) <= _MAX_SOCKET_PATH_BYTES:
            return state
        digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        return current_platform().short_folder(digest)

    @property
    def redis_socket(self) -> Path:
        return self.socket_dir / "redis.sock"

    @property
    def effective_redis_url(self) -> str:
        """``redis_url``, or the URL of the embedded Redis' socket."""
        if self.redis_url:
            return self.redis_url
        # With an open port, Redis asks for the password on the socket too.
        auth = f":{embedded_password(self.state_dir)}@" if self.redis_port else ""
        return f"unix://{auth}{quote(str(self.redis_socket))}?db=0"


def _listed(value: str) -> frozenset[str]:
    return frozenset(part.strip() for part in value.split(",")) - {""}


def is_loopback(host: str) -> bool:
    """True for names and addresses that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def load_settings() -> Settings:
    """Read the environment. On invalid values print one line per problem and exit with 2."""
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"])
            name = field if field.isupper() else f"MGS_{field.upper()}"
            prefix = f"{name}: " if field else ""
            print(f"mgs: {prefix}{problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None


def load_server_settings() -> Settings:
    """The settings of a server. It starts with no wrong models.toml or keys file either."""
    settings = load_settings()
    try:
        settings.models_file.check()
        if settings.keys is not None:
            settings.keys.check()
    except (ModelsFileError, KeysFileError) as error:
        for problem in error.problems:
            print(f"mgs: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
    return settings
