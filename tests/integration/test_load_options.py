"""Options of a load that a real worker keeps, also the one that follows a dead one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.driver import Driver
from tests.helpers.supervised import supervised


@pytest.fixture
def driver(redis_url: str, tmp_path: Path) -> Iterator[Driver]:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "tuned.gguf").write_bytes(b"GGUF")
    with supervised(redis_url, tmp_path, MGS_ADAPTERS_DIR=str(adapters)) as running:
        yield running.driver


def test_a_worker_that_follows_a_dead_one_loads_the_same(driver: Driver) -> None:
    options = {"adapter": "tuned.gguf", "context_length": 99, "prompt_cache_bytes": 0}
    first = driver.load_ready("fake", **options)
    assert driver.text_of(driver.generate("x" * 8, 9)) == "a000001 a"
    os.kill(first.pid, signal.SIGKILL)
    second = driver.wait_ready(other_than=[first.pid])
    assert second.context_length == first.context_length == 99
    assert driver.text_of(driver.generate("x" * 8, 9)) == "a000001 a"


def test_a_load_whose_adapter_is_gone_fails_by_its_name(driver: Driver) -> None:
    desired = driver.load("fake", adapter="gone")
    error = driver.wait_ended(desired.load_job)[-1].error
    assert (error.code, error.param) == ("adapter_not_found", "adapter_name")


def test_a_load_of_broken_files_names_the_model_as_what_is_at_fault(
    driver: Driver, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "broken.gguf").write_bytes(b"this is no GGUF file")
    desired = driver.load("broken.gguf", backend="llama-cpp")
    waiting = driver.generate()
    error = driver.wait_ended(desired.load_job)[-1].error
    assert (error.code, error.param) == ("model_load_failed", "llm_model_name")
    error = driver.wait_ended(waiting)[-1].error
    assert (error.code, error.param) == ("model_load_failed", None)


def test_a_wrong_option_of_a_load_is_no_fault_of_who_waits_for_its_model(driver: Driver) -> None:
    desired = driver.load("fake", adapter="gone")
    waiting = driver.generate()
    assert driver.wait_ended(desired.load_job)[-1].error.code == "adapter_not_found"
    error = driver.wait_ended(waiting)[-1].error
    assert (error.code, error.param) == ("model_load_failed", None)


def test_a_request_names_its_own_adapter(driver: Driver) -> None:
    driver.load_ready("fake")
    jobs = {name: driver.generate("x" * 8, 9, adapter=name) for name in ("tuned", None)}
    assert driver.text_of(jobs["tuned"]) == "a000001 a"
    assert driver.text_of(jobs[None]) == "0000001 0"


@pytest.mark.parametrize("name", ["gone", "../adapters/tuned.gguf", "/etc", "tuned.gguf\x00", ""])
def test_an_adapter_that_is_not_there_ends_the_job_before_it_starts(
    driver: Driver, name: str
) -> None:
    driver.load_ready("fake")
    (event,) = driver.wait_ended(driver.generate("x" * 8, 9, adapter=name))
    assert (event.error.code, event.error.param) == ("adapter_not_found", "adapter_name")
