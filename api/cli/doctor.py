"""``mgs doctor``: checks the requirements of a server one by one."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import psutil
from redis.exceptions import RedisError
from rich.text import Text

from api.cli.client import CliError, Server, ServerError
from api.cli.tables import text_console, to_size_text
from jobs.catalog.catalog import list_models
from jobs.embedded_redis.binary import RedisBinaryError, find_redis_binary
from jobs.embedded_redis.launcher import without_password
from jobs.memory.budget import read_budget
from jobs.memory.facts import MachineFacts, machine_facts
from jobs.platform.current import current_platform, launchd_job
from jobs.platform.darwin import Darwin
from jobs.settings import Settings
from jobs.storage.connection import connect

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_ENGINES = {"mlx": ("mlx", "mlx_lm"), "llama-cpp": ("llama_cpp",)}
_LOW_DISK_BYTES = 2_000_000_000
_LOW_MEMORY_BYTES = 1_000_000_000

_BINDINGS = {
    "setting": "MGS_MEMORY_BUDGET",
    "working_set": "what macOS recommends for the GPU",
    "memory": "the machine's memory, less a reserve",
    "cgroup": "the limit of the control group, less a reserve",
    "gpu": "what was free on the GPU",
}

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """Result of one check: a line of the output."""

    verdict: Verdict
    subject: str
    finding: str


def examine(settings: Settings, server: Server) -> Iterator[Check]:
    """All checks, each after those that it depends on."""
    yield from setup_checks(is_redis_embedded=settings.redis_url is None)
    yield _redis(settings)
    yield _api(server)
    yield _readiness(server)
    yield _models(settings)
    yield _disk(settings)
    yield _memory()
    yield budget_check(settings, machine_facts())


def setup_checks(*, is_redis_embedded: bool = True) -> Iterator[Check]:
    """The checks of what is installed, which need no server."""
    yield _python()
    system = current_platform()
    if isinstance(system, Darwin):
        yield from mac_checks(system, launchd_job())
    yield from _engines()
    if is_redis_embedded:
        yield _redis_binary()


def show_checks(checks: Iterable[Check]) -> bool:
    """Print each check when it is done; True if none is a problem."""
    is_well = True
    console = text_console()
    for check in checks:
        line = Text(f"{check.verdict:<8} ", style=_COLOURS[check.verdict])
        line.append(f"{check.subject}: {check.finding}", style="default")
        console.print(line)
        is_well = is_well and check.verdict != "problem"
    return is_well


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    is_known = (3, 11) <= sys.version_info < (3, 15)
    return Check("ok" if is_known else "problem", "Python", f"{version} ({sys.executable})")


def mac_checks(mac: Darwin, job: str | None) -> Iterator[Check]:
    """What only a Mac can lack. ``job``: the job of launchd in which this process runs."""
    translated = mac.translation_problem()
    yield Check("problem" if translated else "ok", "processor", translated or "Apple silicon")
    old = mac.version_problem()
    yield Check("problem" if old else "ok", "macOS", old or mac.version())
    throttled = mac.throttling_problem(job)
    yield Check("warning" if throttled else "ok", "launchd", throttled or "not throttled")
    limit, total = mac.device_memory_bytes(), mac.memory_bytes()
    finding = f"about {to_size_text(limit)} of {to_size_text(total)} (sysctl iogpu.wired_limit_mb)"
    yield Check("ok", "memory for the GPU", finding)


def _engines() -> Iterator[Check]:
    # Not imported: an import takes seconds and may initialize Metal.
    found = {
        engine: all(importlib.util.find_spec(module) for module in modules)
        for engine, modules in _ENGINES.items()
    }
    for engine, is_there in found.items():
        verdict: Verdict = "ok" if is_there else "warning" if any(found.values()) else "problem"
        finding = "installed" if is_there else f"not installed ({', '.join(_ENGINES[engine])})"
        yield Check(verdict, f"engine {engine}", finding)


def _redis_binary() -> Check:
    try:
        binary = find_redis_binary()
    except RedisBinaryError as error:
        return Check("problem", "Redis program", str(error))
    return Check("ok", "Redis program", f"{binary.version_text} ({binary.path})")


def _redis(settings: Settings) -> Check:
    where = without_password(settings.effective_redis_url)
    try:
        with connect(settings.effective_redis_url, retries=0) as client:
            facts = client.info()
    except RedisError as error:
        hint = "" if settings.redis_url else " (`mgs serve` starts it)"
        return Check("problem", "Redis", f"{where} does not answer{hint}: {error}")
    version, memory = facts["redis_version"], to_size_text(facts["used_memory"])
    if not facts["aof_enabled"]:
        return Check("warning", "Redis", f"{version} at {where} keeps no append-only file")
    return Check("ok", "Redis", f"{version} at {where}, {memory}")


def _api(server: Server) -> Check:
    try:
        server.get("/health")
    except CliError as error:
        return Check("problem", "API", str(error))
    return Check("ok", "API", f"answers at {server.url}")


def _readiness(server: Server) -> Check:
    try:
        server.get("/health/ready")
    except ServerError as error:
        return Check("problem", "supervisor", str(error))
    except CliError:
        return Check("problem", "supervisor", "unknown, since the API does not answer")
    return Check("ok", "supervisor", "alive")


def _models(settings: Settings) -> Check:
    places = ", ".join(settings.model_places)
    names = [entry.name for entry in list_models(settings)]
    if not names:
        return Check("warning", "models", f"none in {places}")
    return Check("ok", "models", f"{len(names)} in {places}: {', '.join(names[:8])}")


def _disk(settings: Settings) -> Check:
    folder = settings.state_dir if settings.state_dir.exists() else "."
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "warning" if free < _LOW_DISK_BYTES else "ok"
    return Check(verdict, "disk", f"{to_size_text(free)} free")


def budget_check(settings: Settings, facts: MachineFacts) -> Check:
    """How much memory all models together may need, and whether the machine has it."""
    budget = read_budget(settings, facts)
    if budget.total_bytes is None:
        return Check("warning", "memory for models", "no limit (MGS_MEMORY_BUDGET)")
    gpu = facts.gpu
    most = max(facts.memory_bytes, gpu.limit_bytes if gpu else 0)
    finding = f"{to_size_text(budget.total_bytes)} for all together ({_BINDINGS[budget.binding]})"
    if budget.total_bytes > most:
        return Check("warning", "memory for models", f"{finding}: more than {to_size_text(most)}")
    return Check("ok", "memory for models", finding)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    verdict: Verdict = "warning" if memory.available < _LOW_MEMORY_BYTES else "ok"
    finding = f"{to_size_text(memory.available)} of {to_size_text(memory.total)} available"
    return Check(verdict, "memory", finding)
