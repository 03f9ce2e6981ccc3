"""Loading GGUF files, sound and broken, and the log of llama.cpp."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.contract.errors import InvalidRequestError, JobCancelledError, ModelLoadError
from tests.engines.driving import run_one
from tests.gguf_bytes import Metadata, gguf_bytes
from workers.engines.base import EngineOptions
from workers.engines.llama_cpp.binding import NativeLog, lib
from workers.engines.llama_cpp.engine import LlamaCppEngine, open_llama_cpp
from workers.engines.llama_cpp.load.context import _context_params

DEMO = Path(__file__).parents[2] / "models" / "demo.gguf"


def opened(path: Path = DEMO, options: EngineOptions | None = None) -> LlamaCppEngine:
    return open_llama_cpp(path, options or EngineOptions(), lambda fraction: None)


def load_error(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        opened(path)
    assert path.name in caught.value.message
    return caught.value.message


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Callable[[bytes], bytes]], Path]:
    """Writes a changed copy of the demo model."""

    def write(edit: Callable[[bytes], bytes]) -> Path:
        path = tmp_path / "edited.gguf"
        path.write_bytes(edit(DEMO.read_bytes()))
        return path

    return write


# Files that cannot be loaded


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such file" in load_error(tmp_path / "none.gguf")


def test_what_llama_cpp_computes_wrongly_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "sees.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "cogvlm"}))
    assert "the architecture cogvlm wrongly: not supported" in load_error(path)


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    assert "folder" in load_error(tmp_path)


def test_a_file_of_another_kind_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    assert "not a GGUF file" in load_error(path)


@pytest.mark.parametrize("fraction", [0.0001, 0.002, 0.5, 0.999])
def test_a_file_cut_off_is_said_to_be_incomplete(
    fraction: float, edited: Callable[[Callable[[bytes], bytes]], Path]
) -> None:
    message = load_error(edited(lambda data: data[: int(len(data) * fraction)]))
    assert "cut off" in message or "corrupted or incomplete" in message


def test_an_unknown_architecture_is_named(
    edited: Callable[[Callable[[bytes], bytes]], Path],
) -> None:
    path = edited(lambda data: data.replace(b"qwen3", b"qwenX"))
    assert "unknown model architecture: 'qwenX'" in load_error(path)


def test_a_header_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "qwen3"}))
    assert "llama.cpp cannot load it" in load_error(path)


def test_missing_parts_of_a_split_model_are_named(tmp_path: Path) -> None:
    path = tmp_path / "big-00001-of-00003.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "qwen3", "split.count": 3}))
    (tmp_path / "big-00003-of-00003.gguf").touch()
    message = load_error(path)
    assert "big-00002-of-00003.gguf" in message
    assert "big-00003-of-00003.gguf" not in message


def test_a_later_part_points_to_the_first(tmp_path: Path) -> None:
    for part in (0, 1):
        metadata: Metadata = {
            "general.architecture": "qwen3",
            "split.count": 2,
            "split.no": part,
        }
        (tmp_path / f"big-0000{part + 1}-of-00002.gguf").write_bytes(gguf_bytes(metadata))
    assert "load big-00001-of-00002.gguf" in load_error(tmp_path / "big-00002-of-00002.gguf")


def test_a_failed_load_can_be_followed_by_a_good_one(tmp_path: Path) -> None:
    load_error(tmp_path / "none.gguf")
    opened().close()


@pytest.mark.parametrize("num_slots", [0, 100_000])
def test_an_impossible_number_of_slots_is_refused(num_slots: int) -> None:
    with pytest.raises(InvalidRequestError, match="slots"):
        opened(options=EngineOptions(num_slots=num_slots))


@pytest.mark.parametrize("context_length", [0, 2**32 + 5])
def test_an_impossible_context_is_refused(context_length: int) -> None:
    with pytest.raises(InvalidRequestError, match="context"):
        opened(options=EngineOptions(context_length=context_length))


# Loading


def test_progress_goes_from_nothing_to_all() -> None:
    fractions: list[float] = []
    open_llama_cpp(DEMO, EngineOptions(), fractions.append).close()
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(fractions) > 2


def test_an_exception_while_loading_stops_the_load() -> None:
    def cancel(fraction: float) -> None:
        raise JobCancelledError("unloaded meanwhile")

    with pytest.raises(JobCancelledError, match="unloaded meanwhile"):
        open_llama_cpp(DEMO, EngineOptions(), cancel)


def test_importing_the_package_does_not_import_llama_cpp() -> None:
    code = (
        "import sys, workers.engines.llama_cpp, jobs.catalog.gguf_header;"
        "print('llama_cpp' in sys.modules)"
    )
    folder = DEMO.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_llama_cpp_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from workers.engines.base import EngineOptions;"
        "from workers.engines.llama_cpp.engine import open_llama_cpp;"
        "open_llama_cpp(Path('models/demo.gguf'), EngineOptions(), lambda f: None)"
    )  # without close: also what the library says at exit
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=DEMO.parents[1], capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")


# The log of llama.cpp


def test_lines_go_to_debug_and_warnings_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    log = NativeLog()
    with caplog.at_level(logging.DEBUG, "workers.engines.llama_cpp.binding"):
        log.write(2, b"loading")  # information in two pieces
        log.write(5, b" tensors\n")
        log.write(4, b"error: no \xff memory\n")
    assert "llama.cpp: loading tensors" in caplog.messages
    assert log.warnings() == "error: no � memory"
    log.clear()
    assert log.warnings() == ""


def test_a_real_load_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "workers.engines.llama_cpp.binding"):
        opened().close()
    assert any("general.architecture" in message for message in caplog.messages)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_a_number_of_threads_that_was_asked_for_stays() -> None:
    engine = opened(options=EngineOptions(num_threads=2))
    run_one(engine, [40, 41, 42])
    assert lib.llama_n_threads(engine._memory.context) == 2
    engine.close()


@pytest.mark.parametrize(("num_gpu_layers", "is_offloaded"), [(0, False), (None, True), (4, True)])
def test_a_model_without_layers_on_the_gpu_uses_none_of_it(
    num_gpu_layers: int | None, is_offloaded: bool
) -> None:
    options = EngineOptions(num_gpu_layers=num_gpu_layers, num_threads=1)
    assert _context_params(None, options).op_offload == is_offloaded


def test_a_model_that_cannot_decode_is_refused_when_it_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(lib, "llama_decode", lambda context, batch: -3)
        assert "cannot decode" in load_error(DEMO)
    assert run_one(opened(), [1, 2, 3], 2).ids
