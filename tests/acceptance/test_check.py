"""``mgs check``: what it tries, what it says of a failure, what its report leaves out."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.check import report
from api.cli.check.commands import Machine
from api.cli.check.report import anonymous, write_report
from api.cli.client import CliError
from api.cli.doctor import Check
from tests.helpers.server import ROOT, link_models

HOME = str(Path.home())


def machine_with(models: Path, name: str) -> Machine:
    return Machine(models, [name], seconds=0.0, is_sleeping=False, say=lambda text: None)


def test_a_model_is_tried_from_its_load_to_the_limits_of_its_context(tmp_path: Path) -> None:
    machine = machine_with(link_models(tmp_path / "models"), "demo.gguf")
    found = list(machine._with_one_server())
    assert [check.verdict for check in found] == ["ok"] * len(found), found
    assert [check.subject for check in found] == [
        "answers of demo.gguf",
        "1 models at once",
        "second turn of a long chat, demo.gguf",
        "memory of demo.gguf",
        "a prompt beyond the context",
        "a load with 32 whole contexts",
        "the model beside it",
    ]
    assert "worker started" in machine.log


def test_what_fails_is_a_row_and_the_others_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_with(tmp_path, "demo")

    def fail() -> Iterator[Check]:
        yield Check("ok", "first", "fine")
        raise CliError("demo does not load: 400 broken")

    def work() -> Iterator[Check]:
        yield Check("ok", "last", "fine")

    for name in ("_with_one_server", "_prompt_speeds"):
        monkeypatch.setattr(Machine, name, lambda self: fail())
    monkeypatch.setattr(Machine, "_beside_bare", lambda self: work())
    found = list(machine.examine())
    assert found == machine.done
    assert [check.subject for check in found][-5:] == [
        "first", "a server", "first", "prompt speed", "last",
    ]  # fmt: skip
    assert found[-2] == Check("problem", "prompt speed", "CliError: demo does not load: 400 broken")


def test_a_report_names_neither_folders_nor_people_nor_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "project_root", lambda: tmp_path)
    monkeypatch.setattr(getpass, "getuser", lambda: "grace")
    monkeypatch.setattr(platform, "node", lambda: "graces-mac")
    checks = [Check("problem", "x", f"{tmp_path}/a and {HOME}/b, {platform.node()}, for grace")]
    written = write_report(checks, f"a line from {HOME}").read_text()
    for name in (str(tmp_path), platform.node(), "grace"):
        assert name not in written
    assert "problem  x: PROJECT/a and HOME/b, MACHINE, for USER" in written
    assert "a line from HOME" in written


def test_short_names_stay_since_they_are_in_every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "al")
    assert anonymous("all of it") == "all of it"
    assert str(ROOT) not in anonymous(f"{ROOT}/models")
