"""The embedded Redis, as real processes: it survives what kills it and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from tests.helpers.processes import free_port, is_running
from tests.helpers.waiting import wait_until

_LAUNCH = [sys.executable, "-m", "jobs.embedded_redis.launcher"]
_WAIT_S = 10.0


class Launcher:
    """One launcher process on one state folder."""

    def __init__(self, state_dir: Path, **environment: str) -> None:
        self.state_dir = state_dir
        self.log = state_dir.parent / f"{time.monotonic_ns()}.log"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MGS_", "REDIS_"))}
        env |= {"MGS_STATE_DIR": str(state_dir)} | environment
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(_LAUNCH, stdout=log, stderr=log, env=env)

    def client(self) -> Redis:
        return Redis(unix_socket_path=str(self.state_dir / "redis.sock"), protocol=2)

    def server_pid(self) -> int | None:
        """Pid of the server that answers, or None."""
        try:
            with self.client() as client:
                return int(client.info("server")["process_id"])
        except RedisError:
            return None

    def wait_for_server(self, other_than: int | None = None) -> int:
        pid = wait_until(
            lambda: self.server_pid() not in (None, other_than) and self.server_pid(), "a server"
        )
        assert pid
        return pid

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(_WAIT_S)


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder; whatever still runs on it at the end is ended."""
    folder = tmp_path / "s"
    yield folder
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in " ".join(process.info["cmdline"] or []):
            process.kill()


@pytest.fixture
def launch(state_dir: Path) -> Iterator[Callable[..., Launcher]]:
    """Starts launchers that end with the test."""
    launchers: list[Launcher] = []

    def start(**environment: str) -> Launcher:
        launchers.append(Launcher(state_dir, **environment))
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.stop()


def test_it_announces_the_server_and_keeps_it_private(launch, state_dir) -> None:
    launcher = launch()
    launcher.wait_for_server()
    wait_until(lambda: "mgs redis-cli" in launcher.log.read_text(), "it says how to look in")
    assert str(state_dir / "redis.sock") in launcher.log.read_text()
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((state_dir / "redis.sock").stat().st_mode) == 0o700
    with launcher.client() as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_killed_server_comes_back_with_its_data(launch) -> None:
    launcher = launch()
    pid = launcher.wait_for_server()
    for number in range(3):
        with launcher.client() as client:
            client.set(f"key-{number}", "kept")
            wait_until(
                lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, "all is on disk"
            )
        os.kill(pid, signal.SIGKILL)
        pid = launcher.wait_for_server(other_than=pid)
    with launcher.client() as client:
        assert client.mget("key-0", "key-1", "key-2") == [b"kept"] * 3
    assert launcher.process.poll() is None


def test_a_killed_launcher_is_followed_by_one_with_the_same_data(launch) -> None:
    first = launch()
    orphan = first.wait_for_server()
    with first.client() as client:
        client.set("key", "kept")
    first.process.kill()
    first.process.wait()
    assert psutil.pid_exists(orphan)

    second = launch()
    second.wait_for_server(other_than=orphan)
    assert not is_running(orphan)
    with second.client() as client:
        assert client.get("key") == b"kept"


def test_a_leftover_is_found_even_when_its_pid_was_not_noted(launch, state_dir) -> None:
    first = launch()
    orphan = first.wait_for_server()
    first.process.kill()
    first.process.wait()
    (state_dir / "redis.pid").unlink()

    second = launch()
    second.wait_for_server(other_than=orphan)
    assert not is_running(orphan)


def test_a_frozen_leftover_is_replaced_too(launch) -> None:
    first = launch()
    orphan = first.wait_for_server()
    first.process.kill()
    first.process.wait()
    os.kill(orphan, signal.SIGSTOP)

    second = launch()
    wait_until(lambda: not is_running(orphan), "the orphan has ended")
    second.wait_for_server(other_than=orphan)


def test_a_foreign_process_with_a_noted_pid_is_left_alone(launch, state_dir) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    state_dir.mkdir()
    (state_dir / "redis.pid").write_text(f'{{"pid": {stranger.pid}, "start_time": 1.0}}')
    try:
        launch().wait_for_server()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_leftover_is_known_though_its_start_time_has_moved(launch, state_dir) -> None:
    """As on macOS after a correction of the clock."""
    first = launch()
    orphan = first.wait_for_server()
    first.process.kill()
    first.process.wait()
    noted = json.loads((state_dir / "redis.pid").read_text())
    (state_dir / "redis.pid").write_text(
        json.dumps(noted | {"start_time": noted["start_time"] - 30})
    )
    second = launch()
    wait_until(lambda: not is_running(orphan), "the orphan has ended")
    second.wait_for_server(other_than=orphan)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_both_and_leaves_nothing(launch, state_dir, number) -> None:
    launcher = launch()
    pid = launcher.wait_for_server()
    launcher.process.send_signal(number)
    launcher.process.send_signal(number)
    assert launcher.process.wait(_WAIT_S) == 0
    assert not is_running(pid)
    assert not (state_dir / "redis.sock").exists()
    assert not (state_dir / "redis.pid").exists()


def test_it_stops_in_time_although_a_client_stays(launch) -> None:
    launcher = launch()
    launcher.wait_for_server()
    with launcher.client() as client:
        client.ping()
        started = time.monotonic()
        assert launcher.stop() == 0
    assert time.monotonic() - started < 5


def test_the_last_client_can_still_write_after_the_signal(launch) -> None:
    launcher = launch()
    launcher.wait_for_server()
    with launcher.client() as client:
        client.ping()
        launcher.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            launcher.process.wait(0.3)
        client.set("handed", "back")
    assert launcher.process.wait(_WAIT_S) == 0
    again = launch()
    again.wait_for_server()
    with again.client() as client:
        assert client.get("handed") == b"back"


def test_a_second_launcher_on_the_same_folder_is_refused(launch) -> None:
    first = launch()
    pid = first.wait_for_server()
    second = launch()
    assert second.process.wait(_WAIT_S) == 1
    assert "MGS_STATE_DIR" in second.log.read_text()
    assert first.server_pid() == pid


def test_with_redis_url_it_only_waits_for_its_end(launch, state_dir) -> None:
    launcher = launch(REDIS_URL="redis://user:secret@127.0.0.1:6379/0")
    wait_until(lambda: "redis://127.0.0.1:6379/0" in launcher.log.read_text(), "it names the other")
    assert "secret" not in launcher.log.read_text()
    assert psutil.Process(launcher.process.pid).children() == []
    assert launcher.stop() == 0
    assert not state_dir.exists()


def test_a_loopback_port_is_opened_with_a_password(launch, state_dir) -> None:
    port = free_port()
    launcher = launch(MGS_REDIS_PORT=str(port))
    password_file = state_dir / "redis.password"
    wait_until(lambda: "mgs redis-cli" in launcher.log.read_text(), "it says how to look in")
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    with (
        Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.ping()
    with Redis(port=port, protocol=2, password=password_file.read_text().strip()) as client:
        assert client.ping()
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_taken_port_is_one_clear_end(launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        launcher = launch(MGS_REDIS_PORT=str(taken.getsockname()[1]))
        assert launcher.process.wait(_WAIT_S) == 1
    assert "does not start (exit status 1)" in launcher.log.read_text()
