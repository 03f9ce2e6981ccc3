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
_BATCHES = "tests/acceptance/test_batches.py"
_WEBHOOKS = "tests/integration/test_webhook_faults.py"
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
    "N1": (f"{_BATCHES}::test_a_killed_runner_is_followed_by_another_and_a_torn_line_is_cut",),
    "N2": (
        "tests/acceptance/test_message_batches.py"
        "::test_a_batch_goes_on_after_a_kill_of_the_runner_and_of_the_api",
        "tests/acceptance/test_batch_runners.py"
        "::test_one_of_two_runners_has_a_batch_and_the_other_takes_it_over",
    ),
    "N3": (
        f"{_BATCHES}::test_a_full_disk_pauses_the_batch",
        "tests/integration/test_api_files.py::test_a_full_disk_gets_507_and_leaves_nothing",
    ),
    "N4": (
        f"{_BATCHES}::test_a_loss_of_all_data_in_redis_loses_no_batch",
        "tests/integration/test_api_files.py::test_the_files_are_listed_again_after_a_loss_of_redis",
    ),
    "N5": (
        "tests/acceptance/test_files.py"
        "::test_nothing_of_an_upload_is_listed_or_left_after_a_kill_of_the_api",
        "tests/integration/test_file_store_kills.py",
    ),
    "N6": ("tests/integration/test_api_uploads.py::test_an_upload_expires_with_its_parts",),
    "N7": (
        f"{_WEBHOOKS}::test_what_a_lost_receiver_missed_is_delivered_once_it_is_back",
        f"{_WEBHOOKS}::test_a_receiver_that_hangs_is_given_up",
    ),
    "N8": (
        f"{_WEBHOOKS}::test_no_delivery_is_lost_with_a_sender_that_is_killed",
        f"{_WEBHOOKS}::test_senders_go_on_after_redis_was_killed",
    ),
    "N9": (
        "tests/acceptance/test_batch_keys.py"
        "::test_what_was_accepted_of_a_key_that_is_removed_runs_to_its_end",
    ),
    "N10": (
        "tests/acceptance/test_batch_clock.py"
        "::test_each_line_is_answered_once_while_the_clock_jumps",
    ),
}
_FULL = {"F9": 5, "B1": 1, "B8": 3, "S1": 10, "S2": 10, "S8": 5, "S14": 3, "U4": 3}
_FULL |= {key: 3 for key in TESTED if key.startswith("N")}
_ENV = {"B1": {"MGS_FUZZ_BODIES": "10000"}}

RUNS = {
    key: Run(tested(*nodes, **_ENV.get(key, {})), full=_FULL[key]) for key, nodes in TESTED.items()
}
