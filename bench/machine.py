"""Facts about the machine and the versions of a run."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.measurement import BenchError

_PACKAGES = ("mlx-gguf-server", "llama-cpp-python", "mlx", "mlx-lm", "rq", "redis")


def describe_machine(llama_server: Path | None) -> dict[str, str]:
    """Processor, system and versions, without names of the machine or its user."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": f"{physical_cores()} physical, {psutil.cpu_count()} logical",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before": " ".join(f"{load:.2f}" for load in psutil.getloadavg()),
        "python": platform.python_version(),
    }
    versions = {name: _version(name) for name in _PACKAGES}
    if llama_server is not None:
        versions["llama-server"] = _llama_server_version(llama_server)
    return {**facts, **{name: version for name, version in versions.items() if version}}


def heading(machine: dict[str, str]) -> str:
    """The lines about the machine above the tables."""
    lines = [f"{machine['system']}, {machine['processor']}, {machine['cores']} cores"]
    if machine["system"].startswith("Linux"):
        lines.append("MLX on the CPU; this server uses OpenBLAS (NumPy) for matrix products.")
    versions = [f"{name} {machine[name]}" for name in _PACKAGES if name in machine]
    return "\n".join([*lines, ", ".join(versions)])


def physical_cores() -> int:
    """Number of physical cores: the engines' number of threads."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.machine()
    answer = subprocess.run(
        ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _llama_server_version(binary: Path) -> str:
    try:
        answer = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BenchError(f"{binary} does not run: {error}") from error
    said = [line for line in (answer.stdout + answer.stderr).splitlines() if "version" in line]
    return said[0].partition(":")[2].strip() if said else "unknown"
