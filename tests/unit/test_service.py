"""``mgs service``: the files that it writes, and the commands that it runs, for each system."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import main
from api.cli.client import CliError
from api.cli.serve import project_root
from api.cli.service import launchd
from api.cli.service.launchd import Launchd
from api.cli.service.programs import Said, run_program
from api.cli.service.spec import ServiceSpec, make_spec
from api.cli.service.systemd import Systemd
from jobs.settings import Settings

_ROOT = Path(__file__).resolve().parents[2]
_ODD = 'a "quoted" \\ 100 % $HOME <&> ü'
_GUI = f"gui/{os.getuid()}"


class Programs:
    """Programs that end as they are told, 0 otherwise, and note how they were called."""

    def __init__(self, **answers: Said | list[Said]) -> None:
        self.called: list[str] = []
        self._answers = {name.replace("_", " "): said for name, said in answers.items()}

    def __call__(self, *command: str, is_shown: bool = False) -> Said:
        self.called.append(" ".join(command))
        for beginning, said in self._answers.items():
            if self.called[-1].startswith(beginning):
                if isinstance(said, list):
                    return said.pop(0) if len(said) > 1 else said[0]
                return said
        return Said(0)


def spec(name: str = "mgs", folder: Path = _ROOT, **environment: str) -> ServiceSpec:
    return make_spec(name, folder, Settings(grace_s=3.0), environment, {})


# What is run.


def test_settings_of_the_shell_are_copied_and_nothing_else_of_it() -> None:
    shell = {"MGS_PORT": "4001", "MGS_SLOTS": "", "MGS_UNHEARD_OF": "1", "PATH": "/bin", "X": "y"}
    assert spec(**shell).environment == {"MGS_PORT": "4001"}


def test_what_the_env_file_says_is_left_to_it() -> None:
    shell = {"MGS_PORT": "4001", "MGS_HOST": "127.0.0.2", "MGS_API_KEY": "secret"}
    dotenv = {"MGS_PORT": "4000", "MGS_HOST": "127.0.0.2", "MGS_API_KEY": "secret"}
    made = make_spec("mgs", _ROOT, Settings(), shell, dotenv)
    assert made.environment == {"MGS_PORT": "4001"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MGS_API_KEY", "canary"),
        ("MGS_MANAGEMENT_KEY", "canary"),
        ("REDIS_URL", "redis://:canary@elsewhere"),
        ("REDIS_URL", "unix:///tmp/socket?password=canary"),
    ],
)
def test_no_secret_gets_into_a_services_file(variable: str, value: str) -> None:
    with pytest.raises(CliError, match=rf"{variable}: set in this shell only.*\.env") as caught:
        spec(**{variable: value})
    assert "canary" not in str(caught.value)


def test_a_redis_without_a_password_is_no_secret() -> None:
    assert spec(REDIS_URL="redis://host/1").environment == {"REDIS_URL": "redis://host/1"}


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "-a", "a b", "a" * 41, "a\n"])
def test_a_name_that_is_no_name_of_a_file_is_refused(name: str) -> None:
    with pytest.raises(CliError, match="--name"):
        spec(name)


def test_a_value_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(CliError, match="MGS_MODEL_ALIASES"):
        spec(MGS_MODEL_ALIASES="a=b\nExecStart=evil")


@pytest.mark.parametrize(("grace_s", "stop_s"), [(0.0, 10), (3.0, 13), (3.2, 14), (600.0, 610)])
def test_a_service_may_take_longer_to_stop_than_its_jobs(grace_s: float, stop_s: int) -> None:
    assert make_spec("mgs", _ROOT, Settings(grace_s=grace_s), {}, {}).stop_s == stop_s


# launchd.


def test_the_property_list_says_what_was_meant(tmp_path: Path) -> None:
    wanted = spec("second", MGS_PORT="4001", MGS_MODEL_ALIASES=_ODD)
    text = Launchd(Programs(), tmp_path).content(wanted)
    log = str(tmp_path / "Library/Logs/mgs/second.log")
    assert plistlib.loads(text.encode()) == {
        "Label": "local.second",
        "ProgramArguments": [sys.executable, "-m", "api.cli.main", "serve"],
        "WorkingDirectory": str(_ROOT),
        "EnvironmentVariables": {"MGS_PORT": "4001", "MGS_MODEL_ALIASES": _ODD},
        "RunAtLoad": True,
        "KeepAlive": True,
        "ProcessType": "Interactive",
        "ExitTimeOut": 13,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "SoftResourceLimits": {"NumberOfFiles": 10240},
        "HardResourceLimits": {"NumberOfFiles": 10240},
    }


def test_launchd_is_given_the_file_and_starts_the_job(tmp_path: Path) -> None:
    programs = Programs(**{f"launchctl_print_{_GUI}/local.mgs": Said(113)})
    remarks = Launchd(programs, tmp_path).install(spec())
    path = tmp_path / "Library/LaunchAgents/local.mgs.plist"
    assert plistlib.loads(path.read_bytes())["Label"] == "local.mgs"
    assert path.stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "Library/Logs/mgs").is_dir()
    assert remarks == [f"output goes to {tmp_path / 'Library/Logs/mgs/mgs.log'}"]
    assert programs.called == [
        f"launchctl print {_GUI}",
        f"launchctl print {_GUI}/local.mgs",
        f"launchctl enable {_GUI}/local.mgs",
        f"launchctl bootstrap {_GUI} {path}",
    ]


def test_a_job_that_runs_has_ended_before_launchd_gets_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchd, "_POLL_S", 0.001)
    states = [Said(0), Said(0), Said(0), Said(113)]
    programs = Programs(**{f"launchctl_print_{_GUI}/local.mgs": states})
    Launchd(programs, tmp_path).install(spec())
    looked = f"launchctl print {_GUI}/local.mgs"
    assert programs.called[1:6] == [
        looked, f"launchctl bootout {_GUI}/local.mgs", looked, looked, looked,
    ]  # fmt: skip
    assert programs.called[-1].startswith("launchctl bootstrap")


def test_a_mac_at_which_nobody_is_logged_in_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"nobody is logged in.*log in there"):
        Launchd(Programs(launchctl_print=Said(125)), tmp_path).install(spec())
    assert not (tmp_path / "Library").exists()


def test_what_launchd_says_against_a_job_is_told(tmp_path: Path) -> None:
    refused = Said(5, "Bootstrap failed: 5: Input/output error")
    programs = Programs(
        **{f"launchctl_print_{_GUI}/local.mgs": Said(113), "launchctl_bootstrap": refused}
    )
    with pytest.raises(CliError, match=r"bootstrap.*failed \(5\): Bootstrap failed"):
        Launchd(programs, tmp_path).install(spec())


def test_an_uninstalled_job_has_no_file(tmp_path: Path) -> None:
    programs = Programs(**{f"launchctl_print_{_GUI}/local.mgs": Said(113)})
    service = Launchd(programs, tmp_path)
    service.install(spec())
    service.uninstall("mgs", 13)
    assert not service.path("mgs").exists()


def test_the_state_of_a_job_is_some_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "gui/501/local.mgs = {\n\tactive count = 1\n\tstate = running\n\tpid = 7\n\tpid = no\n}"
    assert Launchd(Programs(launchctl_print=Said(0, said)), tmp_path).status("mgs")
    assert capsys.readouterr().out == "state = running\npid = 7\npid = no\n"
    assert not Launchd(Programs(launchctl_print=Said(113, "no")), tmp_path).status("mgs")


def test_the_log_of_a_job_is_followed(tmp_path: Path) -> None:
    programs = Programs(**{f"launchctl_print_{_GUI}/local.mgs": Said(113)})
    service = Launchd(programs, tmp_path)
    with pytest.raises(CliError, match="has not run yet"):
        service.logs("mgs")
    service.install(spec())
    log = tmp_path / "Library/Logs/mgs/mgs.log"
    log.touch()
    service.logs("mgs")
    assert programs.called[-1] == f"tail -n 100 -F {log}"


# systemd.


def test_a_unit_stops_as_the_server_wants_it(tmp_path: Path) -> None:
    lines = Systemd(Programs(), tmp_path).content(spec(MGS_PORT="4001")).splitlines()
    assert {
        "Type=exec",
        f"WorkingDirectory={_ROOT}",
        f'ExecStart="{sys.executable}" -m api.cli.main serve',
        'Environment="MGS_PORT=4001"',
        "Restart=on-failure",
        "TimeoutStopSec=13",
        "KillMode=mixed",
        "WantedBy=default.target",
    } <= set(lines)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
@pytest.mark.parametrize("folder", ["plain", "a b", "100%", "ü"])
def test_systemd_finds_no_fault_in_a_unit(tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    unit = tmp_path / "mgs-test.service"
    unit.write_text(
        Systemd(Programs(), tmp_path).content(
            spec("mgs-test", place, MGS_PORT="4001", MGS_MODEL_ALIASES=_ODD)
        )
    )
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "mgs-test" not in done.stderr


def test_values_are_quoted_so_that_systemd_reads_what_was_meant(tmp_path: Path) -> None:
    """systemd.syntax(7): a backslash escapes; systemd.unit(5): a per cent sign is a specifier."""
    text = Systemd(Programs(), tmp_path).content(spec(MGS_MODEL_ALIASES=_ODD))
    value = r"a \"quoted\" \\ 100 %% $HOME <&> ü"
    assert f'Environment="MGS_MODEL_ALIASES={value}"' in text.splitlines()


@pytest.mark.parametrize("folder", ["/a$b", '/a"b', "/a\\b"])
def test_a_path_that_systemd_would_misread_is_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(CliError, match="cannot have"):
        Systemd(Programs(), tmp_path).content(spec(folder=Path(folder)))


def test_systemd_is_given_the_unit_and_starts_it(tmp_path: Path) -> None:
    programs = Programs(loginctl=Said(0, "Linger=no"))
    remarks = Systemd(programs, tmp_path).install(spec())
    assert (tmp_path / ".config/systemd/user/mgs.service").read_text().startswith("[Unit]")
    assert programs.called[:4] == [
        "systemctl --user show-environment",
        "systemctl --user daemon-reload",
        "systemctl --user enable mgs.service",
        "systemctl --user restart mgs.service",
    ]
    assert "loginctl enable-linger" in remarks[0]


@pytest.mark.parametrize("said", [Said(0, "Linger=yes"), Said(1, "no such user")])
def test_a_user_who_lingers_is_told_nothing_of_it(tmp_path: Path, said: Said) -> None:
    assert Systemd(Programs(loginctl=said), tmp_path).install(spec()) == []


def test_a_user_without_a_session_is_told_what_to_do(tmp_path: Path) -> None:
    programs = Programs(systemctl=Said(1, "Failed to connect to bus: No medium found"))
    for act in (lambda one: one.install(spec()), lambda one: one.uninstall("mgs", 13)):
        with pytest.raises(CliError, match=r"No medium found.*enable-linger.*XDG_RUNTIME_DIR"):
            act(Systemd(programs, tmp_path))
    assert not (tmp_path / ".config").exists()


def test_an_uninstalled_unit_has_no_file(tmp_path: Path) -> None:
    programs = Programs()
    service = Systemd(programs, tmp_path)
    service.install(spec())
    service.uninstall("mgs", 13)
    assert not service.path("mgs").exists()
    assert programs.called[-2:] == [
        "systemctl --user disable --now mgs.service",
        "systemctl --user daemon-reload",
    ]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".config").touch()
    with pytest.raises(CliError, match=r"mgs\.service cannot be written"):
        Systemd(Programs(), tmp_path).install(spec())


# The command.


def test_a_program_that_is_missing_is_named_with_another_way() -> None:
    with pytest.raises(CliError, match=r"mgs-no-such-program is not on this machine.*mgs serve"):
        run_program("mgs-no-such-program")


def test_a_program_is_heard_with_its_errors() -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    assert run_program(sys.executable, "-c", code) == Said(3, "out\nerr")


@pytest.mark.parametrize("option", ["--print", "--dry-run"])
def test_the_file_is_shown_and_nothing_is_changed(option: str) -> None:
    arguments = ["service", "install", option, "--name", "mgs-of-a-test"]
    shown = CliRunner(env=dict.fromkeys(("MGS_API_KEY", "REDIS_URL"))).invoke(main.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert str(project_root()) in shown.output
    assert "serve" in shown.output
    if sys.platform == "darwin":
        assert plistlib.loads(shown.stdout_bytes)["Label"] == "local.mgs-of-a-test"


def test_what_is_not_installed_cannot_be_uninstalled() -> None:
    said = CliRunner().invoke(main.app, ["service", "uninstall", "--name", "mgs-of-a-test"])
    assert isinstance(said.exception, CliError)
    assert "no service mgs-of-a-test is installed" in str(said.exception)
