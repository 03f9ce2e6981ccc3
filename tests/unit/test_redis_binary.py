"""The look-up of a Redis server: order, version floor, and the line when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.embedded_redis import binary
from jobs.embedded_redis.binary import RedisBinaryError, find_redis_binary, find_redis_cli


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No server anywhere but in the returned folder, which is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary, "_EXTRA_FOLDERS", ())
    monkeypatch.setattr(binary, "_WHEELS", {"no_such_package": "bin/redis-server"})
    return tmp_path


def test_a_server_on_path_comes_first(bare_machine: Path) -> None:
    _program(bare_machine / "redis-server", "Redis server v=7.4.6 sha=00000000:0 malloc=libc")
    found = find_redis_binary()
    assert found.path == bare_machine / "redis-server"
    assert found.version == (7, 4, 6)
    assert found.version_text == "7.4.6"


def test_a_package_program_on_path_is_not_the_machines(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, system = bare_machine / "venv", bare_machine / "bin"
    for folder, version in ((own, "6.2.14"), (system, "7.4.6")):
        folder.mkdir()
        _program(folder / "redis-server", f"Redis server v={version} sha=00000000:0")
    monkeypatch.setenv("PATH", f"{own}:{system}")
    monkeypatch.setattr(binary, "_SCRIPTS", own)
    assert find_redis_binary().path == system / "redis-server"


def test_valkey_counts_as_redis(bare_machine: Path) -> None:
    _program(bare_machine / "valkey-server", "Valkey server v=8.1.1 sha=00000000:0")
    _program(bare_machine / "valkey-cli", "valkey-cli 8.1.1")
    assert find_redis_binary().path.name == "valkey-server"
    assert find_redis_cli() == bare_machine / "valkey-cli"


def test_one_that_is_too_old_is_passed_over(bare_machine: Path) -> None:
    _program(bare_machine / "redis-server", "Redis server v=6.0.16 sha=00000000:0")
    _program(bare_machine / "valkey-server", "Valkey server v=7.2.5 sha=00000000:0")
    assert find_redis_binary().version == (7, 2, 5)


def test_without_one_of_the_machine_a_package_has_it(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare_machine / "lib" / "some_wheel" / "_binaries" / "this-machine"
    folder.mkdir(parents=True)
    (bare_machine / "lib" / "some_wheel" / "__init__.py").touch()
    _program(folder / "valkey-server", "Valkey server v=9.1.2 sha=00000000:1")
    monkeypatch.syspath_prepend(bare_machine / "lib")
    monkeypatch.setattr(binary, "_WHEELS", {"some_wheel": "_binaries/*/valkey-server"})
    assert find_redis_binary().path == folder / "valkey-server"
    assert find_redis_cli() is None


def test_without_any_one_line_says_what_to_install(bare_machine: Path) -> None:
    with pytest.raises(
        RedisBinaryError, match=r"brew install .* apt-get install .* REDIS_URL"
    ) as e:
        find_redis_binary()
    assert "\n" not in str(e.value)
    assert find_redis_cli() is None


def test_only_an_old_one_is_named_with_its_version(bare_machine: Path) -> None:
    _program(bare_machine / "redis-server", "Redis server v=5.0.7 sha=00000000:0")
    with pytest.raises(RedisBinaryError, match=r"redis-server is 5\.0\.7"):
        find_redis_binary()


def test_a_program_that_does_not_run_is_passed_over(bare_machine: Path) -> None:
    (bare_machine / "redis-server").write_text("not a program")
    (bare_machine / "redis-server").chmod(0o755)
    with pytest.raises(RedisBinaryError, match="does not run"):
        find_redis_binary()


def _program(path: Path, output: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
