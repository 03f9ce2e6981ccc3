"""Runs a file of llama.cpp's server tests against a running server."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

_TIMEOUT_S = 900


@dataclass(frozen=True)
class Outcome:
    """Result of one case. ``function``: the test's name without parameters."""

    model: str
    file: str
    function: str
    case: str
    is_slow: bool
    has_passed: bool
    reason: str


def run_file(python: Path, tests: Path, model: str, file: str, port: int) -> list[Outcome]:
    """Run all cases of ``file``, except skipped ones, against a server on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            _outcome(model, file, case, is_slow)
            for is_slow in (False, True)
            for case in _run(python, tests, file, port, Path(folder), is_slow)
        ]


def _run(
    python: Path, tests: Path, file: str, port: int, folder: Path, is_slow: bool
) -> Iterator[ElementTree.Element]:
    report = folder / f"{file}-{is_slow}.xml"
    marker = "slow" if is_slow else "not slow"
    subprocess.run(
        [python, "-m", "pytest", f"unit/{file}.py", "-q", "-m", marker, "-p", "no:cacheprovider",
         "--tb=line", f"--junitxml={report}"],
        cwd=tests,
        env={**os.environ, "DEBUG_EXTERNAL": "1", "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        timeout=_TIMEOUT_S,
        check=False,  # failures are counted, not raised; without a report the next line raises
    )  # fmt: skip
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("skipped") is None:
            yield case


def _outcome(model: str, file: str, case: ElementTree.Element, is_slow: bool) -> Outcome:
    name = case.get("name", "")
    fault = case.find("failure")
    fault = case.find("error") if fault is None else fault
    return Outcome(
        model=model,
        file=file,
        function=name.partition("[")[0],
        case=name,
        is_slow=is_slow,
        has_passed=fault is None,
        reason="" if fault is None else (fault.get("message") or "").partition("\n")[0],
    )
