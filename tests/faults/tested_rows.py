"""Rows that are covered by tests of other folders: those are run repeatedly and counted."""

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
    """A run of these tests ``rounds`` times; all must pass."""

    def act(rig: Rig, rounds: int) -> Result:
        tally, num_passed = Tally(), 0
        for _ in range(rounds):
            output = _pytest(nodes, env)
            num_passed += _count("passed", output)
            tally.check(_count("passed", output) > 0, f"none passed: {output[-200:]}")
            for failure in re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE):
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


def _count(word: str, output: str) -> int:
    found = re.findall(rf"(\d+) {word}", output)
    return int(found[-1]) if found else 0


_CONSUMER = "tests/integration/test_queue_consumer_faults.py"
_FORGED = f"{_CONSUMER}::TestForgedJobs"

TESTED = {
    "F9": (_CONSUMER,),
    "B1": ("tests/fuzz",),
    "B8": ("tests/engines/test_llama_cpp_loading.py", "tests/engines/test_mlx_loading.py"),
    "S1": (f"{_FORGED}::test_no_field_of_a_forged_hash_is_obeyed",),
    "S2": (f"{_FORGED}::test_a_pickle_as_data_is_never_read",),
    "S8": ("tests/unit/test_template_sandbox.py",),
    "S14": ("tests/integration/test_dashboard.py",),
    "U4": (
        "tests/integration/test_queue_consumer.py",
        "tests/integration/test_recovery.py",
        "tests/acceptance/test_serving.py::test_rq_info_and_redis_cli_show_the_queue",
    ),
}
_FULL = {"F9": 5, "B1": 1, "B8": 3, "S1": 10, "S2": 10, "S8": 5, "S14": 3, "U4": 3}
_ENV = {"B1": {"MGS_FUZZ_BODIES": "10000"}}

RUNS = {
    key: Run(tested(*nodes, **_ENV.get(key, {})), full=_FULL[key]) for key, nodes in TESTED.items()
}
