"""``models.toml`` in the models folder: what a person wants to be so for single models.

A table per model, under any name that finds it::

    ["qwen3-8b-Q4_K_M.gguf"]
    aliases = ["qwen", "gpt-4o"]
    ttl = "10m"
    memory = "6GB"
    load = { context_length = 16384 }
    defaults = { temperature = 0.6 }
"""

from __future__ import annotations

import contextlib
import logging
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jobs.catalog.model_aliases import NO_ALIASES, Aliases
from jobs.contract.requests import KvLayout
from jobs.contract.sampling import SAMPLING_FIELDS

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(k|M|G|T)(i?)B")
_NUMBER = re.compile(r"\d+")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4}
_LIMITS = {field.name: field.limits for field in SAMPLING_FIELDS}

log = logging.getLogger(__name__)


class ModelsFileError(Exception):
    """models.toml is wrong. Each of ``problems`` is a line with file, line and key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _to_seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError('must be seconds, or a text such as "90s", "10m", "2h" or "1d"')
    return float(match[1]) * _SECONDS[match[2]]


def _to_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError('must be bytes, or a text such as "600MB", "6GB" or "5.5GiB"')
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]])


def _sampling(name: str) -> Any:
    limits = _LIMITS[name]
    return Field(None, strict=True, ge=limits.low, le=limits.high, allow_inf_nan=False)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _count(low: int, high: int) -> Any:
    return Field(None, strict=True, ge=low, le=high)


Text = Annotated[str, Field(strict=True, min_length=1, max_length=255)]
Flag = Annotated[bool, Field(strict=True)]


def _check_alias(value: str) -> str:
    if "*" in value[:-1] or value == "*":
        raise ValueError("an alias may have a * only at its end")
    return value


Alias = Annotated[Text, AfterValidator(_check_alias)]


class LoadOptions(_Table):
    """Load options of a model, with the names and ranges of the load route."""

    chat_format: Text | None = None
    context_length: int | None = _count(1, 2**31 - 1)
    slots: int | None = _count(1, 256)
    threads: int | None = _count(1, 1024)
    gpu_layers: int | None = _count(0, 10_000)
    trust_remote_code: Flag | None = None
    adapter_name: Text | None = None
    kv_bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    kv_layout: KvLayout | None = None
    draft_model: Text | None = None
    num_draft_tokens: int | None = _count(1, 64)
    prompt_cache_bytes: int | None = _count(0, 2**50)


class DefaultsOptions(_Table):
    """Values of requests that leave them out: see ``GenerationDefaults``."""

    temperature: float | None = _sampling("temperature")
    max_tokens: int | None = _count(1, 2**31 - 1)
    top_p: float | None = _sampling("top_p")
    repetition_penalty: float | None = _sampling("repetition_penalty")
    repetition_context_size: int | None = _sampling("repetition_context_size")
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None


class ModelOptions(_Table):
    """What models.toml says about a model; the defaults where it says nothing.

    ``ttl_s`` is in seconds: ``None`` leaves it to the server, 0 is never. ``memory_bytes`` replaces
    the estimate of what the model needs. A model with ``preload`` is loaded at the start of the
    server, an ``unlisted`` one is not shown, but can be used.
    """

    aliases: tuple[Alias, ...] = ()
    ttl_s: Annotated[float | None, BeforeValidator(_to_seconds)] = Field(
        default=None, alias="ttl", strict=True, ge=0, le=365 * 86400, allow_inf_nan=False
    )
    pinned: Flag = False
    priority: int = Field(default=0, strict=True, ge=-100, le=100)
    preload: Flag = False
    unlisted: Flag = False
    memory_bytes: Annotated[int | None, BeforeValidator(_to_bytes)] = Field(
        default=None, alias="memory", strict=True, ge=1, le=2**50
    )
    load: LoadOptions = LoadOptions()
    defaults: DefaultsOptions = DefaultsOptions()


class ModelsFile:
    """The file, read again when it changes. Thread-safe. ``others``: aliases of the settings."""

    def __init__(self, path: Path, others: Aliases = NO_ALIASES) -> None:
        self._path = path
        self._others = others
        self._known: tuple[tuple[int, int], Mapping[str, ModelOptions]] = ((0, 0), {})

    def read(self) -> Mapping[str, ModelOptions]:
        """The options by the names in the file; the last right ones while the file is wrong."""
        version = self._version()
        known_version, sections = self._known
        if version != known_version:
            try:
                sections = self.check()
            except ModelsFileError as error:
                log.error("models.toml is wrong and not used", extra={"problems": error.problems})
            self._known = (version, sections)
        return sections

    def check(self) -> Mapping[str, ModelOptions]:
        """Read the file. Raises ``ModelsFileError`` for a wrong one; without a file: nothing."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ModelsFileError([f"{self._path}: cannot be read: {error}"]) from error
        return parse_models_file(text, str(self._path), self._others)

    def _version(self) -> tuple[int, int]:
        try:
            state = self._path.stat()
        except OSError:
            return (0, 0)
        return (state.st_mtime_ns, state.st_size)


def parse_models_file(
    text: str, file: str, others: Aliases = NO_ALIASES
) -> Mapping[str, ModelOptions]:
    """The options by the names in ``text``. Raises ``ModelsFileError``; ``file`` is for that."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        line = _NUMBER.search(place)
        number = int(line[0]) if line else len(text.splitlines())  # "at end of document"
        raise ModelsFileError([f"{file}:{number}: {message}"]) from error
    lines = _Lines(text)
    problems, sections = [], {}
    for name, table in tables.items():
        try:
            sections[name] = ModelOptions.model_validate(table)
        except ValidationError as error:
            for problem in error.errors():
                key = [name, *map(str, problem["loc"])]
                problems.append(f"{file}:{lines.of(key)}: {_shown(key)}: {_reason(problem)}")
    for key, why in _conflicts(sections, others):
        problems.append(f"{file}:{lines.of(key)}: {_shown(key)}: {why}")
    if problems:
        raise ModelsFileError(problems)
    return sections


def _conflicts(
    sections: Mapping[str, ModelOptions], others: Aliases
) -> Iterator[tuple[list[str], str]]:
    """Aliases that two models have, or that are another model's name in the file."""
    prefixes = {f"{prefix}*": target for prefix, target in others.prefixes.items()}
    taken = {**others.exact, **prefixes}
    owners: dict[str, str] = {}
    for name, options in sections.items():
        for alias in options.aliases:
            owner = owners.setdefault(alias, name)
            if owner != name:
                yield [name, "aliases"], f"{alias!r} is an alias of {owner!r} too"
            elif taken.get(alias, name) != name:
                why = f"{alias!r} is an alias of {taken[alias]!r} in MGS_MODEL_ALIASES"
                yield [name, "aliases"], why
            elif alias in sections and alias != name:
                yield [name, "aliases"], f"{alias!r} is a model of its own in this file"


def _shown(key: list[str]) -> str:
    return " ".join([f'["{key[0]}"]', ".".join(key[1:])]).strip()


def _reason(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        hint = '; a name with a dot needs quotes: ["name.gguf"]'
        return "unknown key" + (hint if isinstance(problem["input"], dict) else "")
    if problem["type"] == "model_type":
        return "must be a table"
    return str(problem["msg"]).removeprefix("Value error, ")


class _Lines:
    """The lines in which the keys of a TOML text are, found by reading each line by itself."""

    def __init__(self, text: str) -> None:
        self._known: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("["):
                table = _path_of(line) or table
                self._known.setdefault(table, number)
            elif "=" in line and (path := _path_of(f"{line.partition('=')[0]} = {{}}")):
                self._known.setdefault(table + path, number)

    def of(self, key: list[str]) -> int:
        """The line of the key, or of the nearest one around it."""
        places = (self._known.get(tuple(key[:length])) for length in range(len(key), 0, -1))
        return next((place for place in places if place is not None), 1)


def _path_of(line: str) -> tuple[str, ...]:
    """The keys of a line that is one, with empty tables as values; empty for any other."""
    path: list[str] = []
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        value: Any = tomllib.loads(line)
        while isinstance(value, dict) and value:
            [(key, value)] = value.items()
            path.append(key)
    return tuple(path)


def aliases_in(sections: Mapping[str, ModelOptions], others: Aliases) -> Aliases:
    """The aliases of models.toml with those of the settings. A ``*`` ends a prefix."""
    exact: dict[str, str] = {}
    prefixes: dict[str, str] = {}
    for name, options in sections.items():
        for alias in options.aliases:
            known = prefixes if alias.endswith("*") else exact
            known[alias.removesuffix("*")] = name
    every = {**prefixes, **others.prefixes}
    longest_first = sorted(every.items(), key=lambda item: -len(item[0]))
    return Aliases({**exact, **others.exact}, dict(longest_first))
