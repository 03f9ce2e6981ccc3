"""What a worker's environment says to threads, and who has the last word."""

from __future__ import annotations

import pytest

from workers.supervision.environment import worker_environment

_NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("2000", "1", None, "22")),
        ({"GOMP_SPINCOUNT": "7"}, ("7", "1", None, "22")),
        ({"OPENBLAS_THREAD_TIMEOUT": "9"}, ("2000", "1", None, "9")),
        ({"OMP_WAIT_POLICY": "active"}, (None, None, "active", "22")),
        ({"KMP_BLOCKTIME": "5"}, ("2000", "5", None, "22")),
    ],
)
def test_what_the_user_sets_is_left(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = worker_environment()
    assert tuple(found.get(name) for name in _NAMES) == expected
