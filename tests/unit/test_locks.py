"""The lock files agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def versions(name: str) -> dict[str, str]:
    lines = (_ROOT / name).read_text().splitlines()
    pins = [re.match(r"([a-z0-9-]+)==(\S+)", line) for line in lines]
    return {pin[1]: pin[2] for pin in pins if pin}


@pytest.mark.parametrize("lock", ["requirements-cuda13.lock", "requirements-dev.lock"])
def test_a_lock_has_what_serving_has_in_the_same_versions(lock: str) -> None:
    serving, other = versions("requirements.lock"), versions(lock)
    missing = serving.items() - other.items()
    assert {name for name, _ in missing} == ({"mlx-cpu"} if "cuda" in lock else set())


def test_the_lock_for_nvidia_gpus_adds_nothing_but_mlx_and_nvidias_libraries() -> None:
    added = versions("requirements-cuda13.lock").keys() - versions("requirements.lock").keys()
    assert "mlx-cuda-13" in added
    assert all(re.match(r"mlx-cuda-13$|nvidia-", name) for name in added)


@pytest.mark.parametrize("lock", sorted(path.name for path in _ROOT.glob("requirements*.lock")))
def test_a_lock_names_no_address(lock: str) -> None:
    assert "://" not in (_ROOT / lock).read_text()
