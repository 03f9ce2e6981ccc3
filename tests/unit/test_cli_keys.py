"""``mgs keys``: what it prints, and what it says of a mistake."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import main
from api.cli.client import CliError
from jobs.keys.keys_file import KeysFile, hash_of


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.toml"
    monkeypatch.setenv("MGS_KEYS_FILE", str(path))
    return path


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(main.app, ["keys", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_key_is_printed_alone_and_once(file: Path) -> None:
    options = ["--weight", "2", "--model", "a*", "--model", "b", "--class", "batch", "--rpm", "5"]
    key = _run("add", "alice", *options).strip()
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    caller = KeysFile(file).check().by_hash[hash_of(key)]
    assert (caller.weight, caller.models) == (2.0, ("a*", "b"))
    assert set(caller.classes) == {"batch"}
    assert (caller.rpm, caller.is_manager) == (5, False)
    other = _run("rotate", "alice").strip()
    assert set(KeysFile(file).check().by_hash) == {hash_of(other)}
    listed = _run("list")
    assert "alice" in listed
    assert key not in listed
    assert _run("remove", "alice") == "key alice is removed\n"
    assert "there are no keys" in _run("list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "alice"], "there is a key 'alice' already"),
        (["add", "default"], "name: 'default' is the name of a key of the settings"),
        (["add", "bob", "--weight", "0"], "weight: "),
        (["add", "bob", "--class", "slow"], "classes.0: "),
        (["remove", "bob"], "there is no key 'bob'"),
        (["rotate", "bob"], "there is no key 'bob'"),
    ],
)
def test_a_mistake_is_one_line(file: Path, arguments: list[str], message: str) -> None:
    _run("add", "alice")
    before = file.read_text()
    with pytest.raises(CliError, match=message):
        _run(*arguments)
    assert file.read_text() == before


def test_without_a_file_it_says_which_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MGS_KEYS_FILE", raising=False)
    with pytest.raises(CliError, match="MGS_KEYS_FILE"):
        _run("list")


def test_a_wrong_file_is_named(file: Path) -> None:
    file.write_text("[[keys]]\nname = 5\n")
    for command in (["list"], ["add", "bob"]):
        with pytest.raises(CliError, match=r"keys.toml: keys\[0\]: name"):
            _run(*command)
