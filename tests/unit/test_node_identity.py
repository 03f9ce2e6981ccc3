"""Who a supervisor is: the same node after a restart, nobody else anywhere else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.platform.current import current_platform
from workers.supervision import node_identity
from workers.supervision.node_identity import NodeIdentity, identify, save


class Starts:
    """Processes that identify themselves in a folder, one after the other or at once."""

    def __init__(self) -> None:
        self._running: list[NodeIdentity] = []

    def start(self, folder: Path) -> NodeIdentity:
        found = identify(folder)
        self._running.append(found)
        return found

    def end(self, identity: NodeIdentity) -> None:
        """What the system does with the files of a process that ends."""
        if identity._lock is not None:
            identity._lock.close()

    def restart(self, folder: Path) -> NodeIdentity:
        for identity in self._running:
            self.end(identity)
        return self.start(folder)


@pytest.fixture
def starts() -> Iterator[Starts]:
    found = Starts()
    yield found
    for identity in found._running:
        found.end(identity)


def test_a_restarted_node_keeps_its_uid_and_knows_that_its_earlier_processes_are_gone(
    starts: Starts, tmp_path: Path
) -> None:
    found = [starts.restart(tmp_path / "state") for _ in range(3)]
    assert len({identity.uid for identity in found}) == 1
    assert len({identity.token for identity in found}) == 3
    assert [found[2].is_gone(identity.owner) for identity in found] == [True, True, False]
    assert not found[0].is_gone(found[2].owner)


def test_a_process_that_was_killed_is_gone_for_the_next_one(tmp_path: Path) -> None:
    """The lock ends with the process, and with nothing else."""
    code = "import sys; from pathlib import Path; "
    code += "from workers.supervision.node_identity import identify; "
    code += "me = identify(Path(sys.argv[1])); print(me.owner, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode().strip()
        beside = identify(tmp_path)
        assert not beside.is_gone(first)
        process.kill()
    after = identify(tmp_path)
    assert after.is_gone(first)
    assert after.uid == first.partition("|")[0]
    assert after._lock is not None
    after._lock.close()


def test_the_second_process_at_a_time_is_another_node(starts: Starts, tmp_path: Path) -> None:
    first, second = starts.start(tmp_path), starts.start(tmp_path)
    assert second.uid != first.uid
    assert not second.is_gone(first.owner)
    starts.end(second)
    third = starts.restart(tmp_path)
    assert third.uid == first.uid
    assert third.is_gone(first.owner)
    assert not third.is_gone(second.owner)


def test_a_copied_folder_is_another_node(starts: Starts, tmp_path: Path) -> None:
    first = starts.start(tmp_path / "state")
    starts.end(first)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    copy = starts.start(tmp_path / "copy")
    assert copy.uid != first.uid
    assert not copy.is_gone(first.owner)
    assert starts.restart(tmp_path / "copy").uid == copy.uid


def test_after_a_new_start_of_the_system_nobody_is_known_to_be_gone(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was cloned has started anew, and what it was cloned from may live."""
    first = starts.start(tmp_path)
    monkeypatch.setattr(current_platform(), "boot_id", lambda: "another")
    second = starts.restart(tmp_path)
    assert second.uid == first.uid
    assert not second.is_gone(first.owner)
    assert starts.restart(tmp_path).is_gone(second.owner)


def test_a_machine_without_linux_files_has_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_file)
    assert node_identity._machine_id() == f"{uuid.getnode():012x}"


def test_the_folder_on_another_machine_is_another_node(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = starts.start(tmp_path)
    monkeypatch.setattr(node_identity, "_machine_id", lambda: "another")
    assert starts.restart(tmp_path).uid != first.uid


def test_equal_names_of_hosts_make_no_two_nodes_one(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_platform(), "node_name", lambda: "box")
    first, second = starts.start(tmp_path / "a"), starts.start(tmp_path / "b")
    starts.end(first)
    assert (first.name, second.name) == ("box", "box")
    assert second.uid != first.uid
    assert not second.is_gone(first.owner)


def _changed(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **fields}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"{",
        lambda _: b"\xff\xfe",
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"{}",
        lambda data: data[: len(data) // 2],
        _changed(uid=7),
        _changed(uid=""),
        _changed(uid="a|b"),
        _changed(tokens="abc"),
        _changed(tokens=[["abc"]]),
        _changed(tokens=[None]),
    ],
)
def test_from_a_file_that_is_of_no_use_nothing_is_believed(
    starts: Starts, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    first = starts.start(tmp_path)
    file = tmp_path / "node.json"
    file.write_bytes(damage(file.read_bytes()))
    second = starts.restart(tmp_path)
    assert second.uid not in ("", first.uid)
    assert not second.is_gone(first.owner)
    assert second.owner.count("|") == 1
    third = starts.restart(tmp_path)
    assert third.uid == second.uid
    assert third.is_gone(second.owner)


def test_an_identity_that_cannot_be_kept_serves_for_this_start(
    starts: Starts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or a folder that others own, must not keep the models from being served."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    full = starts.start(tmp_path / "state")
    monkeypatch.setattr(Path, "mkdir", refuse)
    foreign = starts.start(tmp_path / "foreign")
    assert full.uid != foreign.uid
    assert "" not in (full.uid, foreign.uid)


def test_no_more_than_the_last_sixteen_tokens_are_kept(starts: Starts, tmp_path: Path) -> None:
    found = [starts.restart(tmp_path) for _ in range(20)]
    assert [found[-1].is_gone(identity.owner) for identity in found[2:]] == (
        [False] + [True] * 16 + [False]
    )


def test_a_uid_that_somebody_else_uses_is_given_up_for_good(starts: Starts, tmp_path: Path) -> None:
    first = starts.start(tmp_path)
    renamed = first.with_new_uid()
    save(renamed, tmp_path)
    assert renamed.uid != first.uid
    after = starts.restart(tmp_path)
    assert after.uid == renamed.uid
    assert after.is_gone(renamed.owner)
    assert not after.is_gone(first.owner)
