"""What `make` asks before it installs, on machines that are played by programs of their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
_PLAY = """\
import platform, sys
sys.version_info, sys.platform = ({version}, 0), "{system}"
platform.machine = lambda: "{machine}"
exec(sys.argv[1])
"""


class Machine:
    """A machine on whose PATH are only these programs."""

    def __init__(self, folder: Path, system: str = "Linux", machine: str = "x86_64") -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self._system, self._machine = system, machine
        self.add("uname", f"echo {system}")

    def add(self, name: str, *lines: str) -> Path:
        program = self.folder / name
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        program.chmod(0o755)
        return program

    def add_python(self, name: str, version: str, machine: str | None = None) -> Path:
        play = _PLAY.format(
            version=version.replace(".", ", "),
            system=self._system.lower(),
            machine=machine or self._machine,
        )
        script = self.folder / f"{name}.play"
        script.write_text(play)
        return self.add(name, f'exec {sys.executable} "{script}" "$2"')

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(_SCRIPTS / script)],
            env={"PATH": str(self.folder), **environment},
            capture_output=True,
            text=True,
        )

    def found(self, **environment: str) -> str:
        done = self.run("find_python.sh", **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def refusal(self, script: str = "find_python.sh", **environment: str) -> str:
        done = self.run(script, **environment)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        return done.stderr


def mac(folder: Path, version: str = "15.1", silicon: str = "1") -> Machine:
    found = Machine(folder, "Darwin", "arm64")
    found.add("sw_vers", f"echo {version}")
    found.add("sysctl", f'[ "$2" = hw.optional.arm64 ] && echo {silicon}')
    return found


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_that_is_supported_is_found(tmp_path: Path, version: str) -> None:
    machine = Machine(tmp_path)
    path = machine.add_python(f"python{version}", version)
    machine.add_python("python3", "3.9")
    assert machine.found() == f"{path}\n"


@pytest.mark.parametrize("version", ["3.10", "3.15", "2.7"])
def test_no_other_python_is_taken(tmp_path: Path, version: str) -> None:
    machine = Machine(tmp_path)
    machine.add_python("python3", version)
    assert "Python 3.11 to 3.14 is needed and none was found: install one" in machine.refusal()


def test_a_machine_without_any_python_is_told_what_to_do(tmp_path: Path) -> None:
    assert "make PYTHON=/path/to/python3 serve" in Machine(tmp_path).refusal()


def test_a_python_that_is_named_is_taken_and_no_other(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_python("python3.11", "3.11")
    named = machine.add_python("my python", "3.13")
    assert machine.found(PYTHON=str(named)) == f"{named}\n"
    old = machine.add_python("old", "3.8")
    for wrong in (str(old), "/nowhere/python"):
        assert machine.refusal(PYTHON=wrong).startswith(f"{wrong} is no Python 3.11 to 3.14")


def test_where_there_is_no_python_uv_brings_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    brought = machine.add_python("brought", "3.11")
    machine.add(
        "uv",
        f'echo "$@" >> {tmp_path}/called',
        f'case "$2" in install) : > {tmp_path}/there;;',
        f"find) [ -e {tmp_path}/there ] && echo {brought};; esac",
    )
    done = machine.run("find_python.sh")
    assert (done.returncode, done.stdout) == (0, f"{brought}\n")
    assert (tmp_path / "called").read_text().splitlines() == [
        "python find --system >=3.11,<3.15",
        "python install 3.11",
        "python find --system 3.11",
    ]


def test_where_uv_cannot_bring_one_the_remedy_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("uv", "exit 2")
    done = machine.run("find_python.sh")
    assert (done.returncode, done.stdout) == (1, "")
    assert "none was found: install one" in done.stderr


def test_a_mac_with_its_own_kind_of_python_is_served(tmp_path: Path) -> None:
    machine = mac(tmp_path)
    path = machine.add_python("python3.12", "3.12")
    assert machine.found() == f"{path}\n"


def test_a_python_for_intel_is_passed_over(tmp_path: Path) -> None:
    machine = mac(tmp_path)
    machine.add_python("python3.11", "3.11", machine="x86_64")
    right = machine.add_python("python3.13", "3.13")
    assert machine.found() == f"{right}\n"


def test_a_mac_with_a_python_for_intel_only_is_told_so(tmp_path: Path) -> None:
    machine = mac(tmp_path)
    path = machine.add_python("python3", "3.12", machine="x86_64")
    for environment in ({}, {"PYTHON": str(path)}):
        said = machine.refusal(**environment)
        assert said.startswith(f"{path} is for Intel processors here")
        assert "/opt/homebrew/bin/brew install python@3.11" in said


def test_uv_brings_a_mac_a_python_of_its_own_kind(tmp_path: Path) -> None:
    machine = mac(tmp_path)
    machine.add_python("python3", "3.12", machine="x86_64")
    brought = machine.add_python("brought", "3.11")
    machine.add("uv", f'[ "$4" = cpython-3.11-macos-aarch64-none ] && echo {brought}')
    assert machine.found() == f"{brought}\n"


@pytest.mark.parametrize("version", ["13.7.1", "12.0"])
def test_a_macos_without_mlx_is_refused(tmp_path: Path, version: str) -> None:
    machine = mac(tmp_path, version)
    machine.add_python("python3.12", "3.12")
    assert machine.refusal().startswith(f"macOS {version} is too old for MLX: update to macOS 14")


def test_a_mac_with_an_intel_processor_is_refused(tmp_path: Path) -> None:
    machine = mac(tmp_path, silicon="")
    machine.add_python("python3.12", "3.12", machine="x86_64")
    assert "no Apple silicon" in machine.refusal()


def test_without_a_compiler_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add("cc")
    assert "(c++)" in machine.refusal("check_compiler.sh")
    assert "sudo apt install build-essential" in machine.refusal("check_compiler.sh", CC="no-cc")
    machine.add("c++")
    assert machine.run("check_compiler.sh").returncode == 0
    machine.add("ccache")
    assert machine.run("check_compiler.sh", CC="ccache cc", CXX="c++").returncode == 0


def test_a_mac_without_its_tools_is_told_the_command(tmp_path: Path) -> None:
    machine = mac(tmp_path)
    machine.add("cc")
    machine.add("xcode-select", "exit 2")
    assert "xcode-select --install" in machine.refusal("check_compiler.sh")
    machine.add("xcode-select", "echo /Library/Developer/CommandLineTools")
    assert machine.run("check_compiler.sh").returncode == 0
