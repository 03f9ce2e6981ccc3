"""docs/grafana.json asks for metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

from api.admin.monitoring.metrics import Snapshot, metrics_text
from jobs.contract.records import DesiredModel, NodeStatus, WorkerState, WorkerStatus
from jobs.contract.requests import LoadRequest
from jobs.storage.desired_models import LoadedModel
from jobs.storage.totals import Sum, Totals

_BOARD = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())


def _metric_names() -> set[str]:
    """All names of a server with one model that has ended a job and crashed once."""
    desired = DesiredModel("0", "uid", LoadRequest("m", "fake"), "job", 1.0)
    status = WorkerStatus("0", WorkerState.READY, 1, "here", [])
    sums = {name: {"0": 1.0} for name in Sum}
    totals = Totals({("mgs.generate", "finished", "0"): 1}, sums)
    node = NodeStatus("here", 1, 1, crashes={"0": 1}, uid="n")
    text = metrics_text(
        Snapshot([LoadedModel(desired, status)], [node], totals, {("0", "generation"): 1})
    ).decode()
    return set(re.findall(r"^(mgs_\w+)", text, re.MULTILINE))


def test_every_metric_of_the_dashboard_exists() -> None:
    expressions = [target["expr"] for panel in _BOARD["panels"] for target in panel["targets"]]
    expressions.append(_BOARD["templating"]["list"][1]["query"]["query"])
    asked = {name for text in expressions for name in re.findall(r"mgs_\w+", text)}
    assert len(asked) > 12
    assert asked <= _metric_names()


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in _BOARD["panels"]]
    assert len(set(places)) == len(places)
