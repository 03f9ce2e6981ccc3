"""What the command line says about memory."""

from __future__ import annotations

from typing import Any

import pytest

from api.cli.doctor import budget_check
from api.cli.tables import show_estimate, show_processes
from jobs.memory.facts import Gpu, MachineFacts
from jobs.settings import Settings

GIB = 1 << 30
ESTIMATE = {
    "model_name": "demo",
    "model_type": "mlx",
    "basis": "guess",
    "weights_bytes": 4_000_000_000,
    "state_bytes": 1_000_000_000,
    "compute_bytes": 500_000_000,
    "prompt_cache_bytes": 1_500_000_000,
    "total_bytes": 7_000_000_000,
    "context_length": 8192,
    "slots": 8,
    "budget_bytes": 6_000_000_000,
    "fits": False,
}


def test_an_estimate_is_a_table_with_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    show_estimate(ESTIMATE)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "state 1.0 GB one text of 8192 tokens" in lines
    assert "in all 7.0 GB a guess: not all of this architecture is known" in lines
    assert lines[-1] == "demo does not fit within 6.0 GB"
    show_estimate({**ESTIMATE, "budget_bytes": None, "fits": None})
    assert "fit" not in capsys.readouterr().out


def test_ps_shows_what_is_used_of_what_is_reserved(capsys: pytest.CaptureFixture[str]) -> None:
    process: dict[str, Any] = {
        "model_id": "0",
        "model_name": "demo",
        "model_type": "mlx",
        "memory_usage": 2_000_000_000,
        "reserved_bytes": 3_000_000_000,
        "current_queue": {"request_queue_size": 0},
    }
    node = {"node": "here", "reserved_bytes": 3_000_000_000, "budget_bytes": 12_000_000_000}
    show_processes({"processes": [process], "nodes": [node, {**node, "budget_bytes": None}]})
    output = capsys.readouterr().out
    assert "2.0 GB of 3.0 GB" in output
    assert output.splitlines()[-1] == "here: 3.0 GB of 12.0 GB reserved for models"


@pytest.mark.parametrize(
    ("setting", "verdict", "finding"),
    [
        ("", "ok", "8.6 GB for all together (what macOS recommends for the GPU)"),
        ("4GB", "ok", "4.0 GB for all together (MGS_MEMORY_BUDGET)"),
        ("90GB", "warning", "90.0 GB for all together (MGS_MEMORY_BUDGET): more than 17.2 GB"),
        ("0", "warning", "no limit (MGS_MEMORY_BUDGET)"),
    ],
)
def test_the_doctor_shows_the_budget(setting: str, verdict: str, finding: str) -> None:
    facts = MachineFacts(16 * GIB, {"mlx": Gpu("metal", 8 * GIB)})
    check = budget_check(Settings(memory_budget=setting), facts)
    assert (check.verdict, check.finding) == (verdict, finding)
