"""Rows that tests of other folders try already: here they are run again and again, and counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

from tests.faults.registry import Result, Run, Tally
from tests.faults.rig import Rig
from tests.helpers.server import ROOT

_TIMEOUT_S = 1800


def tested(*nodes: str, **env: str) -> Callable[[Rig, int], Result]:
    """Run these tests ``rounds`` times; every one must pass."""

    def act(rig: Rig, rounds: int) -> Result:
        tally, num_passed = Tally(), 0
        for _ in range(rounds):
            said = _pytest(nodes, env)
            num_passed += _count("passed", said)
            tally.check(_count("passed", said) > 0, f"none passed: {said[-200:]}")
            for failure in re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE):
                tally.check(False, failure)
            tally.rounds += 1
        return tally.result(f"{num_passed} tests passed")

    return act


def _pytest(nodes: tuple[str, ...], env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nodes]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    return done.stdout + done.stderr


def _count(word: str, said: str) -> int:
    found = re.findall(rf"(\d+) {word}", said)
    return int(found[-1]) if found else 0


_LANE = "tests/integration/test_lane_faults.py"
_FORGED = f"{_LANE}::TestForgedJobs"
_REDIS = "tests/integration/test_redis_server.py"

RUNS = {
    "F9": Run(tested(_LANE), full=5),
    "B1": Run(tested("tests/fuzz", MGS_FUZZ_BODIES="10000"), full=1),
    "B8": Run(
        tested("tests/engines/test_llama_cpp_loading.py", "tests/engines/test_mlx_loading.py"),
        full=3,
    ),
    "S1": Run(tested(f"{_FORGED}::test_no_field_of_a_forged_hash_is_obeyed"), full=10),
    "S2": Run(tested(f"{_FORGED}::test_a_pickle_as_data_is_never_read"), full=10),
    "S8": Run(tested("tests/unit/test_template_sandbox.py"), full=5),
    "S14": Run(tested("tests/integration/test_dashboard.py"), full=3),
    "U4": Run(
        tested(
            "tests/integration/test_lane.py",
            "tests/integration/test_undertaker.py",
            "tests/acceptance/test_serving.py::test_rq_info_and_redis_cli_show_the_queue",
        ),
        full=3,
    ),
}
