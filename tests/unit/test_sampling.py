"""The table of parameters; seeds, a function of their arguments, never llama.cpp's "random"."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jobs.contract.sampling import SAMPLING_FIELDS, Sampling, choice_seed, draw_seed

SEEDS = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**40)


@given(SEEDS, POSITIONS)
def test_the_seed_of_a_draw_fits_and_repeats(seed: int, position: int) -> None:
    drawn = draw_seed(seed, position)
    assert 0 <= drawn < 0xFFFFFFFF
    assert draw_seed(seed, position) == drawn


def test_the_seeds_of_a_sequences_draws_do_not_repeat_in_a_pattern() -> None:
    assert len({draw_seed(0, position) for position in range(10_000)}) > 9_990
    assert len({draw_seed(seed, 0) for seed in range(10_000)}) > 9_990


def test_the_seed_of_a_draw_never_changes_between_versions() -> None:
    """A job that goes on after an upgrade draws as it would have."""
    assert [draw_seed(0, 0), draw_seed(42, 7)] == [1222067678, 726506272]


@given(SEEDS)
def test_the_first_choice_has_the_requests_own_seed(seed: int) -> None:
    assert choice_seed(seed, 0) == seed


@given(SEEDS)
def test_every_choice_draws_differently(seed: int) -> None:
    assert len({choice_seed(seed, choice) for choice in range(16)}) == 16


def test_penalties_without_a_window_are_none() -> None:
    assert Sampling(repetition_penalty=1.2).has_penalties
    assert not Sampling(repetition_penalty=1.2, repetition_context_size=0).has_penalties
    assert not Sampling().has_penalties
    assert Sampling(presence_penalty=-0.5).has_penalties


def test_no_temperature_is_greedy() -> None:
    assert Sampling(temperature=0.0).is_greedy
    assert not Sampling(temperature=1e-9).is_greedy


def test_dry_needs_a_multiplier_and_a_window() -> None:
    assert Sampling(dry_multiplier=0.8).has_dry
    assert not Sampling(dry_multiplier=0.8, dry_penalty_last_n=0).has_dry
    assert not Sampling().has_dry


def test_xtc_takes_part_by_chance_and_at_the_same_places_again() -> None:
    half = Sampling(seed=7, xtc_probability=0.5)
    turns = [half.has_xtc_at(position) for position in range(2000)]
    assert turns == [half.has_xtc_at(position) for position in range(2000)]
    assert 0.45 < sum(turns) / len(turns) < 0.55
    assert turns != [Sampling(seed=8, xtc_probability=0.5).has_xtc_at(i) for i in range(2000)]
    assert all(Sampling(xtc_probability=1.0).has_xtc_at(i) for i in range(500))
    assert not any(Sampling().has_xtc_at(i) for i in range(500))


def test_the_turns_of_xtc_never_change_between_versions() -> None:
    half = Sampling(seed=42, xtc_probability=0.5)
    assert [i for i in range(12) if half.has_xtc_at(i)] == [0, 2, 3, 5, 6, 7, 9, 10, 11]


def test_all_that_is_sampled_by_can_be_said_but_what_is_no_sampling() -> None:
    said = {field.name for field in SAMPLING_FIELDS}
    assert set(Sampling.__struct_fields__) - said == {"num_logprobs"}


def test_defaults_are_within_their_limits() -> None:
    for field in SAMPLING_FIELDS:
        default = getattr(Sampling(), field.name)
        if isinstance(default, int | float):
            assert field.limits.low <= default <= field.limits.high, field.name
