"""Filters by rank on the host: what they keep is what a sort of the whole vocabulary keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.contract.sampling import Sampling
from tests.engines.test_mlx_sampler import EPSILON, RunningRow, kept_by_reference
from workers.engines.dry import NO_BREAKERS, Repetitions
from workers.engines.mlx import device
from workers.engines.mlx.sampling import host_filters
from workers.engines.mlx.sampling.chain import filter_settings
from workers.engines.mlx.sampling.filters import apply_filters
from workers.engines.mlx.sampling.sampler import BatchSampler

VOCAB_SIZE = 100
ALL_AT_ONCE = 1 << 30
Logits = NDArray[np.float32]

pytestmark = pytest.mark.skipif(device.is_gpu(), reason="a GPU sorts, without waiting")


@contextmanager
def first_try(num: int) -> Iterator[None]:
    """Look at that many tokens first, then at twice as many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_filters, "_FIRST_TRY", num)
        patch.setattr(host_filters, "_GROWTH", 2)
        yield


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Choose the filters that a GPU has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "is_gpu", lambda: True)
        yield


def logits_of(kind: str, seed: int) -> Logits:
    """One row: ``kind`` says how its values are spread."""
    values = np.random.default_rng(seed).normal(size=VOCAB_SIZE)
    shaped = {
        "steep": 8.0 * values,
        "flat": 0.01 * values,
        "equal": np.zeros(VOCAB_SIZE),
        "signed zeros": np.where(values > 0, 0.0, -0.0),
        "ties": np.round(2.0 * values),
        "masked": np.where(values > 1.0, values, -np.inf),
        "one": np.where(np.arange(VOCAB_SIZE) == seed % VOCAB_SIZE, 1.0, -np.inf),
    }
    return shaped[kind].astype(np.float32)


KINDS = st.sampled_from(["steep", "flat", "equal", "signed zeros", "ties", "masked", "one"])
LOGITS = st.builds(logits_of, KINDS, st.integers(0, 2**32 - 1))
SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 0.999999]) | st.floats(0.0, 1.0)
SAMPLINGS = st.builds(
    Sampling,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 0, 0, 1, 7, VOCAB_SIZE - 1, VOCAB_SIZE, 500]),
    top_p=st.just(1.0) | SHARES,
    min_p=st.just(0.0) | st.floats(0.0, 0.5),
    top_n_sigma=st.sampled_from([-1.0, -1.0, 1.0]),
    xtc_probability=st.sampled_from([0.0, 1.0]),
    dynatemp_range=st.sampled_from([0.0, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
)
REPEATED = [1, 2, 3, 1, 2, 3, 1, 2]
ROWS = st.lists(st.tuples(LOGITS, SAMPLINGS), min_size=1, max_size=4)
Rows = list[tuple[Logits, Sampling]]


def drawn(rows: Rows) -> list[int]:
    sampler, logits = sampler_of(rows)
    return [int(i) for i in np.array(sampler.draw(logits, last(rows)).tokens)]


def sampler_of(rows: Rows) -> tuple[BatchSampler, mx.array]:
    running = [RunningRow(s, REPEATED, repetitions=repetitions(s)) for _, s in rows]
    return BatchSampler(running, frozenset()), mx.array(np.array([one for one, _ in rows]))


def repetitions(sampling: Sampling) -> Repetitions | None:
    return Repetitions(sampling, NO_BREAKERS) if sampling.dry_multiplier else None


def last(rows: Rows) -> mx.array:
    return mx.array([3] * len(rows))


@given(rows=ROWS, num=st.sampled_from([1, 4, 32]))
def test_tokens_do_not_depend_on_how_many_are_looked_at_first(rows: Rows, num: int) -> None:
    with first_try(ALL_AT_ONCE):
        expected = drawn(rows)
    with first_try(num):
        assert drawn(rows) == expected


@given(rows=ROWS)
def test_tokens_are_those_of_the_filters_that_sort(rows: Rows) -> None:
    sampler, logits = sampler_of(rows)
    heard = np.array(sampler.disfavour(logits, last(rows), {}))
    for row, (_, s) in zip(heard, rows, strict=True):
        loose, tight = (kept_by_reference(row, s, slack) for slack in (EPSILON, -EPSILON))
        assume(loose == tight)  # else a threshold is nearer than the arithmetic is exact
    with first_try(4):
        found = drawn(rows)
    with on_a_gpu():
        assert drawn(rows) == found


@given(rows=ROWS)
def test_what_is_kept_is_what_the_plain_filters_keep(rows: Rows) -> None:
    rows = [(one, msgspec.structs.replace(s, temperature=1.0)) for one, s in rows]
    loose, tight = (
        [kept_by_reference(one, s, slack) for one, s in rows] for slack in (EPSILON, -EPSILON)
    )
    assume(loose == tight)
    with first_try(4):
        logits = mx.array(np.array([one for one, _ in rows]))
        kept = np.array(apply_filters(logits, filter_settings([s for _, s in rows])))
    for row, (original, _), expected in zip(kept, rows, tight, strict=True):
        found = set(np.flatnonzero(row > np.finfo(np.float32).min))
        assert found == expected & set(np.flatnonzero(original > -math.inf))
        assert all(row[token] == original[token] for token in found)


@pytest.mark.parametrize(
    ("rows", "is_on_host"),
    [
        ([Sampling(top_p=0.9)], True),
        ([Sampling(top_p=0.9), Sampling(top_k=20, top_p=0.9), Sampling()], True),
        ([Sampling(top_p=0.9, typical_p=0.9)], False),
        ([Sampling(top_p=0.9), Sampling(top_k=5000)], False),
        ([Sampling(top_p=0.9, top_k=20)], False),
        ([Sampling(min_p=0.1)], False),
        ([Sampling(temperature=0.0, top_p=0.9)], False),
    ],
)
def test_a_draw_waits_only_where_a_sort_is_saved(rows: list[Sampling], is_on_host: bool) -> None:
    sampler = BatchSampler([RunningRow(s) for s in rows], frozenset())
    logits = mx.array(np.zeros((len(rows), VOCAB_SIZE), np.float32))
    assert sampler.draw(logits, mx.array([0] * len(rows))).has_waited == is_on_host


def test_a_row_without_a_number_harms_no_other() -> None:
    """A broken model may yield them."""
    good = logits_of("steep", 1)
    broken = np.full(VOCAB_SIZE, np.nan, np.float32)
    s = Sampling(seed=1, top_p=0.9)
    assert drawn([(broken, s), (good, s)])[1] == drawn([(good, s)])[0]
    nothing = np.full(VOCAB_SIZE, -np.inf, np.float32)
    assert drawn([(nothing, s), (good, s)])[1] == drawn([(good, s)])[0]
