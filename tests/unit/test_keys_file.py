"""The keys file: what it may say, what an error names, and how it is changed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.keys.caller import Caller, caller_of_name
from jobs.keys.editing import add_key, remove_key, rotate_key
from jobs.keys.keys_file import KeyEntry, KeysFile, KeysFileError, hash_of, parse_keys

_HASH = hash_of("key")
_ENTRY = f'[[keys]]\nname = "alice"\nsha256 = "{_HASH}"\n'


def problems_of(text: str, file: str = "keys.toml") -> list[str]:
    with pytest.raises(KeysFileError) as error:
        parse_keys(text, Path(file))
    return error.value.problems


def test_an_entry_says_all_that_a_caller_has() -> None:
    more = (
        'weight = 2\npriority_floor = -5\nclasses = ["batch"]\nmodels = ["a*"]\n'
        "max_jobs = 3\nmax_running = 2\nrpm = 60\ntpm = 1000\nis_manager = true\n"
    )
    keys = parse_keys(_ENTRY + more, Path("keys.toml"))
    assert keys.by_hash[_HASH] == Caller(
        id=caller_of_name("alice"),
        name="alice",
        is_manager=True,
        may_manage=True,
        weight=2,
        priority_floor=-5,
        classes=frozenset({"batch"}),
        models=("a*",),
        max_jobs=3,
        max_running=2,
        rpm=60,
        tpm=1000,
    )


def test_json_says_the_same() -> None:
    text = json.dumps({"keys": [{"name": "alice", "sha256": _HASH.upper()}]})
    assert parse_keys(text, Path("k.json")).by_hash == parse_keys(_ENTRY, Path("k")).by_hash


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (_ENTRY + "rpm = 0", "keys.toml: keys[0] ('alice'): rpm: "),
        (_ENTRY + "rpm = true", "keys.toml: keys[0] ('alice'): rpm: "),
        (_ENTRY + "weight = nan", "keys.toml: keys[0] ('alice'): weight: "),
        (_ENTRY + "weight = 0", "keys.toml: keys[0] ('alice'): weight: "),
        (_ENTRY + "priority_floor = 101", "keys.toml: keys[0] ('alice'): priority_floor: "),
        (_ENTRY + 'classes = ["fast"]', "keys.toml: keys[0] ('alice'): classes.0: "),
        (_ENTRY + "models = []", "keys.toml: keys[0] ('alice'): models: "),
        (_ENTRY + 'colour = "red"', "keys.toml: keys[0] ('alice'): colour: unknown field"),
        (_ENTRY.replace(_HASH, "abc"), "keys.toml: keys[0] ('alice'): sha256: must be"),
        (_ENTRY.replace("alice", "a b"), "keys.toml: keys[0] ('a b'): name: must be"),
        (_ENTRY.replace("alice", "default"), "keys.toml: keys[0] ('default'): name: "),
        ('[[keys]]\nname = "alice"', "keys.toml: keys[0] ('alice'): sha256: Field required"),
        (_ENTRY + _ENTRY, "keys.toml: 'alice': name: two keys have it"),
        (_ENTRY + _ENTRY.replace("alice", "bob"), "keys.toml: 'bob': sha256: 'alice' has"),
        ("keys = 1", "keys.toml: keys: must be a list"),
        ("keys = [1]", "keys.toml: keys[0]: "),
        ("[alice]", "keys.toml: alice: unknown; keys are entries"),
        ("[[keys", "keys.toml: "),
    ],
)
def test_an_error_names_file_entry_and_field(text: str, problem: str) -> None:
    assert problems_of(text)[0].startswith(problem)


def test_all_errors_are_named_at_once() -> None:
    assert len(problems_of(_ENTRY + "rpm = 0\ntpm = -1\n" + _ENTRY + "weight = 1e9")) == 3


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_no_text_is_more_than_an_error(text: str) -> None:
    for name in ("k.toml", "k.json"):
        with contextlib.suppress(KeysFileError):
            parse_keys(text, Path(name))


def test_a_name_keeps_its_id_and_a_pattern_its_meaning() -> None:
    assert len(caller_of_name("alice")) == 16
    caller = Caller(models=("qwen*", "a?b"))
    assert [caller.may_use(name) for name in ("qwen3", "axb", "Qwen3", "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert Caller(models=("x",), is_manager=True).may_use("y")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, caplog) -> None:
    path = tmp_path / "keys.toml"
    file = KeysFile(path)
    assert file.read().entries == ()
    path.write_text(_ENTRY)
    assert [entry.name for entry in file.read().entries] == ["alice"]
    assert file.read() is file.read()
    path.write_text("[[keys")
    caplog.clear()
    for _ in range(3):
        assert [entry.name for entry in file.read().entries] == ["alice"]
    assert len(caplog.records) == 1
    assert caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize("file", ["keys.toml", "keys.json"])
def test_keys_are_added_rotated_and_removed(tmp_path: Path, file: str) -> None:
    path = tmp_path / "new" / file
    first = add_key(path, "alice", {"weight": 2.0, "models": ['we"ird\\*', "ü*"]})
    second = add_key(path, "bob", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first not in path.read_text()
    keys = KeysFile(path).check()
    assert keys.by_hash[hash_of(first)].models == ('we"ird\\*', "ü*")
    assert keys.by_hash[hash_of(second)].name == "bob"
    third = rotate_key(path, "alice")
    keys = KeysFile(path).check()
    assert set(keys.by_hash) == {hash_of(third), hash_of(second)}
    assert keys.by_hash[hash_of(third)].weight == 2
    remove_key(path, "alice")
    remove_key(path, "bob")
    assert KeysFile(path).check().entries == ()
    for change in (lambda: rotate_key(path, "bob"), lambda: remove_key(path, "bob")):
        with pytest.raises(KeysFileError, match="no key 'bob'"):
            change()


def test_comments_and_other_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    bob = _ENTRY.replace("alice", "bob").replace(_HASH, hash_of("bob"))
    path.write_text(f"# ours\n\n# Alice, until May\n{_ENTRY}\n# Bob\n{bob}rpm = 5 # slow\n")
    add_key(path, "carol", {})
    remove_key(path, "alice")
    text = path.read_text()
    assert text.startswith("# ours\n\n# Alice, until May\n# Bob\n[[keys]]")
    assert 'rpm = 5 # slow\n\n[[keys]]\nname = "carol"' in text


@pytest.mark.parametrize(
    "text",
    [
        f'keys = [{{ name = "alice", sha256 = "{_HASH}" }}]\n',
        f'[[keys]]\nname = """alice"""\nsha256 = """\\\n{_HASH}"""\n',
    ],
)
def test_a_file_in_another_form_is_not_spoiled(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(KeysFileError, match="by hand"):
        rotate_key(path, "alice")
    assert path.read_text() == text


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.symlink_to(tmp_path / "real.toml")
    add_key(path, "alice", {})
    assert path.is_symlink()
    assert KeysFile(path).check().entries[0].name == "alice"


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.toml"
    add_key(path, "alice", {})
    before = path.read_text()
    (tmp_path / ".keys.toml.new").write_text("[[keys]]  # of a program that was killed")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        add_key(path, "bob", {})
    monkeypatch.undo()
    assert path.read_text() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [".keys.toml.lock", "keys.toml"]
    add_key(path, "bob", {})
    assert len(KeysFile(path).check().entries) == 2


def test_two_programs_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: add_key(path, f"key{n}", {}), range(20)))
    assert len(KeysFile(path).check().entries) == 20
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".keys.toml.")] == [
        ".keys.toml.lock"
    ]


def test_a_wrong_option_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(ValueError, match="rpm"):
        add_key(path, "alice", {"rpm": 0})
    assert not path.exists()
    assert KeyEntry(name="a", sha256=_HASH).to_caller().priority_floor == 0


def test_a_thousand_keys_are_found_at_once(tmp_path: Path) -> None:
    entries = [{"name": f"k{n}", "sha256": hash_of(str(n))} for n in range(1000)]
    path = tmp_path / "k.json"
    path.write_text(json.dumps({"keys": entries}))
    file = KeysFile(path)
    assert file.read().by_hash[hash_of("999")].name == "k999"
    assert problems_of(json.dumps({"keys": [*entries, entries[0]]}), "k.json")
