"""What a worker's environment says to the C library and to threads, and who has the last word."""

from __future__ import annotations

import pytest

from workers.supervision.worker_process import _environment

_NAMES = ("GLIBC_TUNABLES", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("glibc.malloc.hugetlb=1", "2000", None, "22")),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
            ("glibc.malloc.hugetlb=0", "2000", None, "22"),
        ),
        (
            {"GLIBC_TUNABLES": "glibc.malloc.check=1"},
            ("glibc.malloc.check=1:glibc.malloc.hugetlb=1", "2000", None, "22"),
        ),
        ({"GOMP_SPINCOUNT": "7"}, ("glibc.malloc.hugetlb=1", "7", None, "22")),
        ({"OPENBLAS_THREAD_TIMEOUT": "9"}, ("glibc.malloc.hugetlb=1", "2000", None, "9")),
        ({"OMP_WAIT_POLICY": "active"}, ("glibc.malloc.hugetlb=1", None, "active", "22")),
    ],
)
def test_what_the_user_sets_is_left(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = _environment()
    assert tuple(found.get(name) for name in _NAMES) == expected
