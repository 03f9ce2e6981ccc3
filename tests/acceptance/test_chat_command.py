"""``mgs chat`` as a user types it: in a terminal, and in a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.server import Server
from tests.helpers.terminal import Terminal
from tests.helpers.waiting import wait_until

PROMPT = ">>> "
HELLO = "Hello! 👋 How can I help you?"


@pytest.fixture(scope="module")
def server(_session_server: Server) -> Iterator[Server]:
    """A server with two models for the whole module."""
    _session_server.load("demo.gguf", "0")
    _session_server.load("fake-20ms", "1")
    yield _session_server
    _session_server.unload_all()


@pytest.fixture
def env(server: Server, tmp_path: Path) -> dict[str, str]:
    """With a state folder of its own, for the history."""
    return {**server.env, "MGS_STATE_DIR": str(tmp_path / "state")}


def pipe(env: dict[str, str], *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "api.cli.main", "chat", *arguments]
    return subprocess.run(command, input=text, env=env, capture_output=True, text=True, timeout=60)


def test_without_a_terminal_the_answer_is_all_that_is_printed(env: dict[str, str]) -> None:
    done = pipe(env, "demo.gguf", "--temperature", "0", text="Hello!\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{HELLO}\n", "")
    done = pipe(env, "demo.gguf", "What is 2 + 3?", "--temperature", "0")
    assert done.stdout == "2 + 3 = 5\n"


@pytest.mark.parametrize(("name", "text"), [("nobody", "Hello!"), ("demo.gguf", " \n")])
def test_without_a_terminal_an_error_is_one_line(env: dict[str, str], name: str, text: str) -> None:
    done = pipe(env, name, text=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mgs: ")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(env: dict[str, str]) -> None:
    command = f"{sys.executable} -m api.cli.main chat fake-20ms Hello | head -c 4"
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=60)
    assert (len(done.stdout), done.stderr) == (4, "")


def say(user: Terminal, line: str) -> str:
    """What is shown from one prompt to the next, the line itself first."""
    user.type(f"{line}\n")
    return user.expect(PROMPT)


def test_a_conversation_is_held_counted_saved_and_gone_on_with(
    env: dict[str, str], tmp_path: Path
) -> None:
    with Terminal("chat", "demo.gguf", "--temperature", "0", env=env, folder=tmp_path) as user:
        user.expect(PROMPT)
        assert HELLO in say(user, "Hello!")
        assert "saved as" in say(user, "/save talk.json")
        assert say(user, "/system Be brief.").count("Be brief.") == 2
        assert "tokens of 2048" in say(user, "/tokens")
        assert "forgotten" in say(user, "/clear")
        assert "2 turns" in say(user, "/load talk.json")
        assert "* demo.gguf (ready)" in say(user, "/model")
        assert "/save FILE" in say(user, "/help")
        assert "there is no command /nothing" in say(user, "/nothing")
        user.type("/bye\n")
        assert user.end() == 0
    turns = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [turn["content"] for turn in turns] == ["Hello!", HELLO]
    history = tmp_path / "state" / "chat_history"
    assert history.read_text().splitlines()[:2] == ["Hello!", "/save talk.json"]
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_an_answer_and_its_job_and_ctrl_d_ends(
    server: Server, env: dict[str, str], tmp_path: Path
) -> None:
    def last_job() -> dict[str, str]:
        jobs = httpx.get(f"{server.url}/v1/jobs", params={"model": "1"}).json()["data"]
        return {name: jobs[0][name] for name in ("task", "status")}

    with Terminal("chat", "demo.gguf", "--temperature", "0", env=env, folder=tmp_path) as user:
        user.expect(PROMPT)
        assert "'nobody' is no loaded model" in say(user, "/model nobody")
        assert "now fake-20ms" in say(user, "/model fake-20ms")
        user.type('"""one\n')
        user.expect("... ")
        user.type('two"""\n')
        user.expect("0000009")
        user.type("\x03")
        assert "[stopped]" in user.expect(PROMPT)
        cancelled = {"task": "generate", "status": "cancelled"}
        wait_until(lambda: last_job() == cancelled, "the end of the job")
        user.type("half a line")
        user.expect("half a line")  # shown: it is being read
        # Python's readline sees a signal only while it waits for a key, not while it shows one.
        wait_until(user.is_waiting, "it waits for the next key")
        user.type("\x03")
        assert "Ctrl-D or /bye ends" in user.expect(PROMPT)
        assert "saved as" in say(user, "/save stopped.json")
        user.type("\x04")
        assert user.end() == 0
    turns = json.loads((tmp_path / "stopped.json").read_text())["messages"]
    assert turns[0]["content"] == "one\ntwo"
    assert "0000009" in turns[1]["content"]


def test_an_unknown_model_ends_it_at_once(env: dict[str, str], tmp_path: Path) -> None:
    with Terminal("chat", "nobody", env=env, folder=tmp_path) as user:
        assert user.end() == 1
        assert "mgs: 'nobody' is no loaded model" in user.shown
