"""Workers that share a GPU compute one after the other, each in its turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.platform.file_lock import lock_file
from tests.faults.clients import Stream, body, is_exact
from tests.faults.rig import kill, running_server, worker_pid
from tests.helpers.samples import settings_for
from tests.helpers.waiting import wait_until
from workers.engines.base import ModelInfo
from workers.runtime import turns
from workers.runtime.turns import Turn, open_turn

ROUNDS = 200


def info(*, is_on_gpu: bool) -> ModelInfo:
    return ModelInfo("fake", context_length=1, num_slots=1, vocab_size=1, is_on_gpu=is_on_gpu)


def test_three_workers_never_compute_at_once_and_each_gets_its_share(tmp_path: Path) -> None:
    order: list[str] = []
    busy: list[str] = []
    begin = threading.Barrier(3)

    def compute(name: str) -> None:
        turn = Turn(tmp_path)
        begin.wait()
        while len(order) < ROUNDS:
            with turn:
                busy.append(name)
                order.append(name)
                assert busy == [name]
                threading.Event().wait(0.001)
                busy.remove(name)

    threads = [threading.Thread(target=compute, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not busy
    assert min(order.count(name) for name in "abc") >= ROUNDS / 10
    gaps = [order[at : at + 20] for at in range(0, ROUNDS - 20, 20)]
    assert all(len(set(gap)) > 1 for gap in gaps), "nobody has it for 20 steps alone"


def test_a_step_that_hangs_does_not_stop_the_others_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_S", 0.05)
    held, other = Turn(tmp_path), Turn(tmp_path)
    with held:
        for _ in range(2):
            with other:
                pass
    with other, Turn(tmp_path):
        pass


def test_a_worker_that_is_killed_in_its_turn_lets_go_of_it(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from workers.runtime.turns import Turn\n"
        "with Turn(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
    assert lock_file(Turn(tmp_path)._turn, 0.0, 0.001)


def test_only_models_on_the_gpu_of_a_mac_wait_for_their_turn_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_turn(setting: str, *, is_on_gpu: bool) -> bool:
        settings = settings_for("", tmp_path, gpu_turns=setting)
        return open_turn(settings, info(is_on_gpu=is_on_gpu)) is not None

    for platform in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert has_turn("auto", is_on_gpu=True) == (platform == "darwin")
        assert not has_turn("auto", is_on_gpu=False)
        assert has_turn("on", is_on_gpu=False)
        assert not has_turn("off", is_on_gpu=True)


def test_two_busy_models_both_stream_and_survive_the_death_of_one_in_its_turn() -> None:
    with running_server(MGS_GPU_TURNS="on") as server:
        server.load("fake-10ms", "0")
        server.load("fake-10ms", "1")
        streams = [
            Stream(server.port, body(8, 150, model=model_id), model_id=model_id)
            for model_id in ("0", "1")
        ]
        for stream in streams:
            stream.wait_text(20)
        kill(worker_pid(server, "1"))
        for stream in streams:
            assert is_exact(stream.result(), 8, 150), stream.answer
        wait_until(lambda: worker_pid(server, "1"), "the model runs again")
