"""``mgs doctor`` on Macs that are played."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import pytest

from api.cli.doctor import mac_checks
from jobs.platform.darwin import Darwin


def _mac(**says: str) -> Darwin:
    names = {name.replace("__", "."): said for name, said in says.items()}

    def ask(command: Sequence[str]) -> str | None:
        return names.get(command[-1])

    return Darwin(ask, lambda *_: -1)


def test_a_mac_that_can_serve_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    mac = _mac(**{"-productVersion": "15.1"}, hw__memsize=str(32 * 10**9))
    checks = {check.subject: check for check in mac_checks(mac, "0")}
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert checks["macOS"].finding == "15.1"
    assert checks["memory for the GPU"].finding.startswith("about 24.0 GB of 32.0 GB")


def test_what_a_mac_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    job = f"gui/{os.getuid()}/my.server"
    says = {"-productVersion": "13.2", job: "spawn type = daemon (3)"}
    mac = _mac(**says, sysctl__proc_translated="1")
    checks = {check.subject: check for check in mac_checks(mac, "my.server")}
    assert checks["processor"].verdict == "problem"
    assert "Rosetta" in checks["processor"].finding
    assert checks["macOS"].verdict == "problem"
    assert checks["launchd"].verdict == "warning"
    assert "my.server" in checks["launchd"].finding
