"""Pieces of prompts that last about as long as a step may."""

from __future__ import annotations

from workers.engines.shared.chunk_budget import (
    DEFAULT_TARGET_S,
    FIRST_CHUNK,
    MIN_CHUNK,
    ChunkBudget,
    first_chunk,
)


def test_chunks_grow_while_fast_and_shrink_when_slow() -> None:
    chunk = ChunkBudget(largest=1000)
    for _ in range(10):
        chunk.record(chunk.num_tokens, DEFAULT_TARGET_S / 10)
    assert chunk.num_tokens == 1000
    chunk.record(1000, DEFAULT_TARGET_S * 1.25)
    assert chunk.num_tokens == 800
    for _ in range(10):
        chunk.record(chunk.num_tokens, DEFAULT_TARGET_S * 100)
    assert chunk.num_tokens == MIN_CHUNK


def test_a_small_fast_chunk_says_nothing_about_large_ones() -> None:
    chunk = ChunkBudget(largest=1000)
    first = chunk.num_tokens
    chunk.record(1, 0.001)
    chunk.record(0, 99.0, 1)
    assert chunk.num_tokens == first


def test_a_chunk_does_not_pay_for_those_who_decode_beside_it() -> None:
    chunk = ChunkBudget(largest=1000)
    for _ in range(10):
        chunk.record(chunk.num_tokens, DEFAULT_TARGET_S / 10)
    chunk.record(0, DEFAULT_TARGET_S, 10)
    chunk.record(1000, DEFAULT_TARGET_S * 2, 10)
    assert chunk.num_tokens == 1000


def test_chunks_are_of_whole_tiles() -> None:
    chunk = ChunkBudget(largest=1000, tile=64)
    for _ in range(10):
        chunk.record(chunk.num_tokens, DEFAULT_TARGET_S * 100)
    assert chunk.num_tokens == 64
    for fitting, expected in [(90, 64), (110, 128), (150, 128), (170, 192)]:
        for _ in range(4):
            chunk.record(chunk.num_tokens, DEFAULT_TARGET_S * chunk.num_tokens / fitting)
        assert chunk.num_tokens == expected


def test_the_chunk_shrinks_when_late_and_doubles_when_early() -> None:
    budget = ChunkBudget()
    first = budget.num_tokens
    budget.record(first, 0.01)
    assert budget.num_tokens == 2 * first
    budget.record(first, 0.01)  # was not full: says nothing about a full one
    assert budget.num_tokens == 2 * first
    for expected in (first, first // 2):  # by half at most: a first step reads from disk too
        budget.record(budget.num_tokens, 1.0)
        assert budget.num_tokens == expected


def test_a_small_model_begins_with_larger_chunks() -> None:
    sizes = [first_chunk(num) for num in (1_000_000, 5_000_000, 8_000_000_000)]
    assert sizes == [256, 100, FIRST_CHUNK]
    assert first_chunk(1_000_000, 0.05) == 125


def test_on_a_gpu_a_step_with_few_tokens_tells_nothing() -> None:
    budget = ChunkBudget(is_gpu=True)
    first = budget.num_tokens
    budget.record(first // 2 - 1, 99.0)
    assert budget.num_tokens == first
    budget.record(first, 99.0)
    assert budget.num_tokens == first // 2


def test_a_cold_step_tells_nothing() -> None:
    budget = ChunkBudget()
    first = budget.num_tokens
    budget.record(first, 99.0, is_cold=True)
    assert budget.num_tokens == first
